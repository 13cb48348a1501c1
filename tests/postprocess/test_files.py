"""Files encoded one beside the other: the same files in the same order, and only where that pays."""

import threading

import numpy as np
import pytest

from assetgen.postprocess import files
from assetgen.postprocess.encode import encode
from assetgen.postprocess.profiles import PackedTexture
from assetgen.types import ColorSpace, Encoding, PixelFormat


def textures(edge_px: int, count: int = 5) -> list[PackedTexture]:
    rng = np.random.default_rng(edge_px)
    return [
        PackedTexture(
            f"map{n}",
            f"X_{n}.png",
            PixelFormat.RGB8,
            ColorSpace.SRGB,
            rng.integers(0, 8 << n, (edge_px, edge_px, 3)).astype(np.uint8),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("edge_px", [32, 256])
@pytest.mark.parametrize("encoding", Encoding)
def test_every_file_comes_in_its_turn_with_its_bytes(edge_px, encoding):
    given = textures(edge_px)
    made = list(files.encoded(iter(given), encoding, b"", px=edge_px**2, maps=5))
    assert [packed for packed, _ in made] == given
    for packed, data in made:
        assert data == encode(packed.pixels, PixelFormat.RGB8, encoding, color_space=ColorSpace.SRGB)


@pytest.mark.parametrize(
    ("edge_px", "maps", "encoding", "apart"),
    [
        (256, 5, Encoding.PNG, True),
        (128, 5, Encoding.PNG, False),
        (256, 1, Encoding.PNG, False),
        (256, 5, Encoding.RAW, False),
    ],
)
def test_other_threads_help_only_with_several_large_pngs(edge_px, maps, encoding, apart, monkeypatch):
    seen = set()

    def encoding_of(*arguments, **options):
        seen.add(threading.current_thread() is threading.main_thread())
        return b""

    monkeypatch.setattr(files, "encode", encoding_of)
    monkeypatch.setattr("assetgen.postprocess.ahead._cores", lambda: 2)
    assert len(list(files.encoded(iter(textures(8, maps)), encoding, b"", px=edge_px**2, maps=maps))) == maps
    assert seen == {not apart}
