"""Mixing and sliders of the shipped packages: each does what its name says, and nothing where it is neutral."""

import numpy as np
import pytest
import torch

from assetgen.errors import FieldInvalid
from assetgen.kinds import texture
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.store import bundled_models_folder, package_folders
from assetgen.types import Encoding, OutputSpec, Request
from export.properties import PROPERTIES, lab, measure

MADE = [verify_package(folder, allow_hard_links=True) for folder in package_folders(bundled_models_folder())]
PACKAGES = [package for package in MADE if package.manifest.kind == "texture"]
EDGE_PX = 128
STOPS = (-1.0, -0.5, 0.0, 0.5, 1.0)


@pytest.fixture(scope="module", params=PACKAGES, ids=[package.manifest.id for package in PACKAGES])
def package(request):
    return request.param


@pytest.fixture(scope="module")
def session(package):
    session = open_session(package, "cpu", threads=1)
    yield session
    session.close()


def sliders(package):
    return [spec.name for spec in package.manifest.inputs if spec.role == "slider"]


def named(package):
    return [name for name in sliders(package) if name in PROPERTIES]


def variations(package):
    return [name for name in sliders(package) if name not in PROPERTIES]


def inputs(package, label=0, seed=1, **parameters):
    manifest = package.manifest
    asked = {"class": manifest.classes[label].name} | parameters
    request = Request(manifest.id, seed=seed, width_px=EDGE_PX, height_px=EDGE_PX, parameters=asked)
    return texture.prepare(manifest, texture.resolve(manifest, request), 0)


def color(package, session, *args, **parameters):
    return session.run(inputs(package, *args, **parameters))["base_color"]


def test_most_properties_have_a_slider(package):
    assert len(named(package)) >= 4
    assert all(name.startswith("variation_") for name in variations(package))


def test_every_slider_moves_its_property_all_the_way(package, session):
    """On average over some classes and seeds every half step rises; from end to end in all of them but one at most.

    A grey stone has no saturation to raise.
    """
    for name in named(package):
        series = []
        for label, seed in ((1, 1), (5, 2), (8, 3), (11, 4)):
            pictures = [color(package, session, label, seed, **{name: stop}) for stop in STOPS]
            texels = torch.nn.functional.avg_pool2d(torch.from_numpy(np.concatenate(pictures)) * 2 - 1, 4)
            series.append(measure(texels)[:, list(PROPERTIES).index(name)].numpy())
        assert (np.diff(np.mean(series, axis=0)) > 0).all(), (name, series)
        assert sum(values[4] > values[0] for values in series) >= 3, (name, series)


def test_every_variation_changes_more_the_further_it_is_moved(package, session):
    """At full more than halfway, both ways, and more between the ends than from the middle; so that it can be seen."""
    for name in variations(package):
        moves = []
        for label, seed in enumerate(range(1, 1 + len(package.manifest.classes))):
            pictures = [color(package, session, label, seed, **{name: stop}) for stop in STOPS]
            texels = torch.nn.functional.avg_pool2d(torch.from_numpy(np.concatenate(pictures)) * 2 - 1, 4)
            moves.append(lab(texels) - lab(texels[2:3]))
        changes = torch.stack([move.norm(dim=1).mean(dim=(1, 2)) for move in moves])
        assert (changes[:, 0] > changes[:, 1]).all(), (name, changes)
        assert (changes[:, 4] > changes[:, 3]).all(), (name, changes)
        assert float(changes[:, [0, 4]].mean()) > 2, (name, changes)
        between = torch.stack([(move[4] - move[0]).norm(dim=0).mean() for move in moves])
        assert float(between.mean()) > 1.2 * float(changes[:, [0, 4]].mean()), (name, between, changes)


def test_neutral_sliders_and_mixing_with_oneself_change_no_byte(package, session):
    plain = color(package, session, 2, 5)
    assert np.array_equal(plain, color(package, session, 2, 5, **dict.fromkeys(sliders(package), 0.0)))
    assert np.array_equal(plain, color(package, session, 2, 5, mix_seed=5, mix=1.0))
    assert np.array_equal(plain, color(package, session, 2, 5, mix_seed=9, mix=0.0))


def test_mixing_leads_from_one_seed_to_the_other(package, session):
    first, other = color(package, session, 1, 3), color(package, session, 1, 9, variation_seed=3)
    far = np.abs(first - other).mean()
    halfway = color(package, session, 1, 3, mix_seed=9, mix=0.5)
    whole = color(package, session, 1, 3, mix_seed=9, mix=1.0)
    assert np.abs(whole - other).max() <= 1e-4
    assert max(np.abs(halfway - first).mean(), np.abs(halfway - other).mean()) < far
    parts = [color(package, session, 1, 3, mix_seed=9, mix=1.0, mix_part=part) for part in ("coarse", "fine")]
    assert np.abs(parts[0] - parts[1]).mean() > 0.01


def look(package):
    return {"mix_seed": 9, "mix": 0.6, "mix_part": "coarse", **dict.fromkeys(sliders(package), 0.7)}


def test_what_is_mixed_and_moved_still_tiles(package, session):
    stride_px = package.manifest.size.stride_px
    strides = {spec.name: spec.stride_px for spec in package.manifest.inputs if spec.stride_px}
    given = inputs(package, 1, **look(package))
    rolled = {
        name: np.roll(array, (stride_px // strides[name], 2 * stride_px // strides[name]), axis=(2, 3))
        if name in strides
        else array
        for name, array in given.items()
    }
    before, after = session.run(given), session.run(rolled)
    for name, values in before.items():
        assert np.abs(np.roll(values, (stride_px, 2 * stride_px), axis=(2, 3)) - after[name]).max() <= 1e-5


def test_the_same_request_gives_the_same_bytes(package, session):
    parameters = {"class": package.manifest.classes[3].name} | look(package)
    output = OutputSpec(encoding=Encoding.RAW)
    request = Request(package.manifest.id, seed=4, width_px=64, height_px=64, parameters=parameters, output=output)
    hashes = []
    for _ in range(2):
        plan = texture.resolve(package.manifest, request)
        made = session.run(texture.prepare(package.manifest, plan, 0))
        hashes.append([file.sha256 for file in texture.finish(package.manifest, plan, 0, made)])
    assert hashes[0] == hashes[1]


def test_sliders_keep_their_range(package):
    for name in sliders(package):
        for value in (-1.01, 1.01):
            with pytest.raises(FieldInvalid, match="use a number from -1 to 1"):
                inputs(package, **{name: value})


def test_the_figures_of_every_slider_are_kept(package):
    figures = {entry["name"]: entry for entry in package.manifest.provenance["sliders"]}
    assert list(figures) == list(PROPERTIES)
    assert [name for name, entry in figures.items() if entry["offered"]] == named(package)
    found = package.manifest.provenance["variations"]
    assert [entry["name"] for entry in found if entry["offered"]] == variations(package)
