"""A picture for models that take one, where nobody has sent any: for checks and golden requests; imports postprocess.

Whole numbers only, so that its pixels are the same everywhere.
"""

from __future__ import annotations

import numpy as np

from assetgen import latents
from assetgen.manifest import Manifest
from assetgen.postprocess import encode
from assetgen.types import ColorSpace, Encoding, ParameterValue, PixelFormat

BRICK, JOINT, GRAIN = (150, 88, 66), (172, 166, 154), 48
ROWS, COLUMNS = 4, 2  # of bricks; every second row is shifted by half a brick


def example_picture(width_px: int, height_px: int) -> bytes:
    """A PNG of bricks with grain that tiles, RGB."""
    down = np.arange(height_px) * ROWS * 16 // height_px  # sixteenths of a brick
    row = down // 16
    along = np.arange(width_px) * COLUMNS * 32 // width_px
    across = (along[np.newaxis, :] + row[:, np.newaxis] % 2 * 16) % 32
    joint = (down[:, np.newaxis] % 16 < 2) | (across < 2)
    grain = latents.generator(0, 0).integers(-GRAIN // 2, GRAIN // 2, (height_px, width_px))
    colors = np.where(joint[:, :, np.newaxis], np.array(JOINT), np.array(BRICK)) + grain[:, :, np.newaxis]
    pixels = np.clip(colors, 0, 255).astype(np.uint8)
    return bytes(encode.encode(pixels, PixelFormat.RGB8, Encoding.PNG, color_space=ColorSpace.SRGB))


def example_parameters(manifest: Manifest, width_px: int, height_px: int) -> dict[str, ParameterValue]:
    """That picture for every parameter that is one, said to tile; sizes of 0 are the model's own."""
    size = manifest.size.default_px
    pictures = [spec.name for spec in manifest.parameters if spec.type == "image"]
    given: dict[str, ParameterValue] = {name: example_picture(width_px or size, height_px or size) for name in pictures}
    if pictures and any(spec.name == "tiles" for spec in manifest.parameters):
        given["tiles"] = "yes"
    return given
