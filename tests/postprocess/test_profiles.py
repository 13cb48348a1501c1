"""Engine profiles: every channel of every file read back from the written PNG, conventions, names, bad input."""

import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.errors import FieldInvalid
from assetgen.postprocess import pbr, profiles
from assetgen.postprocess.encode import encode
from assetgen.postprocess.finishing import Terms, finished
from assetgen.types import ColorSpace, Encoding, MapKind, Material, NormalConvention, OutputSpec, PixelFormat

PACKING = ["unreal", "unity-urp", "unity-hdrp", "godot", "gltf"]
SEPARATE = ["plain", "blender"]

# 8-bit codes of the constant material, all different, so that no channel can stand in for another.
CODES = {"roughness": 51, "metallic": 102, "ambient_occlusion": 217, "smoothness": 204, "one": 255, "zero": 0}
COLOR_CODE = (10, 128, 250)
HEIGHT_CODE = 12345

# What the engines' manuals ask for, written down independently of the table under test.
EXPECTED_FILES = {
    "plain": {
        "X_base_color.png": COLOR_CODE,
        "X_normal.png": "up",
        "X_roughness.png": "roughness",
        "X_metallic.png": "metallic",
        "X_ambient_occlusion.png": "ambient_occlusion",
        "X_height.png": "height",
    },
    "unreal": {
        "T_X_D.png": COLOR_CODE,
        "T_X_N.png": "down",
        "T_X_ORM.png": ("ambient_occlusion", "roughness", "metallic"),
        "T_X_H.png": "height",
    },
    "unity-urp": {
        "X_BaseMap.png": COLOR_CODE,
        "X_Normal.png": "up",
        "X_MaskMap.png": ("metallic", "ambient_occlusion", "one", "smoothness"),
        "X_Height.png": "height",
    },
    "unity-hdrp": {
        "X_BaseMap.png": COLOR_CODE,
        "X_Normal.png": "up",
        "X_MaskMap.png": ("metallic", "ambient_occlusion", "one", "smoothness"),
        "X_Height.png": "height",
    },
    "godot": {
        "X_albedo.png": COLOR_CODE,
        "X_normal.png": "up",
        "X_orm.png": ("ambient_occlusion", "roughness", "metallic"),
        "X_height.png": "height",
    },
    "blender": {
        "X_Base_Color.png": COLOR_CODE,
        "X_Normal.png": "up",
        "X_Roughness.png": "roughness",
        "X_Metallic.png": "metallic",
        "X_AO.png": "ambient_occlusion",
        "X_Height.png": "height",
    },
    "gltf": {
        "X_baseColor.png": COLOR_CODE,
        "X_normal.png": "up",
        "X_occlusionRoughnessMetallic.png": ("ambient_occlusion", "roughness", "metallic"),
        "X_height.png": "height",
    },
}
NORMAL = (0.48, 0.64, 0.6)  # of length 1
NORMAL_CODES = {"up": [189, 209, 204], "down": [189, 46, 204]}


def constant_material(edge_px: int = 4) -> Material:
    def plane(*values: float) -> np.ndarray:
        return np.full((edge_px, edge_px, len(values)), values, dtype=np.float32)

    return Material(
        {
            MapKind.BASE_COLOR: plane(*(code / 255 for code in COLOR_CODE)),
            MapKind.NORMAL: plane(*NORMAL),
            MapKind.ROUGHNESS: plane(CODES["roughness"] / 255),
            MapKind.METALLIC: plane(CODES["metallic"] / 255),
            MapKind.AMBIENT_OCCLUSION: plane(CODES["ambient_occlusion"] / 255),
            MapKind.HEIGHT: plane(HEIGHT_CODE / 65535),
        }
    )


def noise_material(rows: int, columns: int, seed: int) -> Material:
    random = np.random.default_rng(seed)
    maps = {kind: random.random((rows, columns, 1), dtype=np.float32) for kind in MapKind}
    maps[MapKind.BASE_COLOR] = random.random((rows, columns, 3), dtype=np.float32)
    del maps[MapKind.NORMAL], maps[MapKind.AMBIENT_OCCLUSION]
    return finished(maps, Terms(2.0))


def pack(material: Material, profile: str, **options) -> list[profiles.PackedTexture]:
    output = OutputSpec(profile=profile, **{"name": "X", **options})
    return list(profiles.pack(material, profiles.find_profile(profile), output))


