"""Maps of a photo: a package from a detail network, and from the checkpoint that ships."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assetgen.errors import ConfigInvalid
from assetgen.kinds import style
from assetgen.kinds.windows import run_in_windows
from assetgen.local import open_local
from assetgen.models.detail import DetailConfig, DetailNetwork
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.training import checkpoint
from assetgen.training.recipe import DetailRecipe, recipe_from_values
from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, Request
from export import cli
from export.image_graph import example_pictures
from export.package_from_photo import _network
from export.photo_graph import PhotoGraph
from tests.helpers.style_package import photo, saved

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints" / "starter-detail"


@pytest.fixture(scope="module")
def package(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "photo"
    assert cli.main([str(runs[1]), "-o", str(folder)]) == 0
    return folder


def test_a_photo_becomes_a_material_that_keeps_its_colours(package):
    pixels = photo(48, 64)
    with open_local([package], "cpu", 1) as maker:
        request = Request(
            "photo", 1, parameters={"image": saved(pixels), "tiles": "yes"}, output=OutputSpec(encoding=Encoding.RAW)
        )
        made = {event.role: event for event in maker.generate(request) if isinstance(event, Artifact)}
        engine = Request(
            "photo", 1, parameters={"image": saved(pixels)}, output=OutputSpec(profile="unreal", name="wall")
        )
        names = [event.name for event in maker.generate(engine) if isinstance(event, Artifact)]
    assert set(made) == set(MapKind)
    assert np.array_equal(np.frombuffer(made["base_color"].data, np.uint8).reshape(pixels.shape), pixels)
    assert np.frombuffer(made["height"].data, np.uint16).std() > 0
    assert names == ["T_wall_D.png", "T_wall_N.png", "T_wall_ORM.png", "T_wall_H.png"]


def test_a_package_says_where_it_comes_from(package):
    manifest = verify_package(package).manifest
    assert max(manifest.provenance["parity"].values()) <= 1e-4
    assert manifest.provenance["validation"]["items"] > 0
    assert [known.metal for known in manifest.classes] == [False, True]
    assert "kept out of training" in (package / "MODEL_CARD.md").read_text("utf-8")


def test_windows_give_what_the_whole_gives(package):
    verified = verify_package(package)
    manifest = verified.manifest
    size = manifest.size
    session = open_session(verified, "cpu", threads=1)
    request = Request("photo", 1, parameters={"image": saved(photo(160, 320)), "tiles": "yes"})
    inputs = style.prepare(manifest, style.resolve(manifest, request), 0)
    windowed = replace(manifest, size=replace(size, window_px=4 * size.halo_px))
    whole, parts = session.run(inputs), run_in_windows(session.run, windowed, inputs)
    for name, values in whole.items():
        assert np.abs(values - parts[name]).max() <= 1e-5


def network():
    torch.manual_seed(0)
    return DetailNetwork(DetailConfig(2, (8, 8, 8), 1), (False, True), (False, False))


def test_height_starts_from_the_brightness_of_the_photo_itself():
    graph = PhotoGraph(network())
    image, weights = example_pictures(1, 32, 32, classes=2)
    other = image.clone()
    # The same means over 4 x 4 pixels, so the same small picture.
    other[:, :, 8, 8] += 0.1
    other[:, :, 9, 9] -= 0.1
    with torch.no_grad():
        first, second = graph(image, weights), graph(other, weights)
    assert (first[0][0, 0, 8, 8] - second[0][0, 0, 8, 8]).abs() > 1e-3
    assert torch.allclose(first[1], second[1], atol=1e-6)


def test_no_pixel_sees_further_than_the_halo():
    graph = PhotoGraph(network())
    halo, edge = graph.halo_px, 4 * graph.halo_px
    weights = torch.tensor([[0.5, 0.5]])
    image = torch.rand(1, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    reached = 0
    for place in range(2 * halo, 2 * halo + 4):
        other = image.clone()
        other[:, :, place, place] = 1 - other[:, :, place, place]
        with torch.no_grad():
            pairs = zip(graph(image, weights), graph(other, weights), strict=True)
            changed = torch.cat([(a != b).any(dim=1)[0].nonzero() for a, b in pairs])
        reached = max(reached, int((changed - place).abs().max()))
    assert halo - 12 <= reached <= halo


def test_the_checkpoint_that_ships_fits():
    saved_run = checkpoint.load(SHIPPED / "checkpoint")
    classes = tuple(saved_run.facts["classes"])
    graph = PhotoGraph(_network(saved_run, recipe_from_values(DetailRecipe, saved_run.recipe), classes))
    made = graph(*example_pictures(1, 32, 32, classes=len(classes)))
    assert [tuple(values.shape) for values in made] == [(1, 1, 32, 32)] * 3


def test_options_of_other_runs_are_refused(runs, tmp_path):
    with pytest.raises(ConfigInvalid, match="--direction: not for a run of assetgen train detail"):
        cli.main([str(runs[1]), "-o", str(tmp_path / "package"), "--direction", "back"])
