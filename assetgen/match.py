"""``assetgen match``: the seed and parameters whose base colour comes nearest to a photo; imports no torch.

A search, not an inversion: many seeds, the best of them improved slider by slider. It needs nothing but the package,
and its answer is a request that any client can send.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen import check, latents
from assetgen.describe import ModelInfo
from assetgen.errors import ConfigInvalid, ImageInvalid, OutputUnwritable
from assetgen.local import Maker
from assetgen.manifest import MAX_EDGE_PX, ParameterSpec
from assetgen.postprocess.decode import decode_image
from assetgen.postprocess.preview import RgbPicture, sheet
from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, ParameterValue, Request

# Compared are texels of which 128 make a scan: the whole photo, and half a scan of the model, made at 256 px.
PHOTO_PX = 128
MADE_PX = 256
REDUCTION = 4
SCALES = 5
QUANTILES = 33
DIRECTIONS = 8
TUNED_GROUP = "Look"
STEPS = (0.5, 0.25, 0.125)
STARTS = 2
# Of 1: what the fine structure counts beside the colours.
STRUCTURE_SHARE = 0.5
RESULT_NAME, PICTURE_NAME = "match.json", "match.png"

Features = NDArray[np.float64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """A request for one picture, and how far it is from the photo."""

    seed: int
    parameters: Mapping[str, ParameterValue]
    distance: float


def match(
    maker: Maker, model: ModelInfo, photo: Path, output: Path, *, class_name: str, tries: int, seed: int, say: Say
) -> Candidate:
    """Search, and write ``match.json`` and ``match.png`` into ``output``.

    Args:
        class_name: search this class only; empty searches all.
        tries: seeds a class; as many again of the two best classes.
        seed: decides which seeds are tried.

    Raises:
        ConfigInvalid, ImageInvalid, OutputUnwritable, FieldInvalid: see there.
    """
    if tries < 1:
        raise ConfigInvalid(f"--tries {tries} is not allowed", hint="use 1 or more")
    if model.kind != "texture":
        raise ConfigInvalid(
            f"a photo is matched by a model for materials; {model.id!r} is of kind {model.kind!r}",
            hint="choose another with --model",
        )
    wanted = read_photo(photo)
    judge = _Judge(maker, model, features(wanted))
    classes = next((spec.values for spec in model.parameters if spec.name == "class"), ())
    names: Sequence[str] = [class_name] if class_name else classes or [""]
    rng = latents.generator(seed, 0)
    say(f"{tries} seeds of {len(names)} classes ...")
    found = [judge(int(rng.integers(2**32)), _of_class(name)) for name in names for _ in range(tries)]
    nearest = list(dict.fromkeys(str(c.parameters.get("class", "")) for c in sorted(found, key=_distance)))[:2]
    found += [judge(int(rng.integers(2**32)), _of_class(name)) for name in nearest for _ in range(tries)]
    found.sort(key=_distance)
    say(f"best of {len(found)} seeds: {found[0].seed}, distance {found[0].distance:.4f}")
    tuned = [spec for spec in model.parameters if spec.group == TUNED_GROUP and spec.type == "float"]
    best = min((tune(judge, start, tuned) for start in found[:STARTS]), key=_distance)
    say(f"with sliders: seed {best.seed}, distance {best.distance:.4f}")
    shown = np.asarray(Image.fromarray(wanted).resize((MADE_PX, MADE_PX)))
    pictures = [("photo", shown), ("nearest seed", judge.picture(found[0].seed, found[0].parameters))]
    pictures += [("with sliders", judge.picture(best.seed, best.parameters))]
    _write(output, model, best, found[0], sheet(pictures, columns=3))
    return best


def read_photo(path: Path) -> RgbPicture:
    """The middle square of a picture, ``PHOTO_PX`` on a side, ``[h, w, 3] uint8``.

    Raises:
        ImageInvalid: no picture that can be read, or smaller than that.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageInvalid(f"{path} cannot be read: {error.strerror or error}") from error
    pixels = np.round(decode_image(data, MAX_EDGE_PX) * 255).astype(np.uint8)
    height_px, width_px = pixels.shape[:2]
    edge_px = min(height_px, width_px)
    if edge_px < PHOTO_PX:
        raise ImageInvalid(f"{path}: {width_px} x {height_px} px; each edge needs {PHOTO_PX} at least")
    left, top = (width_px - edge_px) // 2, (height_px - edge_px) // 2
    box = (left, top, left + edge_px, top + edge_px)
    return np.asarray(Image.fromarray(pixels).resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BOX, box))