def read_back(texture: profiles.PackedTexture) -> np.ndarray:
    data = encode(texture.pixels, texture.pixel_format, Encoding.PNG, color_space=texture.color_space)
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_expectations_name_every_profile():
    assert list(EXPECTED_FILES) == list(profiles.PROFILES)
    assert {profile.id: profile.packs for profile in profiles.PROFILES.values()} == {
        name: name in PACKING for name in EXPECTED_FILES
    }


@pytest.mark.parametrize("profile", EXPECTED_FILES)
def test_every_channel_of_every_written_file_holds_what_the_engine_reads(profile):
    textures = pack(constant_material(), profile)
    assert [texture.name for texture in textures] == list(EXPECTED_FILES[profile])
    for texture in textures:
        expected, pixel = EXPECTED_FILES[profile][texture.name], read_back(texture)[2, 1]
        if expected in NORMAL_CODES:
            assert pixel.tolist() == NORMAL_CODES[expected]
        elif expected == "height":
            assert pixel == HEIGHT_CODE
        elif isinstance(expected, str):
            assert pixel == CODES[expected]
        else:
            codes = [CODES.get(source, source) for source in expected]
            assert pixel.tolist() == codes
        assert texture.color_space is (ColorSpace.SRGB if expected == COLOR_CODE else ColorSpace.LINEAR)


@pytest.mark.parametrize("profile", EXPECTED_FILES)
@pytest.mark.parametrize("asked", [None, *NormalConvention])
def test_the_top_of_a_bump_is_green_bright_where_y_is_up(profile, asked):
    axis = (np.arange(32) + 0.5) / 16 - 1
    hill = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) * 8).astype(np.float32)[:, :, None]
    maps = dict(constant_material(32).maps)
    maps[MapKind.HEIGHT] = hill
    maps[MapKind.NORMAL] = pbr.normal_from_height(hill, 8.0)
    normal = next(t for t in pack(Material(maps), profile, normal_convention=asked) if t.role == "normal")
    green = read_back(normal)[:, :, 1]
    own = NormalConvention.Y_DOWN if profile == "unreal" else NormalConvention.Y_UP
    top, bottom = green[10, 16], green[21, 16]
    assert (top > 150 and bottom < 106) if (asked or own) is NormalConvention.Y_UP else (top < 106 and bottom > 150)
    assert read_back(normal)[16, 10, 0] < 106  # red is the same everywhere: left looks left


def test_a_flat_normal_is_the_usual_blue():
    flat = np.broadcast_to(np.float32([0, 0, 1]), (2, 2, 3)).copy()
    for convention in NormalConvention:
        maps = {**constant_material(2).maps, MapKind.NORMAL: flat}
        normal = pack(Material(maps), "plain", maps=(MapKind.NORMAL,), normal_convention=convention)[0]
        assert normal.pixels.reshape(-1, 3).tolist() == [[128, 128, 255]] * 4


def written_normals(height, relief_px, convention):
    """The pixels of the normal map's PNG, ``[H, W, 3]`` of whole numbers."""
    material = Material({MapKind.NORMAL: pbr.normal_from_height(height, relief_px)})
    (normal,) = pack(material, "plain", maps=(MapKind.NORMAL,), normal_convention=convention)
    return read_back(normal).astype(np.int64)


HEIGHTS = st.builds(
    lambda rows, columns, seed, steps: np.random.default_rng(seed).integers(0, steps, (rows, columns, 1)) / (steps - 1),
    *(st.integers(1, 16), st.integers(1, 16), st.integers(0, 2**32 - 1), st.sampled_from([2, 3, 256, 65536])),
).map(lambda values: values.astype(np.float32))
RELIEFS_PX = st.one_of(st.floats(0.0, 64.0, width=32), st.sampled_from([0.0, 1.0, 4096.0]))


@given(HEIGHTS, RELIEFS_PX, st.sampled_from(NormalConvention))
def test_written_normals_are_of_length_one_within_the_steps_of_8_bits(height, relief_px, convention):
    codes = written_normals(height, relief_px, convention)
    lengths = np.linalg.norm(codes / 127.5 - 1, axis=2)  # as engines read them
    assert np.abs(lengths - 1).max() <= 1 / 127
    assert codes[:, :, 2].min() >= 128  # none looks into the surface


