"""Recipes: every mistake in one is named."""

import dataclasses
import json

import pytest

from assetgen.errors import ConfigInvalid
from assetgen.training import cli
from assetgen.training.recipe import (
    DetailRecipe,
    PictureRecipe,
    TextureRecipe,
    layouts_from_toml,
    recipe_from_toml,
    recipe_from_values,
)
from assetgen.training.style_recipe import StyleRecipe
from assetgen.training.volume_recipe import VolumeRecipe

KINDS = [TextureRecipe, PictureRecipe, DetailRecipe]


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_survives_json(kind):
    recipe = kind(classes=("brick",), total_kimg=3.5)
    assert recipe_from_values(kind, json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_overrides_win(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('batch = 8\nclasses = ["a", "b"]\nwidths = [16, 8]\nlearning_rate = 1\n')
    recipe = recipe_from_toml(TextureRecipe, path, {"batch": 12})
    assert (recipe.batch, recipe.classes, recipe.widths) == (12, ("a", "b"), (16, 8))
    assert type(recipe.learning_rate) is float


@pytest.mark.parametrize("path", sorted(cli.RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_valid(path):
    if path.stem in cli.STYLES:
        method = "stargan" if path.stem == "states" else path.stem
        domains = {} if method == "stargan" else {"source": "a", "target": "b"}
        assert recipe_from_toml(StyleRecipe, path, domains).method == method
        return
    if path.stem.endswith("-served"):
        known = recipe_from_toml(TextureRecipe, cli.RECIPES / "starter.toml").classes
        assert layouts_from_toml(path).keys() <= set(known)
        return
    if path.stem.startswith("mesh"):
        assert recipe_from_toml(VolumeRecipe, path).classes is not None
        return
    pictures = path.stem in cli.FAMILIES + cli.SPRITES
    detail = "detail" in path.stem or path.stem in cli.DETAILS
    kind = DetailRecipe if detail else PictureRecipe if pictures else TextureRecipe
    assert recipe_from_toml(kind, path).classes is not None


def test_starter_recipes_belong_together():
    texture = recipe_from_toml(TextureRecipe, cli.RECIPES / "starter.toml")
    detail = recipe_from_toml(DetailRecipe, cli.RECIPES / "starter-detail.toml")
    assert texture.classes == detail.classes
    assert texture.scan_px == detail.scan_px


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "wasserstein"}, "gradient_penalty: 0.0 is not allowed; use .* above 0 with loss wasserstein"),
        ({"loss": "hings"}, "loss: hings is not allowed; use one of ns_logistic, .*hinge"),
        ({"r2_gamma": -1}, "r2_gamma: -1.0 is not allowed"),
        ({"gradient_penalty": -10}, "gradient_penalty: -10.0 is not allowed"),
        ({"layouts": {"brick": {"shares": [1, 0]}}}, "layouts.brick.*shares.* a list of 5"),
        ({"layouts": {"brick": {"pitches": [1, 2]}}}, "layouts.brick.*pitches: unknown key"),
        ({"layouts": {"brick": {"pitch": [8, 4]}}}, "layouts.brick.*pitch: got .* two rising numbers"),
        ({"layouts": ["brick"]}, "layouts: got .* an object"),
    ],
)
def test_what_contradicts_or_cannot_be_is_named(values, message):
    with pytest.raises(ConfigInvalid, match=message):
        recipe_from_values(TextureRecipe, values)


def test_a_file_of_layouts_holds_nothing_else(tmp_path):
    path = tmp_path / "l.toml"
    path.write_text("batch = 8\n[layouts]\nbrick = { pitch = [4, 8] }\n")
    with pytest.raises(ConfigInvalid, match=r"holds batch, layouts; one table \[layouts\] is allowed"):
        layouts_from_toml(path)
    path.write_text("[layouts]\nbrick = { pitch = [4, 8] }\n")
    assert layouts_from_toml(path)["brick"].pitch == (4.0, 8.0)


def test_an_unknown_key_is_named_with_the_closest():
    with pytest.raises(ConfigInvalid, match="recipe key 'learning_rat' is not known") as caught:
        recipe_from_values(TextureRecipe, {"learning_rat": 0.1})
    assert caught.value.hint == "did you mean 'learning_rate'?"
    with pytest.raises(ConfigInvalid) as caught:
        recipe_from_values(TextureRecipe, {"zzz": 0.1})
    assert caught.value.hint == "see --dry-run"


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("batch", "8", "int"),
        ("batch", 8.0, "int"),
        ("batch", True, "int"),
        ("learning_rate", "fast", "float"),
        ("learning_rate", True, "float"),
        ("classes", "brick", "list of str"),
        ("classes", ["brick", 3], "list of str"),
        ("widths", [8, 8.5], "list of int"),
        ("widths", 8, "list of int"),
        ("precision", 16, "str"),
    ],
)
def test_wrong_types_are_named(key, value, kind):
    with pytest.raises(ConfigInvalid, match=f"{key}: .* is not a {kind}"):
        recipe_from_values(TextureRecipe, {key: value})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TextureRecipe, {"crop_px": 63}),
        (TextureRecipe, {"crop_px": 0}),
        (TextureRecipe, {"widths": []}),
        (TextureRecipe, {"widths": [8, 0]}),
        (TextureRecipe, {"discriminator_widths": []}),
        (TextureRecipe, {"latent": 0}),
        (TextureRecipe, {"grid_layers": 0}),
        (TextureRecipe, {"grid_noise_channels": -1}),
        (TextureRecipe, {"augment_kimg": 0.0}),
        (TextureRecipe, {"augment_max": 1.5}),
        (DetailRecipe, {"widths": [8, 8]}),
        (DetailRecipe, {"score_px": 200}),
        (DetailRecipe, {"score_px": 40}),
        (DetailRecipe, {"blocks": -1}),
        (DetailRecipe, {"adversarial_from": 2.0}),
        *((kind, values) for kind in KINDS for values in (
            {"seed": -1}, {"seed": 2**32}, {"batch": 6}, {"batch": 0}, {"batch": -4}, {"precision": "fp8"},
            {"total_kimg": 0.0}, {"total_kimg": float("nan")}, {"learning_rate": -1.0}, {"r1_interval": 0},
            {"scan_px": 0}, {"trim_px": -1},
        )),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_with_what_is_allowed(kind, values):
    with pytest.raises(ConfigInvalid, match=f"{next(iter(values))}: .* is not allowed; use .+"):
        recipe_from_values(kind, values)


@pytest.mark.parametrize("content", [b"batch = ", b"batch = 8\nbatch = 8", b"\xff\xfe", b"[", b'classes = ["\xe9"]'])
def test_what_is_not_toml_is_said_so(tmp_path, content):
    (tmp_path / "r.toml").write_bytes(content)
    with pytest.raises(ConfigInvalid, match="is not TOML"):
        recipe_from_toml(TextureRecipe, tmp_path / "r.toml")


def test_a_recipe_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "nothing.toml", tmp_path):
        with pytest.raises(ConfigInvalid, match="cannot be read"):
            recipe_from_toml(TextureRecipe, path)
