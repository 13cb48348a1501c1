"""What a request means to a texture model."""

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.errors import AssetgenError, FieldInvalid, PackageInvalid
from assetgen.kinds import texture
from assetgen.manifest import PARTS, InputSpec, ParameterSpec
from assetgen.types import Encoding, MapKind, NormalConvention, OutputSpec, Request
from tests.helpers.serving import PARAMETERS, write_model
from tests.helpers.tiny_package import GRID_CHANNELS, tiny_manifest

MANIFEST = replace(tiny_manifest(), parameters=PARAMETERS)
LOOK_INPUTS = (
    InputSpec("z_2", "second_latent", ("n", 8)),
    InputSpec("mix", "mix", ("n", len(PARTS))),
    InputSpec("warmth", "slider", ("n", 1)),
)
LOOK_PARAMETERS = (
    ParameterSpec("mix_seed", "Second", "-1: none.", "int", minimum=-1, maximum=2**32 - 1, default=-1),
    ParameterSpec("mix", "Mix", "How much.", "float", minimum=0.0, maximum=1.0, default=0.5),
    ParameterSpec("mix_part", "What", "Layers.", "choice", default="all", values=("all", *PARTS)),
    ParameterSpec("warmth", "Warmth", "Blue or yellow.", "float", minimum=-1.0, maximum=1.0, default=0.0),
)
LOOK = replace(MANIFEST, inputs=(*MANIFEST.inputs, *LOOK_INPUTS), parameters=(*PARAMETERS, *LOOK_PARAMETERS))
NAN, INF = float("nan"), float("inf")


def request(**changes):
    return Request(**{"model_id": "tiny", "seed": 7} | changes)


def outputs(width_px=64, height_px=32):
    rng = np.random.default_rng(0)
    return {
        spec.name: rng.random((1, spec.channels, height_px, width_px), dtype=np.float32) for spec in MANIFEST.outputs
    }


