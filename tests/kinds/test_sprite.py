"""What a request means to a sprite model."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from assetgen.errors import FieldInvalid, PackageInvalid
from assetgen.kinds import sprite
from assetgen.manifest import InputSpec, OutputMap, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage
from assetgen.postprocess import atlas
from assetgen.types import ColorSpace, Encoding, MapKind, NormalConvention, OutputSpec, PixelFormat, Request
from tests.helpers.tiny_sprites import EDGE_PX, PARAMETERS, sprite_manifest, write_sprites

MANIFEST = sprite_manifest()
SCALED = sprite_manifest(scaled=True)
NAN, INF = float("nan"), float("inf")


def request(parameters=None, **changes):
    return Request(**{"model_id": "items", "seed": 7, "parameters": parameters or {}} | changes)


def plan(parameters=None, manifest=MANIFEST, **changes):
    return sprite.resolve(manifest, request(parameters, **changes))


def picture():
    """A premultiplied picture: a box of 6 x 8 px at (3, 5) with a soft left edge, noise of a tanh around it."""
    values = np.full((1, 4, EDGE_PX, EDGE_PX), 0.002, np.float32)
    rng = np.random.default_rng(0)
    alpha = np.ones((8, 6), np.float32)
    alpha[:, 0] = 0.3
    values[0, :3, 5:13, 3:9] = rng.random((3, 8, 6), dtype=np.float32) * alpha
    values[0, 3, 5:13, 3:9] = alpha
    return {"sprite": values}


def files(parameters=None, outputs=None, index=0, **changes):
    return list(sprite.finish(MANIFEST, plan(parameters, **changes), index, outputs or picture()))


def pixels(artifact):
    with Image.open(io.BytesIO(artifact.data)) as opened:
        assert opened.mode == "RGBA"
        return np.asarray(opened)


BAD = [
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"count": 65}, "count"),
    ({"first_index": 2**32 - 1, "count": 2}, "first_index"),
    ({"width_px": 17}, "width_px"),
    ({"width_px": 32}, "width_px"),
    ({"height_px": 8}, "height_px"),
    ({"parameters": {"class": "cheese"}}, "parameters[class]"),
    ({"parameters": {"class": 1}}, "parameters[class]"),
    ({"parameters": {"class": ""}}, "parameters[class]"),
    ({"parameters": {"blend_class": "cheese"}}, "parameters[blend_class]"),
    ({"parameters": {"blend": 1.1}}, "parameters[blend]"),
    ({"parameters": {"truncation": 1.0001}}, "parameters[truncation]"),
    ({"parameters": {"truncation": -1e-9}}, "parameters[truncation]"),
    ({"parameters": {"truncation": NAN}}, "parameters[truncation]"),
    ({"parameters": {"truncation": INF}}, "parameters[truncation]"),
    ({"parameters": {"truncation": True}}, "parameters[truncation]"),
    ({"parameters": {"palette": -1}}, "parameters[palette]"),
    ({"parameters": {"palette": 1}}, "parameters[palette]"),
    ({"parameters": {"palette": 65}}, "parameters[palette]"),
    ({"parameters": {"palette": 8.0}}, "parameters[palette]"),
    ({"parameters": {"pixel_size": 0}}, "parameters[pixel_size]"),
    ({"parameters": {"pixel_size": 9}}, "parameters[pixel_size]"),
    ({"parameters": {"alpha": "wavy"}}, "parameters[alpha]"),
    ({"parameters": {"alpha_threshold": 2.0}}, "parameters[alpha_threshold]"),
    ({"parameters": {"trim": "yes"}}, "parameters[trim]"),
    ({"parameters": {"trim_margin": 17}}, "parameters[trim_margin]"),
    ({"parameters": {"pivot": "nose"}}, "parameters[pivot]"),
    ({"parameters": {"sidecar": "maybe"}}, "parameters[sidecar]"),
    ({"parameters": {"size": 1.5}}, "parameters[size]"),
    ({"parameters": {"relief": 1.0}}, "parameters[relief]"),
    ({"output": OutputSpec(profile="quake")}, "output.profile"),
    ({"output": OutputSpec(maps=(MapKind.BASE_COLOR,))}, "output.maps"),
    ({"output": OutputSpec(normal_convention=NormalConvention.Y_DOWN)}, "output.normal_convention"),
    ({"output": OutputSpec(name="../x")}, "output.name"),
    ({"output": OutputSpec(name="a" * 64), "count": 2}, "output.name"),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=[f"{field}-{number}" for number, (_, field) in enumerate(BAD)])
def test_bad_requests_name_the_field_and_what_is_allowed(changes, field):
    with pytest.raises(FieldInvalid) as caught:
        sprite.resolve(MANIFEST, Request(**{"model_id": "items", "seed": 7} | changes))
    assert caught.value.field == field
    assert field in caught.value.message


def test_an_unknown_class_is_answered_with_those_there_are():
    with pytest.raises(FieldInvalid, match="potion, sword, gem"):
        plan({"class": "cheese"})


@given(
    st.sampled_from(("potion", "sword", "gem")),
    st.sampled_from(("none", "potion", "sword", "gem")),
    st.floats(0, 1),
    st.floats(-1, 1, width=32),
)
def test_class_blend_and_slider_reach_the_graph(first, second, blend, size):
    made = plan({"class": first, "blend_class": second, "blend": blend, "size": size})
    inputs = sprite.prepare(MANIFEST, made, 0)
    assert inputs["class_weights"].shape == (1, 3)
    assert inputs["class_weights"].sum() == pytest.approx(1, abs=1e-6)
    assert inputs["size"] == np.float32(size)
    assert all(array.dtype == np.float32 for array in inputs.values())


@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.floats(0, 1))
def test_truncated_latents_lie_within_twice_the_truncation(seed, index, truncation):
    z = sprite.prepare(MANIFEST, plan({"truncation": truncation}, seed=seed), index)["z"]
    assert np.abs(z).max() <= np.float32(2 * truncation)


def test_less_truncation_changes_only_what_lies_beyond():
    wide, narrow = (sprite.prepare(MANIFEST, plan({"truncation": t}, seed=3), 5)["z"] for t in (1.0, 0.4))
    kept = np.abs(wide) <= np.float32(0.8)
    assert kept.any()
    assert not kept.all()
    assert (wide[kept] == narrow[kept]).all()
    assert (wide[~kept] != narrow[~kept]).all()


def test_truncated_latents_are_spread_as_a_cut_normal_is():
    drawn = [sprite.prepare(MANIFEST, plan({"truncation": 0.5}, seed=seed), 0)["z"] for seed in range(2000)]
    values = np.concatenate(drawn).ravel()
    # Of a normal cut at 1, the standard deviation is 0.5396 and 0.5608 of it lies within a half.
    assert values.std() == pytest.approx(0.5396, abs=0.01)
    assert (np.abs(values) < 0.5).mean() == pytest.approx(0.5609, abs=0.015)


def test_no_variety_is_the_same_prop_for_every_seed():
    first, second = (sprite.prepare(MANIFEST, plan({"truncation": 0.0}, seed=seed), 0)["z"] for seed in (1, 2))
    assert (first == second).all()
    assert not first.any()


def test_a_graph_that_scales_z_itself_gets_z_whole():
    inputs = [sprite.prepare(SCALED, plan({"truncation": t}, SCALED, seed=3), 5) for t in (0.25, 1.0)]
    assert (inputs[0]["z"] == inputs[1]["z"]).all()
    assert [float(given["truncation"].item()) for given in inputs] == [0.25, 1.0]


def test_asset_i_does_not_depend_on_the_count():
    one, many = plan(first_index=3, count=1), plan(first_index=0, count=9)
    for name, array in sprite.prepare(MANIFEST, one, 3).items():
        assert (array == sprite.prepare(MANIFEST, many, 3)[name]).all()


def test_the_file_is_straight_alpha_srgb_and_says_what_it_is():
    (made,) = files({"class": "gem"})
    assert (made.role, made.name, made.media_type) == ("sprite", "gem_7_0.png", "image/png")
    assert (made.pixel_format, made.color_space) == (PixelFormat.RGBA8, ColorSpace.SRGB)
    assert (made.width_px, made.height_px) == (EDGE_PX, EDGE_PX)
    assert made.sha256 == hashlib.sha256(made.data).hexdigest()
    assert b"trainedAlgorithmicMedia" in made.data
    found = pixels(made)
    box = found[5:13, 3:9]
    assert (box[:, 1:, 3] == 255).all()
    assert set(box[:, 0, 3]) == {75}  # 0.3, stretched by what 4/255 at both ends take away
    assert found[:, :, 3].sum() == box[:, :, 3].sum()
    wanted = picture()["sprite"][0, :3, 5:13, 3:9].transpose(1, 2, 0) / np.where(np.arange(6) == 0, 0.3, 1)[:, None]
    assert np.abs(box[:, :, :3] - wanted * 255).max() <= 0.51
    assert (found[:, 0, :3] == found[:, 3, :3])[5:13].all()  # bled


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("plain", "gem_7_2"),
        ("unreal", "T_gem_7_2"),
        ("unity-urp", "gem_7_2"),
        ("godot", "gem_7_2"),
        ("gltf", "gem_7_2"),
    ],
)
def test_names_are_those_that_engines_expect(profile, name):
    output = OutputSpec(profile=profile)
    made = files({"class": "gem", "sidecar": "on"}, index=2, output=output)
    assert [file.name for file in made] == [f"{name}.png", f"{name}.json"]
    raw = files({"class": "gem"}, output=replace(output, encoding=Encoding.RAW, name="ruby"))[0]
    assert raw.name == ("T_ruby.raw" if profile == "unreal" else "ruby.raw")


def test_raw_pixels_are_those_of_the_file():
    (coded,), (raw,) = files(), files(output=OutputSpec(encoding=Encoding.RAW))
    assert np.frombuffer(raw.data, np.uint8).reshape(EDGE_PX, EDGE_PX, 4).tolist() == pixels(coded).tolist()


def test_hard_alpha_and_palette_make_pixel_art():
    (made,) = files({"alpha": "hard", "palette": 4})
    found = pixels(made)
    assert set(np.unique(found[:, :, 3])) == {0, 255}
    assert (found[5:13, 3, 3] == 0).all()  # 0.3 is below the threshold
    assert len(np.unique(found.reshape(-1, 4)[found.reshape(-1, 4)[:, 3] > 0], axis=0)) <= 4
    assert len(np.unique(found[:, :, :3].reshape(-1, 3), axis=0)) <= 4  # what was bled too
    assert (pixels(*files({"alpha": "hard", "alpha_threshold": 0.25}))[5:13, 3, 3] == 255).all()


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 16), st.booleans())
def test_pixels_lie_on_the_grid_whatever_is_cut(factor, margin, trim):
    asked = {"trim": "on" if trim else "off", "trim_margin": margin, "palette": 5}
    small, large = (pixels(*files(asked | {"pixel_size": size})) for size in (1, factor))
    assert large.shape == (small.shape[0] * factor, small.shape[1] * factor, 4)
    assert (large == small.repeat(factor, axis=0).repeat(factor, axis=1)).all()


def test_trimming_cuts_to_what_is_visible_and_keeps_the_pivot():
    whole, described = files({"sidecar": "on", "pivot": "bottom", "pixel_size": 2})
    part, told = files({"sidecar": "on", "pivot": "bottom", "pixel_size": 2, "trim": "on", "trim_margin": 1})
    assert (part.width_px, part.height_px) == (16, 20)
    (before,), (after,) = (atlas.read_frames(json.loads(bytes(file.data))) for file in (described, told))
    assert before.pivot_px == after.pivot_px == pytest.approx((12.0, 26.0))  # the middle of 3 to 9, and 13; times 2
    assert (before.source_width_px, before.source_height_px) == (32, 32)
    assert (pixels(whole)[8:28, 4:20] == pixels(part)).all()
    entry = json.loads(bytes(told.data))["frames"]["potion_7_0.png"]
    assert entry["trimmed"] is True
    assert entry["spriteSourceSize"] == {"x": 4, "y": 8, "w": 16, "h": 20}
    assert entry["frame"] == {"x": 0, "y": 0, "w": 16, "h": 20}


def test_the_sidecar_is_no_picture_and_names_the_file():
    _, told = files({"sidecar": "on"})
    assert (told.role, told.name, told.media_type) == ("sidecar", "potion_7_0.json", "application/json")
    assert (told.pixel_format, told.color_space, told.width_px, told.height_px) == (None, None, 0, 0)
    described = json.loads(bytes(told.data))
    assert described["meta"]["image"] == "potion_7_0.png"
    assert described["meta"]["assetgen"] == {"model": "items", "version": "1.0.0", "seed": "7", "index": "0"}


def test_a_sprite_of_nothing_is_delivered_whole():
    empty = {"sprite": np.zeros((1, 4, EDGE_PX, EDGE_PX), np.float32)}
    asked = {"trim": "on", "palette": 4, "alpha": "hard", "sidecar": "on", "pivot": "bottom"}
    made, told = files(asked, outputs=empty)
    assert not pixels(made).any()
    assert (made.width_px, made.height_px) == (EDGE_PX, EDGE_PX)
    assert json.loads(bytes(told.data))["frames"][made.name]["pivot"] == {"x": 0.5, "y": 1.0}


@pytest.mark.parametrize("value", [NAN, INF, -0.1, 1.1])
def test_outputs_that_no_sound_graph_makes_are_an_error(value):
    outputs = picture()
    outputs["sprite"][0, 1, 2, 3] = value
    with pytest.raises(ValueError, match="sprite"):
        files(outputs=outputs)
    with pytest.raises(ValueError, match="sprite"):
        files(outputs={"sprite": outputs["sprite"][:, :3]})


def parameter(name, **changes):
    return replace(next(spec for spec in PARAMETERS if spec.name == name), **changes)


HOSTILE = {
    "another output": {"outputs": (OutputMap("sprite", "base_color", 4),)},
    "too few channels": {"outputs": (OutputMap("sprite", "sprite", 3),)},
    "two outputs": {"outputs": (OutputMap("sprite", "sprite", 4), OutputMap("more", "height", 1))},
    "a grid": {"inputs": (*MANIFEST.inputs, InputSpec("grid", "grid", ("n", 2, "h", "w"), stride_px=EDGE_PX))},
    "a class that is none": {"parameters": (parameter("class", values=("potion", "cheese")),)},
    "a pivot that is none": {"parameters": (parameter("pivot", values=("center", "nose")),)},
    "a class that is a number": {"parameters": (ParameterSpec("class", "", "", "int", default=0),)},
    "an unknown parameter": {"parameters": (ParameterSpec("glow", "", "", "float", maximum=1.0, default=0.0),)},
    "a slider without input": {"parameters": (ParameterSpec("warmth", "", "", "float", maximum=1.0, default=0.0),)},
    "a slider in another's place": {"inputs": (*MANIFEST.inputs, InputSpec("palette", "slider", ("n", 1)))},
    "truncation beyond 1": {"parameters": (parameter("truncation", maximum=5.0),)},
    "truncation below 0": {"parameters": (parameter("truncation", minimum=-1.0),)},
    "too many colours": {"parameters": (parameter("palette", maximum=10_000),)},
    "squares without end": {"parameters": (parameter("pixel_size", maximum=10**6),)},
    "squares of a large picture": {"size": SizeSpec(1024, 1024, 1024, 1024)},
    "a margin without end": {"parameters": (parameter("trim_margin", maximum=10**6),)},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_that_asks_for_what_cannot_be_is_refused(changes, tmp_path):
    hostile = replace(MANIFEST, **changes)
    with pytest.raises(PackageInvalid):
        sprite.check(VerifiedPackage(tmp_path, hostile, "00" * 32))


def test_the_package_of_the_tests_is_accepted(tmp_path):
    sprite.check(write_sprites(tmp_path))
    sprite.check(write_sprites(tmp_path, "scaled", scaled=True))
    assert sprite.made_maps(MANIFEST) == ()
