"""Pictures of experiments: scatters and digits in small multiples; numpy and Pillow only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from assetgen.errors import OutputUnwritable

PANEL_PX = 220
TITLE_PX = 18
GAP_PX = 8
COLUMNS = 4
_PAPER, _FRAME, _INK = (255, 255, 255), (190, 190, 190), (30, 30, 30)
# Weight of one point where points lie upon each other, 0 to 1.
_POINT = 0.35


def scatter(points: NDArray[np.float32], reach: float) -> Image.Image:
    """Points ``[n, 2]`` in the square from ``-reach`` to ``reach``, denser places darker; outside ones are left out."""
    cells = np.floor((points + reach) / (2 * reach) * PANEL_PX).astype(np.int64)
    cells = cells[((cells >= 0) & (cells < PANEL_PX)).all(axis=1)]
    hits = np.zeros((PANEL_PX, PANEL_PX))
    np.add.at(hits, (PANEL_PX - 1 - cells[:, 1], cells[:, 0]), 1)
    light = (1 - _POINT) ** hits[:, :, None]
    pixels = np.array([20, 60, 150]) * (1 - light) + 255 * light
    return Image.fromarray(pixels.round().astype(np.uint8))


def mosaic(pictures: NDArray[np.uint8], zoom: int = 3) -> Image.Image:
    """As many of the pictures ``[n, h, w, 3]`` as fit into a panel, side by side."""
    _, height, width, _ = pictures.shape
    panel = Image.new("RGB", (PANEL_PX, PANEL_PX), _PAPER)
    across, down = PANEL_PX // (width * zoom), PANEL_PX // (height * zoom)
    for index, pixels in enumerate(pictures[: across * down]):
        picture = Image.fromarray(pixels).resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
        panel.paste(picture, (index % across * width * zoom, index // across * height * zoom))
    return panel


def write_panels(path: Path, panels: Mapping[str, Image.Image]) -> None:
    """Write a PNG of the panels in rows of four, each under its title.

    Raises:
        OutputUnwritable: the file cannot be written.
    """
    rows = -(-len(panels) // COLUMNS)
    across, down = PANEL_PX + GAP_PX, PANEL_PX + TITLE_PX + GAP_PX
    sheet = Image.new("RGB", (min(len(panels), COLUMNS) * across + GAP_PX, rows * down + GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (title, panel) in enumerate(panels.items()):
        left, top = GAP_PX + index % COLUMNS * across, GAP_PX + index // COLUMNS * down
        draw.text((left, top + 2), title, fill=_INK)
        sheet.paste(panel, (left, top + TITLE_PX))
        corner = (left + PANEL_PX - 1, top + TITLE_PX + PANEL_PX - 1)
        draw.rectangle((left, top + TITLE_PX, *corner), outline=_FRAME)
    try:
        sheet.quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
    except OSError as error:
        raise OutputUnwritable(
            f"{path}: {error.strerror or error}", hint="name a file in a folder that exists"
        ) from error