BAD = [
    ({"seed": -1}, "seed"),
    ({"seed": 2**32}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seed": True}, "seed"),
    ({"count": -1}, "count"),
    ({"count": 65}, "count"),
    ({"count": 2**32 - 1}, "count"),
    ({"first_index": -1}, "first_index"),
    ({"first_index": 2**32}, "first_index"),
    ({"first_index": 2**32 - 1, "count": 2}, "first_index"),
    ({"width_px": 1}, "width_px"),
    ({"width_px": 31}, "width_px"),
    ({"width_px": -32}, "width_px"),
    ({"width_px": 72}, "width_px"),
    ({"height_px": 1040}, "height_px"),
    ({"height_px": 3000}, "height_px"),
    ({"height_px": 2**32 - 1}, "height_px"),
    ({"parameters": {"colour": 1.0}}, "parameters[colour]"),
    ({"parameters": {"truncation": NAN}}, "parameters[truncation]"),
    ({"parameters": {"truncation": INF}}, "parameters[truncation]"),
    ({"parameters": {"truncation": -INF}}, "parameters[truncation]"),
    ({"parameters": {"truncation": 1.0001}}, "parameters[truncation]"),
    ({"parameters": {"truncation": -1e-9}}, "parameters[truncation]"),
    ({"parameters": {"truncation": "0.5"}}, "parameters[truncation]"),
    ({"parameters": {"truncation": True}}, "parameters[truncation]"),
    ({"parameters": {"class": "cheese"}}, "parameters[class]"),
    ({"parameters": {"class": 1}}, "parameters[class]"),
    ({"parameters": {"class": b"clay"}}, "parameters[class]"),
    ({"parameters": {"pattern": "knitted"}}, "parameters[pattern]"),
    ({"parameters": {"pattern_scale": 0}}, "parameters[pattern_scale]"),
    ({"parameters": {"variation_seed": 1.0}}, "parameters[variation_seed]"),
    ({"parameters": {"variation_seed": -2}}, "parameters[variation_seed]"),
    ({"output": OutputSpec(profile="quake")}, "output.profile"),
    ({"output": OutputSpec(maps=(MapKind.NORMAL,), profile="unreal")}, "output.maps"),
    ({"output": OutputSpec(maps=(MapKind.NORMAL, MapKind.NORMAL))}, "output.maps"),
    ({"output": OutputSpec(name="../evil")}, "output.name"),
    ({"output": OutputSpec(name="x" * 65)}, "output.name"),
    ({"output": OutputSpec(name="con")}, "output.name"),
    ({"output": OutputSpec(name="x" * 64), "count": 2}, "output.name"),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_bad_requests_name_the_field(changes, field):
    with pytest.raises(FieldInvalid) as caught:
        texture.resolve(MANIFEST, request(**changes))
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


def test_the_message_says_what_is_allowed():
    with pytest.raises(FieldInvalid, match=r"width_px: 3000 .* multiples of 16 from 32 to 1024"):
        texture.resolve(MANIFEST, request(width_px=3000))
    with pytest.raises(FieldInvalid, match="use a number from 0 to 1"):
        texture.resolve(MANIFEST, request(parameters={"truncation": 2}))
    with pytest.raises(FieldInvalid, match="use one of clay, steel"):
        texture.resolve(MANIFEST, request(parameters={"class": "cheese"}))


@given(
    st.builds(
        Request,
        model_id=st.just("tiny"),
        seed=st.integers(),
        count=st.integers(),
        first_index=st.integers(),
        width_px=st.integers() | st.sampled_from([0, 64]),
        height_px=st.integers() | st.sampled_from([0, 64]),
        parameters=st.dictionaries(
            st.sampled_from([spec.name for spec in PARAMETERS]) | st.text(),
            st.floats() | st.integers() | st.text() | st.binary() | st.booleans(),
        ),
        output=st.builds(
            OutputSpec,
            maps=st.lists(st.sampled_from(MapKind)).map(tuple),
            profile=st.sampled_from(["plain", "unreal", ""]) | st.text(),
            name=st.text(),
        ),
    )
)
def test_any_request_resolves_or_is_refused(asked):
    try:
        plan = texture.resolve(MANIFEST, asked)
    except AssetgenError as error:
        refused = error
    else:
        assert 1 <= plan.count <= 64
        assert sum(plan.class_weights) == pytest.approx(1)
        return
    assert refused.status == "INVALID_ARGUMENT"
    assert refused.field


def test_zero_means_the_default_and_integers_pass_as_floats():
    plan = texture.resolve(MANIFEST, request(parameters={"truncation": 1, "relief": np.float32(2)}))
    assert (plan.count, plan.width_px, plan.height_px) == (1, 64, 64)
    assert plan.truncation == 1.0
    assert plan.relief_px == 16.0


@pytest.mark.parametrize(("first_index", "count"), [(2**32 - 1, 1), (2**32 - 1, 0), (2**32 - 64, 64)])
def test_the_last_index_is_legal(first_index, count):
    plan = texture.resolve(MANIFEST, request(first_index=first_index, count=count, width_px=1024, height_px=32))
    assert (plan.first_index, plan.count, plan.width_px, plan.height_px) == (first_index, count or 1, 1024, 32)
    last = texture.prepare(MANIFEST, plan, 2**32 - 1)
    assert not np.array_equal(last["z"], texture.prepare(MANIFEST, plan, 2**32 - 2)["z"])


def test_blending_moves_the_weights():
    blend = {"class": "clay", "blend_class": "steel", "blend": 0.25}
    plan = texture.resolve(MANIFEST, request(parameters=blend))
    assert plan.class_weights == (0.75, 0.25)
    assert plan.relief_px == 0.75 * 8 + 0.25 * 4
    assert plan.metal
    assert texture.resolve(MANIFEST, request(parameters={"blend": 0.5})).class_weights == (1.0, 0.0)
    same = texture.resolve(MANIFEST, request(parameters={"blend_class": "clay", "blend": 0.5}))
    assert same.class_weights == (1.0, 0.0)


def test_inputs_have_the_shapes_of_the_manifest():
    inputs = texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(width_px=96, height_px=32)), 3)
    assert {name: value.shape for name, value in inputs.items()} == {
        "z": (1, 8),
        "class_weights": (1, 2),
        "truncation": (1, 1),
        "grid": (1, GRID_CHANNELS, 2, 6),
        "layout_0": (1, 8, 2, 6),
        "layout_1": (1, 8, 4, 12),
        "noise_0": (1, 1, 4, 12),
    }
    assert all(value.dtype == np.float32 for value in inputs.values())


