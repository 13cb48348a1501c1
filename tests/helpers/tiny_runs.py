"""Synthetic pictures, tiny recipes and tiny tasks for the tests of the training side; torch is imported late."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from assetgen.datasets.pack import pack
from assetgen.manifest import LayoutSpec
from assetgen.training.recipe import DetailRecipe, PictureRecipe, TextureRecipe

CLASSES = ("brick", "metal")
TEXTURE = TextureRecipe(
    classes=CLASSES,
    min_contrast=0.0,
    scan_px=32,
    trim_px=1,
    crop_px=16,
    latent=16,
    widths=(8, 8, 8),
    grid_layers=2,
    discriminator_widths=(8, 8),
    grid_noise_channels=4,
    layouts={"brick": LayoutSpec(shares=(0, 0, 1, 0, 0), pitch=(4.0, 6.0), turned=0)},
    batch=4,
    r1_interval=2,
    precision="fp32",
)
DETAIL = DetailRecipe(
    classes=CLASSES,
    metal_classes=("metal",),
    scan_px=32,
    trim_px=1,
    crop_px=16,
    margin_px=2,
    score_px=16,
    widths=(8, 8, 8),
    blocks=1,
    discriminator_widths=(8, 8),
    batch=4,
    adversarial_from=0.0,
    r1_interval=2,
    precision="fp32",
)

PICTURE = PictureRecipe(
    classes=CLASSES,
    min_contrast=0.0,
    scan_px=32,
    trim_px=1,
    crop_px=16,
    latent=12,
    width=4,
    batch=4,
    r1_interval=2,
    precision="fp32",
)
# What each family is tried with, by the name of its recipe.
FAMILIES: dict[str, dict[str, Any]] = {
    "vanilla": {"family": "vanilla", "conditioning": "none", "wrap": False},
    "dcgan": {"family": "dcgan", "conditioning": "none"},
    "conditional": {"family": "dcgan", "conditioning": "concat"},
    "auxiliary": {"family": "resnet", "conditioning": "auxiliary"},
    "wgan-gp": {
        "family": "resnet",
        "loss": "wasserstein",
        "gradient_penalty": 10.0,
        "r1_interval": 1,
        "discriminator_steps": 2,
    },
    "progressive": {"family": "progressive", "r1_gamma": 0.1},
    "biggan": {"family": "biggan", "loss": "hinge", "orthogonal": 1e-4, "lecam": 0.1},
    "coded": {"family": "biggan", "loss": "hinge", "rebuild": 10.0, "adversarial": 0.3, "adversarial_from": 0.4},
}


def picture(seed: int, edge_px: int, hue: int = 0) -> NDArray[np.uint8]:
    """A coloured periodic pattern with noise, ``[edge, edge, 3]``."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:edge_px, :edge_px] / edge_px * 2 * np.pi
    wave = np.sin(3 * rows + rng.uniform(0, 6)) * np.cos(2 * columns + rng.uniform(0, 6))
    color = 128 + 60 * wave[:, :, None] * np.roll([1.0, 0.6, 0.3], hue) + rng.normal(0, 8, (edge_px, edge_px, 3))
    return np.clip(color, 0, 255).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Write a PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_map_set(folder: Path, seed: int, edge_px: int, *, hue: int = 0, metallic: bool = False) -> None:
    """Write base colour, normal, roughness and height, and metallic if asked for."""
    color = picture(seed, edge_px, hue)
    grey = color.mean(axis=2).astype(np.uint8)
    normal = np.dstack([np.full_like(grey, 128), 96 + grey // 4, np.full_like(grey, 240)])
    save(folder / "x_albedo.png", color)
    save(folder / "x_normal.png", normal)
    save(folder / "x_roughness.png", 255 - grey)
    save(folder / "x_height.png", grey)
    if metallic:
        save(folder / "x_metallic.png", np.where(grey > 128, 255, 0).astype(np.uint8))


def write_folder(folder: Path, sets: int = 5) -> Path:
    """A data folder: pictures and map sets, large and small, of two classes."""
    for hue, name in enumerate(CLASSES):
        for i in range(4):
            save(folder / name / f"p{i}.png", picture(10 * hue + i, 40, hue))
        for i in range(sets):
            write_map_set(folder / name / f"set{i}", 50 * hue + i, 128, hue=hue, metallic=name == "metal")
        write_map_set(folder / name / "small", 90 + hue, 36, hue=hue)
    return folder


def write_data(folder: Path) -> Path:
    """A training file of ``write_folder``, with items for validation."""
    pack(write_folder(folder / "pictures"), folder / "data.zip", license="CC0-1.0", validation_share=0.3)
    return folder / "data.zip"


def make_task(what: str, data: Path, **changes: Any) -> Any:
    """A task (texture, detail, one of ``FAMILIES``) as ``assetgen train`` makes it, with keys of the recipe changed."""
    from assetgen.training import cli

    kind = what if what in ("texture", "detail") else "texture"
    recipe = {**asdict({"texture": TEXTURE, "detail": DETAIL}.get(what, PICTURE)), **FAMILIES.get(what, {}), **changes}
    text = [f"--set={key}={json.dumps(value)}" for key, value in recipe.items()]
    arguments = cli._parser().parse_args([kind, "--data", str(data), *text])
    arguments.recipe = cli.RECIPES / f"{'dcgan' if what in FAMILIES else what}.toml"
    task, _ = (cli._texture_task if kind == "texture" else cli._detail_task)(arguments, "cpu")
    return task