def features(picture: RgbPicture) -> Features:
    """What two pictures of one material have in common wherever the cells lie: numbers whose mean difference counts.

    Quantiles of the colour along fixed directions at several scales, the sliced Wasserstein distance (Rabin et al.
    2011), and for each scale the same of the differences between neighbours across and down.
    """
    check.shape(picture, "h w 3", "picture")
    axes = latents.generator(0, 0).standard_normal((3, DIRECTIONS))
    axes = np.concatenate([np.eye(3), axes / np.linalg.norm(axes, axis=0)], axis=1)
    image = picture.astype(np.float64) / 255
    colors, slopes = [], []
    for _ in range(SCALES):
        colors.append(_quantiles(image.reshape(-1, 3) @ axes))
        grey = image.mean(axis=2)
        # Around the border: generated pictures close there, and of a photo it is one line among many.
        slopes.append(_quantiles(np.stack([(grey - np.roll(grey, 1, axis)).ravel() for axis in (0, 1)], axis=1)))
        image = (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4
    color, slope = np.concatenate(colors), np.concatenate(slopes)
    return np.concatenate([(1 - STRUCTURE_SHARE) * color / color.size, STRUCTURE_SHARE * slope / slope.size])


def distance(first: Features, second: Features) -> float:
    """Mean difference of two pictures' features, 0 for equal ones, at most about 1."""
    return float(np.abs(first - second).sum())


def _quantiles(values: NDArray[np.float64]) -> Features:
    return np.quantile(values, np.linspace(0, 1, QUANTILES), axis=0).ravel()


class _Judge:
    """Makes pictures and measures how far they are from the one that is wanted."""

    def __init__(self, maker: Maker, model: ModelInfo, wanted: Features) -> None:
        self._maker = maker
        self._model = model
        self._wanted = wanted

    def __call__(self, seed: int, parameters: Mapping[str, ParameterValue]) -> Candidate:
        found = features(_reduced(self.picture(seed, parameters)))
        return Candidate(seed, parameters, distance(found, self._wanted))

    def picture(self, seed: int, parameters: Mapping[str, ParameterValue]) -> RgbPicture:
        """Base colour ``[h, w, 3] uint8``."""
        output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
        request = Request(
            self._model.id, seed, width_px=MADE_PX, height_px=MADE_PX, parameters=parameters, output=output
        )
        made = next(event for event in self._maker.generate(request) if isinstance(event, Artifact))
        return np.frombuffer(made.data, dtype=np.uint8).reshape(made.height_px, made.width_px, 3)


def _reduced(picture: RgbPicture) -> RgbPicture:
    return np.asarray(Image.fromarray(picture).reduce(REDUCTION))


def tune(
    judge: Callable[[int, Mapping[str, ParameterValue]], Candidate], start: Candidate, sliders: Sequence[ParameterSpec]
) -> Candidate:
    """Move one slider after the other as long as that helps, within its range and in steps that become smaller."""
    best = start
    for step in STEPS:
        improved = True
        while improved:
            improved = False
            for spec in sliders:
                for change in (step, -step):
                    moved = float(np.clip(_value(best, spec) + change, spec.minimum, spec.maximum))
                    tried = judge(best.seed, {**best.parameters, spec.name: moved})
                    if tried.distance < best.distance:
                        best, improved = tried, True
                        break
    return best


def _value(candidate: Candidate, spec: ParameterSpec) -> float:
    value = candidate.parameters.get(spec.name, spec.default)
    return float(value) if isinstance(value, int | float) else 0.0


def _distance(candidate: Candidate) -> float:
    return candidate.distance


def _of_class(name: str) -> dict[str, ParameterValue]:
    return {"class": name} if name else {}


def _write(output: Path, model: ModelInfo, best: Candidate, nearest: Candidate, picture: RgbPicture) -> None:
    result: dict[str, Any] = {
        "model": model.id,
        "model_digest": model.digest,
        "seed": best.seed,
        "parameters": dict(best.parameters),
        "distance": round(best.distance, 5),
        "nearest_seed": {"seed": nearest.seed, "distance": round(nearest.distance, 5)},
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / RESULT_NAME).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        Image.fromarray(picture).save(output / PICTURE_NAME, format="PNG")
    except OSError as error:
        raise OutputUnwritable(
            f"{output} cannot be written: {error.strerror or error}", hint="choose another folder with -o"
        ) from error