def test_the_order_in_which_inputs_are_drawn_is_pinned():
    """Seeds that users keep must go on meaning the same; a change here is a change of every asset."""
    inputs = texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(seed=7)), 2)
    parts = (inputs["z"], np.ascontiguousarray(inputs["layout_1"][:, 4]), inputs["grid"], inputs["noise_0"])
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    assert digest[:16] == "e1036c29dac02630"


def test_variation_keeps_the_style_and_changes_the_layout():
    def inputs(**parameters):
        return texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(parameters=parameters)), 0)

    own, other, same = inputs(), inputs(variation_seed=8), inputs(variation_seed=7)
    assert np.array_equal(own["z"], other["z"])
    assert not np.array_equal(own["grid"], other["grid"])
    assert not np.array_equal(own["noise_0"], other["noise_0"])
    assert not np.array_equal(own["layout_1"], other["layout_1"])
    assert all(np.array_equal(own[name], same[name]) for name in own)
    elsewhere = texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(seed=8)), 0)
    assert np.array_equal(other["grid"], elsewhere["grid"])


def test_the_layout_follows_class_pattern_and_scale():
    """The joints of stacked rows of clay (2 to 4 texels a row) are counted at two scales."""

    def rows(**parameters):
        asked = request(width_px=1024, height_px=1024, parameters={"pattern": "stacked"} | parameters)
        layout = texture.prepare(MANIFEST, texture.resolve(MANIFEST, asked), 0)["layout_1"][0]
        falls = np.diff(layout[3], axis=0) < -0.3  # the place in the cell begins again
        return np.median(falls.sum(axis=0)), np.median((np.diff(layout[2], axis=1) < -0.3).sum(axis=1))

    assert min(rows()) >= 128 / 4 / 3 - 1
    assert max(rows(pattern_scale=4)) < min(rows()) / 2
    plain, cells = (
        texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(parameters={"pattern": name})), 0)
        for name in ("stacked", "cells")
    )
    assert not np.array_equal(plain["layout_1"], cells["layout_1"])
    assert np.array_equal(plain["z"], cells["z"])
    half = np.mean([cells["layout_1"][..., i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)
    assert np.allclose(cells["layout_0"], half, atol=1e-6)


def test_a_blend_is_laid_as_the_class_that_weighs_most():
    for blend, name in ((0.25, "clay"), (0.75, "steel")):
        plan = texture.resolve(MANIFEST, request(parameters={"class": "clay", "blend_class": "steel", "blend": blend}))
        assert plan.layout == next(known.layout for known in MANIFEST.classes if known.name == name)


def finished(**changes):
    plan = texture.resolve(MANIFEST, request(width_px=64, height_px=32, **changes))
    return {file.role: file for file in texture.finish(MANIFEST, plan, 0, outputs())}


def pixels(file):
    with Image.open(io.BytesIO(file.data)) as picture:
        return np.asarray(picture)


def test_files_hold_what_the_graph_made():
    made = finished()
    assert set(made) == {kind.value for kind in MapKind}
    for file in made.values():
        assert file.sha256 == hashlib.sha256(file.data).hexdigest()
        assert (file.width_px, file.height_px, file.media_type) == (64, 32, "image/png")
    expected = (outputs()["base_color"][0].transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(pixels(made["base_color"]), expected)
    assert pixels(made["height"]).dtype == np.uint16


def test_metal_only_where_the_class_has_it():
    assert pixels(finished()["metallic"]).max() == 0
    assert pixels(finished(parameters={"class": "steel"})["metallic"]).max() > 0


def test_what_a_seed_stands_for_is_drawn_once_while_sliders_move_and_cannot_be_changed():
    def inputs(**changes):
        return texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(**{"seed": 11} | changes)), 0)

    first, moved = inputs(), inputs(parameters={"truncation": 0.1})
    drawn = [spec.name for spec in MANIFEST.inputs if spec.role in ("grid", "noise", "layout")]
    assert all(moved[name] is first[name] for name in drawn)
    with pytest.raises(ValueError, match="read-only"):
        first["grid"][:] = 0
    for change in ({"seed": 12}, {"width_px": 128}, {"parameters": {"variation_seed": 3}}):
        other = inputs(**change)
        assert not any(np.array_equal(other[name], first[name]) for name in drawn)
    texture._draw.cache_clear()
    again = inputs()
    assert all(np.array_equal(again[name], first[name]) for name in first)
    large = {"width_px": MANIFEST.size.max_px, "height_px": MANIFEST.size.max_px}
    assert inputs(**large)["grid"] is not inputs(**large)["grid"], "large ones would fill memory"


def test_roughness_shift_is_clipped():
    assert pixels(finished(parameters={"roughness_shift": 1})["roughness"]).min() == 255
    assert pixels(finished(parameters={"roughness_shift": -1})["roughness"]).max() == 0


def test_relief_of_zero_is_flat():
    made = finished(parameters={"relief": 0})
    assert np.array_equal(np.unique(pixels(made["normal"]).reshape(-1, 3), axis=0), [[128, 128, 255]])
    assert pixels(made["ambient_occlusion"]).min() == 255


def test_convention_turns_green():
    up = pixels(finished()["normal"]).astype(int)
    down = pixels(finished(output=OutputSpec(normal_convention=NormalConvention.Y_DOWN))["normal"]).astype(int)
    assert np.array_equal(up[..., [0, 2]], down[..., [0, 2]])
    assert np.abs(up[..., 1] + down[..., 1] - 256).max() <= 1


def test_a_single_raw_map_is_the_same_as_within_the_whole_material():
    alone = finished(output=OutputSpec(maps=(MapKind.NORMAL,), encoding=Encoding.RAW))
    whole = finished(output=OutputSpec(encoding=Encoding.RAW))
    assert list(alone) == ["normal"]
    assert alone["normal"].data == whole["normal"].data
    assert alone["normal"].name.endswith(".raw")


def test_names_depend_on_the_index_only():
    plan = texture.resolve(MANIFEST, request(count=3, width_px=64, height_px=32, output=OutputSpec(name="rock")))
    names = [next(texture.finish(MANIFEST, plan, index, outputs())).name for index in (0, 1)]
    assert names == ["rock_base_color.png", "rock_1_base_color.png"]
    plan = texture.resolve(MANIFEST, request(width_px=64, height_px=32))
    assert next(texture.finish(MANIFEST, plan, 5, outputs())).name == "clay_7_5_base_color.png"


@pytest.mark.parametrize("bad", [NAN, 1.5, -0.5])
def test_outputs_out_of_range_are_no_asset(bad):
    values = outputs()
    values["base_color"][0, 0, 0, 0] = bad
    plan = texture.resolve(MANIFEST, request(width_px=64, height_px=32))
    with pytest.raises(ValueError, match="base_color"):
        list(texture.finish(MANIFEST, plan, 0, values))


def test_a_parameter_that_would_not_act_is_refused(tmp_path):
    package = write_model(tmp_path)
    texture.check(package)
    glow = ParameterSpec("glow", "Glow", "Shine.", "float", maximum=1.0, default=0.0)
    with pytest.raises(PackageInvalid, match="'glow'"):
        texture.check(replace(package, manifest=replace(package.manifest, parameters=(glow,))))
    knitted = ParameterSpec("pattern", "Pattern", "Cells.", "choice", default="auto", values=("auto", "knitted"))
    with pytest.raises(PackageInvalid, match="'knitted', not one of plain"):
        texture.check(replace(package, manifest=replace(package.manifest, parameters=(knitted,))))
    wrong = replace(PARAMETERS[0], values=("clay", "cheese"))
    with pytest.raises(PackageInvalid, match="cheese"):
        texture.check(replace(package, manifest=replace(package.manifest, parameters=(wrong,))))


def look_inputs(**parameters):
    return texture.prepare(LOOK, texture.resolve(LOOK, request(parameters=parameters)), 2)


def test_a_model_without_mixing_and_sliders_has_no_such_parameters():
    for name in ("mix_seed", "mix", "mix_part", "warmth"):
        with pytest.raises(FieldInvalid, match="has no such parameter"):
            texture.resolve(MANIFEST, request(parameters={name: 0}))
    assert not {"z_2", "mix", "warmth"} & texture.prepare(MANIFEST, texture.resolve(MANIFEST, request()), 0).keys()


def test_nothing_is_mixed_unless_a_second_seed_is_given():
    for inputs in (look_inputs(), look_inputs(mix=1.0, mix_part="fine"), look_inputs(mix_seed=8, mix=0.0)):
        assert not inputs["mix"].any()
        assert np.array_equal(inputs["z_2"], inputs["z"])
        assert not inputs["warmth"].any()


def test_mixing_and_sliders_leave_the_other_inputs_as_they_are():
    plain = texture.prepare(MANIFEST, texture.resolve(MANIFEST, request()), 2)
    mixed = look_inputs(mix_seed=8, mix=0.25, warmth=-0.5)
    assert all(np.array_equal(plain[name], mixed[name]) for name in plain)
    assert {name: mixed[name].dtype for name in ("z_2", "mix", "warmth")} == dict.fromkeys(
        ("z_2", "mix", "warmth"), np.float32
    )
    assert mixed["warmth"].tolist() == [[-0.5]]


def test_the_second_style_is_that_of_the_second_seed():
    other = texture.prepare(MANIFEST, texture.resolve(MANIFEST, request(seed=8)), 2)
    assert np.array_equal(look_inputs(mix_seed=8)["z_2"], other["z"])
    assert np.array_equal(look_inputs(mix_seed=7)["z_2"], look_inputs()["z"])


@pytest.mark.parametrize(("part", "mix"), [("all", [0.25, 0.25]), ("coarse", [0.25, 0.0]), ("fine", [0.0, 0.25])])
def test_a_part_of_the_style_is_mixed(part, mix):
    assert look_inputs(mix_seed=8, mix=0.25, mix_part=part)["mix"].tolist() == [mix]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("warmth", value) for value in (1.01, -1.01, NAN, "1")],
        *[("mix", value) for value in (1.1, -0.1)],
        *[("mix_seed", value) for value in (-2, 2**32, 0.5)],
        *[("mix_part", value) for value in ("middle", 1)],
    ],
)
def test_mixing_and_sliders_keep_their_ranges(name, value):
    with pytest.raises(FieldInvalid) as caught:
        texture.resolve(LOOK, request(parameters={name: value}))
    assert caught.value.field == f"parameters[{name}]"