@given(HEIGHTS, RELIEFS_PX)
def test_flipping_y_is_undone_by_flipping_it_again(height, relief_px):
    """A surface upside down, in the other convention, has the same green from bottom to top."""
    up, down = NormalConvention.Y_UP, NormalConvention.Y_DOWN
    straight = written_normals(height, relief_px, up)
    assert np.array_equal(written_normals(height[::-1], relief_px, down)[::-1], straight)
    assert np.array_equal(written_normals(height[::-1][::-1], relief_px, up), straight)
    flipped = written_normals(height, relief_px, down)
    assert np.array_equal(flipped[:, :, [0, 2]], straight[:, :, [0, 2]])
    # Codes of y and -y add up to 255, or to 256 where y is 0, whose code is 128 in both.
    assert set(np.unique(flipped[:, :, 1] + straight[:, :, 1])) <= {255, 256}


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99), st.tuples(st.integers(-9, 9), st.integers(-9, 9)))
def test_packed_maps_follow_rolls_bit_for_bit(rows, columns, seed, shift):
    material = noise_material(rows, columns, seed)
    moved = Material({kind: np.roll(values, shift, (0, 1)) for kind, values in material.maps.items()})
    for profile in profiles.PROFILES:
        for texture, other in zip(pack(material, profile), pack(moved, profile), strict=True):
            assert np.array_equal(np.roll(texture.pixels, shift, (0, 1)), other.pixels)


def test_every_8_bit_and_16_bit_code_survives():
    ramp = (np.arange(65536, dtype=np.float32) / 65535).reshape(256, 256, 1)
    coarse = (np.arange(65536, dtype=np.float32) % 256 / 255).reshape(256, 256, 1)
    maps = {MapKind.HEIGHT: ramp, MapKind.ROUGHNESS: coarse}
    roughness, height = pack(Material(maps), "plain")
    assert np.array_equal(height.pixels.ravel(), np.arange(65536))
    assert height.pixels.dtype == np.uint16
    assert height.pixel_format is PixelFormat.R16
    assert np.array_equal(roughness.pixels.ravel(), np.arange(65536) % 256)


def test_values_are_rounded_to_the_nearest_code():
    values = np.float32([0.49, 0.51, 1.49, 254.49, 254.51, 255]).reshape(1, -1, 1) / np.float32(255)
    (metallic,) = pack(Material({MapKind.METALLIC: values}), "plain")
    assert metallic.pixels.ravel().tolist() == [0, 1, 1, 254, 255, 255]


@pytest.mark.parametrize("profile", SEPARATE)
def test_maps_can_be_chosen_where_none_are_packed(profile):
    wanted = (MapKind.HEIGHT, MapKind.BASE_COLOR)
    assert [texture.role for texture in pack(constant_material(), profile, maps=wanted)] == ["base_color", "height"]


@pytest.mark.parametrize("profile", PACKING)
def test_maps_cannot_be_chosen_where_they_are_packed(profile):
    with pytest.raises(FieldInvalid, match=r"packs maps") as error:
        pack(constant_material(), profile, maps=(MapKind.HEIGHT,))
    assert error.value.field == "output.maps"
    assert "plain, blender" in error.value.hint


def test_a_material_of_fewer_maps_gets_them_in_plain_and_a_reason_elsewhere():
    material = Material({MapKind.BASE_COLOR: constant_material().maps[MapKind.BASE_COLOR]})
    assert [texture.role for texture in pack(material, "plain")] == ["base_color"]
    with pytest.raises(FieldInvalid, match=r"normal, roughness, metallic, ambient_occlusion, height"):
        pack(material, "unreal")
    with pytest.raises(FieldInvalid, match=r"height is not made by this model; allowed are base_color"):
        pack(material, "plain", maps=(MapKind.HEIGHT,))


def test_a_map_is_asked_for_once():
    with pytest.raises(FieldInvalid, match="given twice"):
        pack(constant_material(), "plain", maps=(MapKind.HEIGHT, MapKind.HEIGHT))


def test_an_unknown_profile_is_told_the_allowed_ones():
    with pytest.raises(FieldInvalid, match="'unity'") as error:
        profiles.find_profile("unity")
    assert error.value.metadata == {"given": "unity", "allowed": ",".join(EXPECTED_FILES)}
    assert all(profile in error.value.message for profile in EXPECTED_FILES)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "ä", "../x", "a/b", "a\\b", "a.b", "x" * 65, "x\n", "CON", "con", "Nul", "COM1", "lpt9", "aux", "{0}"],
)
def test_bad_names_are_refused_before_any_file(name):
    with pytest.raises(FieldInvalid, match=r"output\.name") as error:
        profiles.pack(constant_material(), profiles.PROFILES["plain"], OutputSpec(name=name))
    assert error.value.field == "output.name"


