"""Small models of two classes, and a recipe to train on them in seconds; torch is imported late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from assetgen.datasets.volumes import pack_volumes
from assetgen.training.volume_recipe import VolumeRecipe

CLASSES = ("ball", "crate")
EDGE = 16
RECIPE = VolumeRecipe(
    classes=CLASSES,
    volume_edge=EDGE,
    turned_classes=("ball",),
    latent=8,
    style=16,
    width=4,
    features=4,
    hidden=8,
    critic_width=4,
    batch=4,
    total_kimg=0.016,
    r1_interval=2,
    lecam=0.01,
)


def write_model(path: Path, mesh: trimesh.Trimesh, color: tuple[int, int, int]) -> Path:
    """Write a mesh of one colour as GLB; its bytes of COLOR_0 are those of ``color``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = np.tile(np.array([*color, 255], dtype=np.uint8), (len(mesh.vertices), 1))
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=colors, process=False)
    path.write_bytes(mesh.export(file_type="glb"))
    return path


def write_models(folder: Path, count: int = 4) -> Path:
    """Red balls and blue crates of different proportions: ``CLASS/N.glb``."""
    for i in range(count):
        ball = trimesh.creation.icosphere(subdivisions=2)
        ball.apply_scale([1, 1 - 0.1 * i, 1])
        write_model(folder / "ball" / f"{i}.glb", ball, (220, 30, 30))
        crate = trimesh.creation.box((1, 0.4 + 0.1 * i, 0.8))
        write_model(folder / "crate" / f"{i}.glb", crate, (30, 30, 220))
    return folder


def write_volumes(folder: Path) -> Path:
    """A training file of ``write_models``, all of it to train on."""
    path = folder / "volumes.zip"
    pack_volumes(write_models(folder / "models"), path, EDGE, license="CC0-1.0", validation_share=0.0)
    return path


def make_task(data: Path, **changes: Any) -> Any:
    """A task as ``assetgen train mesh`` makes it, with keys of the recipe changed."""
    from dataclasses import asdict

    from assetgen.training import cli

    text = [f"--set={key}={json.dumps(value)}" for key, value in {**asdict(RECIPE), **changes}.items()]
    arguments = cli._parser().parse_args(["mesh", "--data", str(data), *text])
    arguments.recipe = cli.RECIPES / "mesh.toml"
    task, _ = cli._mesh_task(arguments, "cpu")
    return task
