"""Sample sheets: a row a class, a column a seed; needs torch and Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from assetgen import latents
from assetgen.datasets.tiles import ByteArray, on_ground
from assetgen.models.texture import Mapping, TextureGenerator
from assetgen.training.batches import Reals, fake_inputs
from assetgen.training.recipe import TextureRecipe

LABEL_PX = 120


def class_means(mapping: Mapping, samples: int = 2048) -> Tensor:
    """Mean style of every class over ``samples`` fixed latents, ``[classes, latent]``."""
    device = mapping.class_means.device
    draws = latents.generator(0, 0).standard_normal((samples, mapping.config.latent), dtype=np.float32)
    z = torch.from_numpy(draws).to(device)
    with torch.no_grad():
        rows = torch.eye(mapping.config.classes, device=device)
        return torch.stack([mapping(z, row.expand(samples, -1)).mean(dim=0) for row in rows])


def sample(
    generator: TextureGenerator,
    recipe: TextureRecipe,
    classes: Sequence[str],
    label: int,
    seed: int,
    edge_px: int,
    truncation: float = 1.0,
) -> ByteArray:
    """One picture ``[edge, edge, 3] uint8`` of class ``label``, whatever else is drawn; the class means must be set."""
    device = next(generator.parameters()).device
    inputs = fake_inputs(latents.generator(seed, label), np.array([label]), classes, recipe, edge_px)
    with torch.no_grad():
        weights = inputs.class_weights.to(device)
        w = generator.mapping.truncated(inputs.z.to(device), weights, torch.full((1, 1), truncation, device=device))
        spatial = ([array.to(device) for array in arrays] for arrays in (inputs.layouts, inputs.noises))
        image = generator.synthesize(w, inputs.grid.to(device), *spatial)
    pixels = ((image[0].float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return pixels.cpu().numpy()


def write_texture_sheet(path: Path, generator: TextureGenerator, recipe: TextureRecipe, reals: Reals) -> None:
    """Write the sheet of a texture generator, at twice the size of its crops: it makes any."""

    def draw(label: int, seed: int) -> ByteArray:
        return sample(generator, recipe, reals.classes, label, seed, edge_px=128)

    write_sheet(path, reals, draw)


def write_sheet(
    path: Path, reals: Reals, draw: Callable[[int, int], ByteArray], *, columns: int = 8, edge_px: int = 128
) -> None:
    """Write a sheet: for each class two real pictures, then ``columns`` samples of the same seeds at every call.

    Args:
        draw: label and seed to a picture ``[h, w, c] uint8``, which is enlarged without smoothing; with c 4, colours
            times alpha and alpha, it is shown on grey.
    """
    rows = len(reals.classes)
    sheet = Image.new("RGB", (LABEL_PX + (columns + 2) * (edge_px + 2), rows * (edge_px + 2)), (32, 32, 32))
    canvas = ImageDraw.Draw(sheet)
    for row, name in enumerate(reals.classes):
        top = row * (edge_px + 2)
        canvas.text((4, top + edge_px // 2), name[:18], fill=(255, 255, 255))
        pictures = [Image.fromarray(on_ground(pixels)).resize((edge_px, edge_px)) for pixels in reals.pictures[row][:2]]
        pictures += [
            Image.fromarray(on_ground(draw(row, seed))).resize((edge_px, edge_px), Image.Resampling.NEAREST)
            for seed in range(columns)
        ]
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (LABEL_PX + column * (edge_px + 2), top))
    temporary = path.with_name(path.name + ".partial")
    sheet.save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)