def test_mixing_and_sliders_must_act(tmp_path):
    package = write_model(tmp_path)
    texture.check(replace(package, manifest=LOOK))
    for spec in LOOK_PARAMETERS:
        with pytest.raises(PackageInvalid, match=f"'{spec.name}' .* is not one that this texture model takes"):
            texture.check(replace(package, manifest=replace(MANIFEST, parameters=(*PARAMETERS, spec))))
    wrong = replace(LOOK_PARAMETERS[2], values=("all", "middle"))
    with pytest.raises(PackageInvalid, match="'middle', not one of coarse, fine"):
        texture.check(replace(package, manifest=replace(LOOK, parameters=(*PARAMETERS, wrong))))
    taken = (*LOOK.inputs[:-1], InputSpec("relief", "slider", ("n", 1)))
    with pytest.raises(PackageInvalid, match="slider input 'relief' has the name of another parameter"):
        texture.check(replace(package, manifest=replace(MANIFEST, inputs=taken)))


def test_layouts_at_resolutions_that_do_not_double_are_refused(tmp_path):
    package = write_model(tmp_path)
    inputs = tuple(replace(spec, stride_px=4) if spec.name == "layout_1" else spec for spec in package.manifest.inputs)
    with pytest.raises(PackageInvalid, match=r"layout inputs at \[4, 16\] px a cell"):
        texture.check(replace(package, manifest=replace(package.manifest, inputs=inputs)))
