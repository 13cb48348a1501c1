"""What the product promises of the models of props that it ships: sprites and meshes, checked as a caller gets them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from assetgen.local import LocalMaker, open_local
from assetgen.package import VerifiedPackage, verify_package
from assetgen.postprocess import mesh as meshes
from assetgen.store import bundled_models_folder
from assetgen.types import Artifact, Request


def folders(kind: str) -> list[Path]:
    manifests = sorted(bundled_models_folder().glob("*/manifest.json"))
    return [path.parent for path in manifests if json.loads(path.read_text("utf-8"))["kind"] == kind]


def named(kind: str) -> dict[str, Any]:
    return {"params": folders(kind), "ids": [path.name for path in folders(kind)]}


@pytest.fixture(scope="module", **named("sprite"))
def sprites(request: pytest.FixtureRequest) -> Iterator[tuple[VerifiedPackage, LocalMaker]]:
    package = verify_package(request.param, allow_hard_links=True)
    with open_local([request.param], "cpu") as maker:
        yield package, maker


@pytest.fixture(scope="module", **named("mesh"))
def props(request: pytest.FixtureRequest) -> Iterator[tuple[VerifiedPackage, LocalMaker]]:
    package = verify_package(request.param, allow_hard_links=True)
    with open_local([request.param], "cpu") as maker:
        yield package, maker


def made(maker: LocalMaker, package: VerifiedPackage, count: int = 1, seed: int = 5, **parameters: Any) -> list[bytes]:
    request = Request(package.manifest.id, seed=seed, count=count, parameters=parameters)
    return [event.data for event in maker.generate(request) if isinstance(event, Artifact)]


def pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGBA"))


def test_every_class_makes_sprites_that_differ_and_stand_in_their_picture(sprites):
    package, maker = sprites
    means = []
    for known in package.manifest.classes:
        shown = [pixels(data) for data in made(maker, package, count=6, **{"class": known.name})]
        cover = [float((picture[:, :, 3] > 0).mean()) for picture in shown]
        assert min(cover) > 0.02, known.name
        assert max(cover) < 0.95, known.name
        pairs = [np.abs(a.astype(int) - b.astype(int)).mean() for i, a in enumerate(shown) for b in shown[i + 1 :]]
        assert np.mean(pairs) > 4, known.name  # of 255
        means.append(np.mean(shown, axis=0))
    apart = [np.abs(a - b).mean() for i, a in enumerate(means) for b in means[i + 1 :]]
    assert min(apart) > 2


def test_a_palette_and_hard_edges_hold(sprites):
    package, maker = sprites
    name = package.manifest.classes[0].name
    for data in made(maker, package, count=4, palette=12, alpha="hard", **{"class": name}):
        picture = pixels(data)
        visible = picture[picture[:, :, 3] > 0]
        assert set(np.unique(picture[:, :, 3])) <= {0, 255}
        assert len(np.unique(visible[:, :3], axis=0)) <= 12


def test_a_sprite_does_not_hang_on_what_is_asked_for_beside_it(sprites):
    package, maker = sprites
    name = package.manifest.classes[-1].name
    alone = made(maker, package, seed=9, **{"class": name})
    assert made(maker, package, count=3, seed=9, **{"class": name})[0] == alone[0]


def test_sliders_do_what_they_say(sprites):
    package, maker = sprites
    names = {spec.name for spec in package.manifest.parameters}
    if "brightness" not in names:
        pytest.skip("it offers no such slider")
    brighter = 0
    for known in package.manifest.classes:
        dark, light = (
            np.mean([
                picture[picture[:, :, 3] > 128][:, :3].mean()
                for picture in map(pixels, made(maker, package, count=6, brightness=value, **{"class": known.name}))
            ])
            for value in (-1.0, 1.0)
        )  # fmt: skip
        brighter += light > dark
    assert brighter >= 0.8 * len(package.manifest.classes)


def test_every_class_makes_closed_meshes_within_their_budget_that_differ(props):
    package, maker = props
    for known in package.manifest.classes:
        extents = []
        for seed in (1, 2, 3):
            (data,) = made(maker, package, seed=seed, triangles=800, **{"class": known.name})
            mesh = trimesh.load(io.BytesIO(data), file_type="glb", force="mesh")
            assert len(mesh.faces) <= 800, known.name
            assert meshes.is_closed(np.asarray(mesh.vertices), np.asarray(mesh.faces)), known.name
            assert mesh.volume > 0, known.name
            assert max(mesh.extents) == pytest.approx(1.0, abs=1e-3)
            assert mesh.bounds[0][1] == pytest.approx(0.0, abs=1e-4), "it stands on the ground"
            extents.append(np.append(mesh.extents, mesh.volume))
        assert np.ptp(np.stack(extents), axis=0).max() > 1e-3, known.name


def test_the_same_prop_is_the_same_bytes(props):
    package, maker = props
    name = package.manifest.classes[0].name
    first = made(maker, package, seed=4, **{"class": name})
    assert made(maker, package, seed=4, **{"class": name}) == first
