"""Packages of style transfer: exported from a run, served, tiling, the same in windows as whole."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen import golden
from assetgen.datasets import tiles
from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.kinds import KINDS, style
from assetgen.kinds.windows import run_in_windows
from assetgen.local import open_local
from assetgen.models.cyclegan import CycleganGenerator
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.training import checkpoint
from assetgen.training import cli as training_cli
from assetgen.training.loop import Budget, train
from assetgen.training.recipe import recipe_from_values
from assetgen.training.style import generator_config
from assetgen.training.style_recipe import StyleRecipe
from assetgen.types import Artifact, Encoding, OutputSpec, Request
from export import cli
from export.image_card import _style_figures
from export.package_from_style import _way, image_sizes, read_figures
from tests.helpers.style_package import photo, saved
from tests.helpers.tiny_runs import write_data
from tests.helpers.tiny_styles import make_style_task

RAW = OutputSpec(encoding=Encoding.RAW)
# Run, and options of export.
PACKAGES = {
    "back": ("cyclegan", ["--direction", "back", "--palette", "16", "--pixel-size", "2"]),
    "stargan": ("stargan", []),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run folders by method, trained for two steps."""
    folder = tmp_path_factory.mktemp("styles")
    data = write_data(folder)
    for method, changes in (("cyclegan", {"norm": "batch"}), ("fastcut", {"norm": "instance"}), ("stargan", {})):
        task = make_style_task(method, data, total_kimg=0.004, **changes)
        task.facts = training_cli._facts(data, tiles.load(data), task.reals.classes)
        train(folder / method, task, Budget(tick_s=1e9, steps=2))
    return folder


