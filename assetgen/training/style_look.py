"""What a look at style transfer in training tells, and its sheet of pictures; torch and Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from assetgen.training.batches import Reals
from assetgen.training.style_batches import fixed_crops
from assetgen.training.style_terms import correlation

SHOWN = 8  # pictures looked at, and rows of a sheet
CELL_PX = 128
TITLE_PX = 16


def change(before: Tensor, after: Tensor) -> float:
    """Mean change of a value in [-1, 1]; 0 is a generator that hands its input back."""
    return float((after - before).abs().mean())


def structure(before: Tensor, after: Tensor) -> float:
    """Mean of ``style_terms.correlation``: 1 where every edge stands as it was."""
    return float(correlation(before, after).mean())


def diversity(fakes: Tensor, reals: Tensor) -> float:
    """Mean distance of two ``fakes`` ``[n, 3, h, w]`` as a share of that of two ``reals``, by colours and contrast.

    Not by grain, as ``monitor.variety``: pixel art that was enlarged has none at its finest, and no two differ there.
    """
    real, fake = (torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1).float() for x in (reals, fakes))
    scale = real.std(dim=0) + 1e-3
    real_distance, fake_distance = (torch.pdist(values / scale).mean() for values in (real, fake))
    return float(fake_distance / real_distance.clamp(min=1e-6))


def figures(before: Tensor, after: Tensor, target: Tensor, name: str) -> dict[str, float]:
    """``change``, ``structure`` and ``diversity`` towards a domain of that name, for the log.

    Args:
        target: pictures of the domain that ``after`` shall look like.
    """
    return {
        f"change.{name}": round(change(before, after), 4),
        f"structure.{name}": round(structure(before, after), 4),
        f"diversity.{name}": round(diversity(after, target), 3),
    }


def looked_at(reals: Reals, held_out: Reals | None, label: int, crop_px: int, count: int = SHOWN) -> Tensor:
    """The same pictures of a domain at every call; such as the networks never saw, if there are enough."""
    if held_out is not None and len(held_out.pictures[label]) >= count:
        reals = held_out
    return fixed_crops(reals, label, count, crop_px)


def write_rows(path: Path, titles: Sequence[str], columns: Sequence[Tensor]) -> None:
    """Write a sheet: a row a picture, a column a batch ``[n, 3, h, w]`` in [-1, 1], enlarged without smoothing."""
    rows, step = len(columns[0]), CELL_PX + 2
    sheet = Image.new("RGB", (len(columns) * step, TITLE_PX + rows * step), (32, 32, 32))
    canvas = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(zip(titles, columns, strict=True)):
        canvas.text((number * step + 4, 2), title[:20], fill=(255, 255, 255))
        pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        for row, picture in enumerate(pixels):
            cell = Image.fromarray(picture).resize((CELL_PX, CELL_PX), Image.Resampling.NEAREST)
            sheet.paste(cell, (number * step, TITLE_PX + row * step))
    temporary = path.with_name(path.name + ".partial")
    sheet.save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)
