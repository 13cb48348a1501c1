"""What a look at a detail network in training tells: errors, relief, and its sheet of pictures; torch and Pillow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from assetgen.datasets.mapsets import SCALARS, SCALE, MapSet
from assetgen.models.detail import Maps

DEFAULT_RELIEF_PX = 12.0

Predict: TypeAlias = Callable[[MapSet], Maps]


def errors(
    predict: Predict, validation: Sequence[MapSet], detailed: Sequence[MapSet], *, photo: bool
) -> dict[str, float]:
    """Errors on items the network never saw, beside those of the obvious guesses.

    Args:
        detailed: items it has seen, whose mean roughness is a guess.
        photo: whether it is given large pictures.
    """
    scores: dict[str, list[float]] = {}
    for entry in validation:
        maps = predict(entry)
        scale = 1 if entry.large is not None else SCALE
        for name, target in entry.targets.items():
            if name not in SCALARS:
                continue
            predicted = F.avg_pool2d(getattr(maps, name), scale)[0, 0].cpu().numpy()
            if name == "height":
                shown = entry.large if photo and entry.large is not None else entry.small
                seen = torch.from_numpy(np.array(shown)).float().mean(dim=2)[None, None]
                guess = F.interpolate(seen, predicted.shape, mode="bilinear")[0, 0].numpy()
                for what, values in (("", predicted), ("_of_brightness", guess)):
                    slopes = [np.asarray(np.gradient(x)) for x in (values, target[:, :, 0])]
                    for measure, pair in (("height", (values, target[:, :, 0])), ("slope", slopes)):
                        scores.setdefault(f"{measure}_correlation{what}", []).append(_correlation(*pair))
            else:
                scores.setdefault(f"{name}_error", []).append(float(np.abs(predicted - target[:, :, 0]).mean()))
        if "roughness" in entry.targets:
            known = [other.targets["roughness"].mean() for other in detailed if "roughness" in other.targets]
            if known:
                guess_error = float(np.abs(entry.targets["roughness"] - np.mean(known)).mean())
                scores.setdefault("roughness_error_of_mean", []).append(guess_error)
    return {name: round(float(np.mean(values)), 4) for name, values in scores.items()} | {
        "items": float(len(validation)),
        "items_with_height": float(sum("height" in entry.targets for entry in validation)),
    }


def relief_px(predict: Predict, classes: Sequence[str], detailed: Sequence[MapSet]) -> dict[str, float]:
    """Height range in pixels, per class, at which predicted heights have the slopes of real normal maps."""
    ratios: dict[str, list[float]] = {name: [] for name in classes}
    for entry in detailed:
        if "slopes" in entry.targets and entry.label >= 0:
            height = predict(entry).height[0, 0].cpu().numpy()
            steps = np.stack([np.roll(height, -1, axis) - np.roll(height, 1, axis) for axis in (0, 1)], axis=2) / 2
            ratio = float(np.sqrt(np.mean(entry.targets["slopes"] ** 2) / max(float(np.mean(steps**2)), 1e-12)))
            ratios[classes[entry.label]].append(ratio)
    every = [ratio for values in ratios.values() for ratio in values]
    usual = float(np.median(every)) if every else DEFAULT_RELIEF_PX
    return {name: round(float(np.median(values)) if values else usual, 2) for name, values in ratios.items()}


def write_sheet(path: Path, predict: Predict, sets: Sequence[MapSet], edge_px: int = 192) -> None:
    """A row an item: input, predicted base colour, real one, then predicted and real height and roughness."""
    sheet = Image.new("RGB", (7 * edge_px, len(sets) * edge_px), (32, 32, 32))
    for row, entry in enumerate(sets):
        maps = predict(entry)
        large = entry.large if entry.large is not None else entry.small
        columns: list[np.ndarray[Any, Any] | None] = [
            entry.small,
            ((maps.base_color[0].clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy(),
            large,
        ]
        for name in ("height", "roughness"):
            columns.append((getattr(maps, name)[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy())
            target = entry.targets.get(name)
            columns.append(None if target is None else (target * 255).astype(np.uint8))
        for column, pixels in enumerate(columns):
            if pixels is not None:
                part = pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 2]
                picture = Image.fromarray(part[:, :, 0] if part.shape[2] == 1 else part).convert("RGB")
                sheet.paste(picture.resize((edge_px, edge_px)), (column * edge_px, row * edge_px))
    temporary = path.with_name(path.name + ".partial")
    sheet.save(temporary, format="PNG", compress_level=1)
    temporary.replace(path)


def _correlation(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    if a.std() < 1e-8 or b.std() < 1e-8:
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
