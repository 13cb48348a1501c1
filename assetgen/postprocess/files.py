"""The files of a material, encoded one beside the other where that pays; imports profiles, encode and ahead of ours."""

from __future__ import annotations

from collections.abc import Iterator

from assetgen.postprocess.ahead import ahead
from assetgen.postprocess.encode import encode
from assetgen.postprocess.profiles import PackedTexture
from assetgen.types import Encoding

# Files of fewer pixels are encoded before other threads would have begun.
APART_PX = 256 * 256


def encoded(
    textures: Iterator[PackedTexture], encoding: Encoding, metadata: bytes, *, px: int, maps: int
) -> Iterator[tuple[PackedTexture, bytes | memoryview]]:
    """Yield every file with its bytes, in order.

    Args:
        textures, encoding, metadata: see ``encode.encode``.
        px: pixels of each file; maps: how many maps they are made of.
    """

    def data(packed: PackedTexture) -> bytes | memoryview:
        return encode(packed.pixels, packed.pixel_format, encoding, color_space=packed.color_space, metadata=metadata)

    if encoding is Encoding.PNG and maps > 1 and px >= APART_PX:
        return ahead(data, textures)
    return ((packed, data(packed)) for packed in textures)