@pytest.fixture(scope="module")
def packages(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    Image.fromarray(photo()).save(folder / "photo.png")
    (folder / "figures.json").write_text('{"swd_to_target": 1.25}')
    shared = ["--example", str(folder / "photo.png"), "--figures", str(folder / "figures.json"), "--name", "Tiny"]
    for name, (run, options) in PACKAGES.items():
        assert cli.main([str(runs / run), "-o", str(folder / name), *options, *shared]) == 0
    return folder


def painted(package, pixels, **parameters):
    with open_local([package], "cpu", 1) as maker:
        (model,) = maker.models()
        request = Request(model.id, 1, parameters={"image": saved(pixels), **parameters}, output=RAW)
        (made,) = [event for event in maker.generate(request) if isinstance(event, Artifact)]
    assert (made.role, made.width_px, made.height_px) == ("base_color", pixels.shape[1], pixels.shape[0])
    return np.frombuffer(made.data, np.uint8).reshape(pixels.shape)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_valid_and_says_where_it_comes_from(packages, name):
    package = verify_package(packages / name)
    manifest = package.manifest
    KINDS["style"].check(package)
    assert manifest.kind == "style"
    assert max(manifest.provenance["parity"].values()) <= 1e-4
    assert manifest.provenance["style"]["data"]["licenses"].keys() == {"CC0-1.0"}
    assert manifest.provenance["figures"]["swd_to_target"] == 1.25
    card = package.read("MODEL_CARD.md").decode()
    assert "| swd to target | 1.25 |" in card
    assert "CC0-1.0" in card
    with Image.open(packages / name / "preview.png") as preview:
        assert max(preview.size) <= 256
        cell = preview.height
        left = preview.convert("RGB").crop((0, 0, cell, cell)).resize((64, 64), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(left).astype(int) - photo()).mean() < 8  # the picture stands left of its results


@pytest.mark.parametrize("name", PACKAGES)
def test_a_tile_stays_a_tile(packages, name):
    manifest = verify_package(packages / name).manifest
    session = open_session(verify_package(packages / name), "cpu", threads=1)
    image = photo(64, 96).astype(np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    rest = {spec.name: np.eye(1, int(spec.shape[1]), dtype=np.float32) for spec in manifest.inputs[1:]}
    rolled = session.run({"image": np.roll(image, (8, 20), axis=(2, 3)), **rest})["base_color"]
    expected = np.roll(session.run({"image": image, **rest})["base_color"], (8, 20), axis=(2, 3))
    assert np.abs(rolled - expected).max() <= 1e-4
    assert expected.std() > 0.01


def test_the_graph_is_the_averaged_network(packages, runs):
    saved_run = checkpoint.load(runs / "cyclegan" / "checkpoint")
    made = painted(packages / "back", photo(), tiles="yes", palette=0, pixel_size=1)
    for prefix, same in (("", False), ("back_", True)):
        generator = CycleganGenerator(generator_config(recipe_from_values(StyleRecipe, saved_run.recipe))).eval()
        checkpoint.restore_module(generator, saved_run, f"{prefix}average")
        x = torch.from_numpy(photo().astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.no_grad():
            wanted = (generator(x)[0].permute(1, 2, 0) * 0.5 + 0.5).clamp(0, 1).numpy() * 255
        assert bool(np.abs(made - wanted).max() <= 0.51) is same


@pytest.mark.parametrize(
    ("direction", "expected"),
    [(None, ("brick", "metal", "")), ("there", ("brick", "metal", "")), ("back", ("metal", "brick", "back_"))],
)
def test_a_run_both_ways_has_two_directions(runs, direction, expected):
    saved_run = checkpoint.load(runs / "cyclegan" / "checkpoint")
    way = _way(recipe_from_values(StyleRecipe, saved_run.recipe), saved_run, direction)
    assert (*way.sources, *way.looks, way.prefix) == expected


def test_defaults_of_pixel_art_are_those_that_export_was_told(packages):
    specs = {spec.name: spec for spec in verify_package(packages / "back").manifest.parameters}
    assert (specs["palette"].default, specs["pixel_size"].default) == (16, 2)
    made = painted(packages / "back", photo(), tiles="yes")
    assert len(np.unique(made.reshape(-1, 3), axis=0)) <= 16
    assert (made[::2] == made[1::2]).all()


def test_several_looks_are_a_choice(packages):
    manifest = verify_package(packages / "stargan").manifest
    (spec,) = [spec for spec in manifest.parameters if spec.name == "class"]
    assert spec.values == ("brick", "metal")
    brick, metal = (painted(packages / "stargan", photo(), tiles="yes", **{"class": look}) for look in spec.values)
    assert (brick != metal).any()
    assert all(spec.name != "class" for spec in verify_package(packages / "back").manifest.parameters)


def test_windows_give_what_the_whole_gives(packages):
    package = verify_package(packages / "back")
    size = package.manifest.size
    assert (size.window_px, size.max_px) == (1024, 4096)
    session = open_session(package, "cpu", threads=1)
    request = Request(package.manifest.id, 1, parameters={"image": saved(photo(200, 456)), "tiles": "yes"})
    windowed = replace(package.manifest, size=replace(size, window_px=4 * size.halo_px + 24))
    inputs = style.prepare(package.manifest, style.resolve(package.manifest, request), 0)
    whole, parts = session.run(inputs), run_in_windows(session.run, windowed, inputs)
    assert np.abs(whole["base_color"] - parts["base_color"]).max() <= 1e-5


def test_what_looks_at_the_whole_picture_is_not_cut_into_windows(packages):
    size = verify_package(packages / "stargan").manifest.size
    assert (size.window_px, size.max_px) == (0, 2048)
    assert [image_sizes(4, 32, width).max_px for width in (16, 24, 64, 128)] == [2048, 1024, 1024, 512]


def test_golden_requests_are_met(packages):
    package = verify_package(packages / "stargan")
    session = open_session(package, "cpu", threads=1)
    results = golden.replay(session, package.manifest, golden.load(package))
    assert len(results) == 3
    assert all(result.bytes_compared and not result.failed for result in results)


def test_what_cannot_be_exported_is_refused(runs, tmp_path):
    output = ["-o", str(tmp_path / "package")]
    with pytest.raises(ConfigInvalid, match="--direction back: not for a run of fastcut"):
        cli.main([str(runs / "fastcut"), *output, "--direction", "back"])
    with pytest.raises(ConfigInvalid, match="--detail: not for a run of assetgen train style"):
        cli.main([str(runs / "fastcut"), *output, "--detail", str(runs)])
    with pytest.raises(ConfigInvalid, match=r"none\.png cannot be read"):
        cli.main([str(runs / "fastcut"), *output, "--example", str(tmp_path / "none.png")])
    for text in ("[1]", "{}", '{"a": "b"}', '{"a": true}', '{"ways": {"metal to brick": {"structure": 1}}}', "{"):
        (tmp_path / "figures.json").write_text(text)
        with pytest.raises(ConfigInvalid, match="--figures"):
            cli.main([str(runs / "fastcut"), *output, "--figures", str(tmp_path / "figures.json")])
    assert not (tmp_path / "package").exists()


def test_what_eval_has_measured_comes_into_the_card(tmp_path):
    sides = {"results": 10.5, "inputs": 30.0, "real": 9.0}
    ways = {"photo to retro": {"swd": sides, "structure": 0.75}, "retro to photo": {"structure": 0.5}}
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"run": "x", "seed": 1, "ways": ways, "judge_accuracy": {"photo": 0.875}, "notes": []}))
    found = read_figures(path, ["photo to retro"])
    assert found == {
        "photo to retro: swd: results": 10.5,
        "photo to retro: swd: inputs": 30.0,
        "photo to retro: swd: real": 9.0,
        "photo to retro: structure": 0.75,
        "told right by the judge: photo": 0.875,
    }
    told = _style_figures(found)
    lines = told.splitlines()
    head = (
        "| way | swd: results, inputs, real | gram: results, inputs, real | told: results, inputs, real | structure |"
    )
    assert lines[lines.index(head) + 2] == "| photo to retro | 10.5, 30, 9 | -, -, - | -, -, - | 0.75 |"
    assert "**structure**: correlation of slopes" in told
    assert "| told right by the judge: photo | 0.875 |  |" in lines


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"wrap": False, "border_px": 0}, ConfigInvalid, "would break tiles"),
        ({"width": 8}, CheckpointInvalid, "do not fit the recipe"),
    ],
)
def test_runs_that_make_no_package_are_refused(runs, tmp_path, change, error, message):
    state = json.loads((runs / "fastcut" / "checkpoint" / "state.json").read_text())
    state["recipe"] |= change
    folder = tmp_path / "run" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "tensors.safetensors").write_bytes((runs / "fastcut" / "checkpoint" / "tensors.safetensors").read_bytes())
    with pytest.raises(error, match=message):
        cli.main([str(tmp_path / "run"), "-o", str(tmp_path / "package")])