@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True).filter(lambda name: len(name) > 4))
def test_file_names_are_plain_and_begin_no_path(name):
    for profile in profiles.PROFILES:
        for texture in pack(constant_material(1), profile, name=name):
            assert re.fullmatch(r"[A-Za-z0-9_-]+\.png", texture.name)
            assert name in texture.name


def test_raw_pixels_are_not_named_png():
    names = [texture.name for texture in pack(constant_material(), "unreal", encoding=Encoding.RAW)]
    assert names == ["T_X_D.raw", "T_X_N.raw", "T_X_ORM.raw", "T_X_H.raw"]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MapKind.ROUGHNESS, np.full((4, 4, 1), np.nan, np.float32)),
        (MapKind.ROUGHNESS, np.full((4, 4, 1), 1.01, np.float32)),
        (MapKind.HEIGHT, np.full((4, 4, 1), -0.01, np.float32)),
        (MapKind.NORMAL, np.full((4, 4, 3), 1.5, np.float32)),
        (MapKind.BASE_COLOR, np.zeros((4, 4, 1), np.float32)),
        (MapKind.METALLIC, np.zeros((4, 4), np.float32)),
        (MapKind.METALLIC, np.zeros((4, 8, 1), np.float32)),
    ],
)
def test_maps_out_of_contract_are_refused_before_any_file(kind, values):
    material = Material({**constant_material().maps, kind: values})
    with pytest.raises(ValueError, match=rf"{kind}|material"):
        profiles.pack(material, profiles.PROFILES["plain"], OutputSpec(name="X"))


def test_profile_and_output_must_agree():
    with pytest.raises(ValueError, match="unreal"):
        profiles.pack(constant_material(), profiles.PROFILES["plain"], OutputSpec(name="X", profile="unreal"))


def test_of_a_profile_that_packs_only_what_can_be_made_is_given_if_that_is_wanted():
    with pytest.raises(FieldInvalid, match="needs maps"):
        profiles.select_textures(OutputSpec(profile="unreal"), (MapKind.BASE_COLOR,))
    for profile_id in profiles.PROFILES:
        (only,) = profiles.select_textures(OutputSpec(profile=profile_id), (MapKind.BASE_COLOR,), partial=True)
        assert only.role == "base_color"
    without_height = tuple(kind for kind in MapKind if kind is not MapKind.HEIGHT)
    chosen = profiles.select_textures(OutputSpec(profile="unreal"), without_height, partial=True)
    assert [texture.role for texture in chosen] == ["base_color", "normal", "orm"]
    with pytest.raises(FieldInvalid, match="packs maps"):
        profiles.select_textures(
            OutputSpec(profile="unreal", maps=(MapKind.BASE_COLOR,)), (MapKind.BASE_COLOR,), partial=True
        )


@pytest.mark.parametrize("profile", ["plain", "unreal", "unity-hdrp"])
def test_maps_that_come_later_make_the_same_files_and_only_when_their_turn_is(profile):
    whole = noise_material(8, 8, seed=5).maps
    late = (MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION)
    made = []

    def later(kind):
        def make():
            made.append(kind)
            return whole[kind]

        return make

    at_hand = Material({kind: values for kind, values in whole.items() if kind not in late})
    output = OutputSpec(profile=profile, name="X")
    files = profiles.pack(at_hand, profiles.find_profile(profile), output, later={kind: later(kind) for kind in late})
    first = next(files)
    assert first.role == "base_color"
    assert not made
    rest = list(files)
    assert sorted(made) == sorted(late)
    for packed, expected in zip([first, *rest], pack(Material(whole), profile), strict=True):
        assert np.array_equal(packed.pixels, expected.pixels)
        assert packed.name == expected.name


@pytest.mark.parametrize(
    "values", [np.full((4, 4, 3), np.nan, np.float32), np.zeros((4, 4, 1), np.float32), np.zeros((4, 8, 3), np.float32)]
)
def test_a_map_that_comes_later_and_is_none_is_refused_when_it_comes(values):
    at_hand = Material({MapKind.BASE_COLOR: constant_material().maps[MapKind.BASE_COLOR]})
    later = {MapKind.NORMAL: lambda: values}
    files = profiles.pack(at_hand, profiles.PROFILES["plain"], OutputSpec(name="X"), later=later)
    assert next(files).role == "base_color"
    with pytest.raises(ValueError, match=r"normal|maps of sizes"):
        next(files)


def test_a_material_of_no_maps_is_refused():
    with pytest.raises(ValueError, match="no maps"):
        profiles.pack(Material({}), profiles.PROFILES["plain"], OutputSpec(name="X"))
