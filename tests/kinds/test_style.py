"""What a request means to a model that takes a picture."""

import contextlib
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.errors import FieldInvalid, ImageInvalid, PackageInvalid
from assetgen.kinds import example_inputs, style
from assetgen.kinds.windows import count_windows, run_in_windows
from assetgen.manifest import InputSpec, OutputMap, ParameterSpec
from assetgen.package import VerifiedPackage
from assetgen.runtime import open_session
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package

MANIFEST = style_manifest()
RAW = OutputSpec(encoding=Encoding.RAW)
NAN = float("nan")


def request(pixels=None, /, output=RAW, width_px=0, height_px=0, **parameters):
    image = saved(photo() if pixels is None else pixels)
    return Request(
        "style", 7, width_px=width_px, height_px=height_px, parameters={"image": image} | parameters, output=output
    )


def painted(asked, manifest=MANIFEST, network=lambda image: 1 - image):
    """Pixels by role, of a graph that is ``network``."""
    plan = style.resolve(manifest, asked)
    inputs = style.prepare(manifest, plan, 0)
    made = network(inputs["image"])
    outputs = {spec.name: made if spec.channels == 3 else made[:, :1] for spec in manifest.outputs}
    return {file.role: pixels_of(file) for file in style.finish(manifest, plan, 0, outputs)}


def pixels_of(file):
    dtype = np.dtype("<u2") if file.pixel_format == "r16" else np.dtype("u1")
    return np.frombuffer(file.data, dtype).reshape(file.height_px, file.width_px, -1)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A session and its manifest, of a real graph."""
    package = write_style_package(tmp_path_factory.mktemp("models"), MANIFEST)
    return open_session(package, "cpu", threads=1), package.manifest


def made_by(served, asked, manifest=None):
    session, own = served
    manifest = manifest or own
    plan = style.resolve(manifest, asked)
    outputs = run_in_windows(session.run, manifest, style.prepare(manifest, plan, 0))
    return {file.role: pixels_of(file) for file in style.finish(manifest, plan, 0, outputs)}


BAD = [
    ({"seed": -1}, "seed"),
    ({"count": 2}, "count"),
    ({"width_px": 30}, "width_px"),
    ({"width_px": 8}, "width_px"),
    ({"height_px": 300}, "height_px"),
    ({"height_px": 2**32}, "height_px"),
    ({"strength": -0.001}, "parameters[strength]"),
    ({"strength": 1.001}, "parameters[strength]"),
    ({"strength": NAN}, "parameters[strength]"),
    ({"strength": "1"}, "parameters[strength]"),
    ({"class": "cubist"}, "parameters[class]"),
    ({"tiles": "maybe"}, "parameters[tiles]"),
    ({"palette": 1}, "parameters[palette]"),
    ({"palette": 257}, "parameters[palette]"),
    ({"pixel_size": 0}, "parameters[pixel_size]"),
    ({"pixel_size": 5}, "parameters[pixel_size]"),
    ({"image": "photo.png"}, "parameters[image]"),
    ({"image": 3}, "parameters[image]"),
    ({"mood": 1.0}, "parameters[mood]"),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=range(len(BAD)))
def test_bad_fields_are_named(changes, field):
    fields = {name: changes[name] for name in changes if name in ("seed", "count", "width_px", "height_px")}
    parameters = {name: value for name, value in changes.items() if name not in fields}
    asked = replace(request(**parameters), **fields)
    with pytest.raises(FieldInvalid) as caught:
        style.resolve(MANIFEST, asked)
    assert caught.value.field == field
    assert caught.value.message.startswith(field)


def test_a_request_without_a_picture_says_what_is_missing():
    with pytest.raises(FieldInvalid, match=r"parameters\[image\]: model 'style' needs it; use an encoded picture"):
        style.resolve(MANIFEST, Request("style", 7))


def test_a_second_asset_would_be_the_first_again():
    with pytest.raises(FieldInvalid, match="one result of a picture"):
        style.resolve(MANIFEST, replace(request(), count=3))
    assert style.resolve(MANIFEST, replace(request(), first_index=5)).first_index == 5


def frames(file_format):
    file = io.BytesIO()
    pictures = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    pictures[0].save(file, file_format, save_all=True, append_images=pictures[1:])
    return file.getvalue()


DEEP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16


def deep_rgb():
    """A 16-bit RGB PNG, which Pillow can read but not write."""
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in DEEP)

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (64).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


HIDDEN = np.dstack([photo(), np.zeros((64, 64), np.uint8)])
REFUSED = [
    (b"", "none of PNG, JPEG, WEBP"),
    (b"\x89PNG\r\n\x1a\n and then a lie", "bytes that"),
    (saved(photo(), "BMP"), "none of PNG, JPEG, WEBP"),
    (saved(photo(), "GIF"), "none of PNG, JPEG, WEBP"),
    (saved(photo())[:-200], "cannot be decoded"),
    (saved(photo(), "JPEG")[:300], "cannot be decoded"),
    (frames("PNG"), "2 frames"),
    (frames("WEBP"), "2 frames"),
    (saved(np.dstack([photo(), photo()[:, :, 0]]).astype(np.uint8)[:, :, :4], "PNG")[:40], "bytes that"),
    (saved(photo(12)), "12 x 12 px is too small; each edge needs 16 px"),
    (saved(photo(260)), "260 x 260 px is too large; at most 256 px"),
    (deep_rgb(), "16 bits a channel"),
    (saved(DEEP), "16 bits a channel"),
    (saved(HIDDEN), "every pixel is transparent"),
]


@pytest.mark.parametrize(("image", "message"), REFUSED, ids=range(len(REFUSED)))
def test_pictures_that_cannot_be_used_are_refused_by_name(image, message):
    with pytest.raises(ImageInvalid, match=message) as caught:
        painted(request(image=image))
    assert caught.value.field == "parameters[image]"
    assert caught.value.message.startswith("parameters[image]: ")
    assert caught.value.hint


def test_cmyk_is_refused():
    file = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(file, "JPEG")
    with pytest.raises(ImageInvalid, match="CMYK"):
        painted(request(image=file.getvalue()))


@given(st.binary(max_size=100), st.integers(0, 10**6))
def test_damaged_pictures_raise_our_error_or_none(junk, place):
    data = bytearray(saved(photo(16)))
    place %= len(data)
    data[place : place + len(junk)] = junk
    with contextlib.suppress(ImageInvalid, FieldInvalid):
        painted(request(image=bytes(data)))


@pytest.mark.parametrize("pixels", [photo(), photo(32, 128), np.dstack([photo(), photo(seed=1)[:, :, 0]])])
def test_strength_0_gives_the_picture_back_byte_for_byte(pixels):
    made = painted(request(pixels, strength=0.0))["base_color"]
    if pixels.shape[2] == 4:
        seen = pixels[:, :, 3] > 0
        assert np.array_equal(made[seen], pixels[seen])
        assert np.array_equal(made[:, :, 3], pixels[:, :, 3])
    else:
        assert np.array_equal(made, pixels)


def test_strength_moves_from_the_picture_to_the_result():
    made = [painted(request(strength=share))["base_color"].astype(int) for share in (0.0, 0.25, 1.0)]
    assert np.array_equal(made[2], 255 - made[0])
    assert np.abs(made[1] - (0.75 * made[0] + 0.25 * made[2])).max() <= 0.5001


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_other_formats_are_read(file_format):
    made = painted(request(image=saved(photo(), file_format, quality=95), strength=0.0))["base_color"]
    assert np.abs(made.astype(int) - photo()).mean() < 6


def test_the_look_changes_the_result_and_the_seed_does_not(served):
    pixel, again, retro = (
        made_by(served, asked)["base_color"]
        for asked in (request(), replace(request(), seed=99), request(**{"class": "retro"}))
    )
    assert np.array_equal(pixel, again)
    assert np.abs(pixel.astype(int) - retro).mean() > 1


@pytest.mark.parametrize("parameters", [{}, {"palette": 7}, {"pixel_size": 4}, {"pixel_size": 2, "palette": 16}])
def test_a_tile_stays_a_tile_exactly(served, parameters):
    pixels = photo(64, 96)
    made = made_by(served, request(pixels, tiles="yes", **parameters))["base_color"]
    # By whole cells of the network, also where it draws four times smaller.
    rolled = made_by(served, request(np.roll(pixels, (16, 32), axis=(0, 1)), tiles="yes", **parameters))["base_color"]
    assert np.array_equal(np.roll(made, (16, 32), axis=(0, 1)), rolled)


def halves(edge_px=64):
    """Dark on one side and light on the other, which does not tile across; it does down."""
    pixels = photo(edge_px) // 2
    pixels[:, :] += np.linspace(0, 120, edge_px).astype(np.uint8)[None, :, None]
    return pixels


def test_auto_measures_each_axis():
    for pixels, wraps in ((photo(), (True, True)), (halves(), (True, False)), (halves().swapaxes(0, 1), (False, True))):
        assert style.resolve(MANIFEST, request(pixels)).source.wraps == wraps
    assert style.resolve(MANIFEST, request(halves(), tiles="yes")).source.wraps == (True, True)
    assert style.resolve(MANIFEST, request(tiles="no")).source.wraps == (False, False)


def test_of_a_picture_that_does_not_tile_one_border_does_not_see_the_other(served):
    pixels = halves()
    other = pixels.copy()
    other[:, -4:] = 0
    first, second = (made_by(served, request(x, tiles="no"))["base_color"] for x in (pixels, other))
    assert np.array_equal(first[:, :8], second[:, :8])
    wrapped, changed = (made_by(served, request(x, tiles="yes"))["base_color"] for x in (pixels, other))
    assert not np.array_equal(wrapped[:, :8], changed[:, :8])


@given(st.integers(16, 70), st.integers(16, 70))
def test_any_size_comes_back_as_it_was_where_nothing_tiles(height_px, width_px):
    pixels = photo(96)[:height_px, :width_px]
    made = painted(request(pixels, tiles="no"), network=lambda image: image)["base_color"]
    assert np.array_equal(made, pixels)
    plan = style.resolve(MANIFEST, request(pixels, tiles="no"))
    shape = style.prepare(MANIFEST, plan, 0)["image"].shape
    assert shape == (1, 3, plan.height_px, plan.width_px)
    assert shape[2] % 4 == shape[3] % 4 == 0


def test_a_tile_of_no_multiple_of_the_stride_is_refused_with_what_to_do():
    pixels = np.zeros((64, 50, 3), np.uint8)
    for tiles in ("auto", "yes"):
        with pytest.raises(FieldInvalid, match="50 px is no multiple of 4") as caught:
            painted(request(pixels, tiles=tiles))
        assert "send 48 or 52 px" in caught.value.hint
    assert painted(request(pixels, tiles="no"))["base_color"].shape == (64, 50, 3)
    assert painted(request(pixels, width_px=48))["base_color"].shape == (60, 48, 3)


def test_a_size_that_is_asked_for_is_made():
    assert painted(request(photo(64, 32), width_px=64))["base_color"].shape == (128, 64, 3)
    assert painted(request(photo(64, 32), width_px=64, height_px=48))["base_color"].shape == (48, 64, 3)
    assert painted(request(photo(250, 250), width_px=64))["base_color"].shape == (64, 64, 3)


def test_alpha_comes_back_and_hidden_colours_touch_nothing(served):
    pixels = np.dstack([photo(), np.full((64, 64), 255, np.uint8)])
    pixels[20:40, 20:40, 3] = 0
    pixels[40:44, 20:40, 3] = 90
    other = pixels.copy()
    other[20:40, 20:40, :3] = 255
    first, second = (made_by(served, request(x, tiles="yes"))["base_color"] for x in (pixels, other))
    assert np.array_equal(first, second)
    assert np.array_equal(first[:, :, 3], pixels[:, :, 3])


def test_an_opaque_alpha_channel_gives_plain_colours():
    assert painted(request(np.dstack([photo(), np.full((64, 64), 255, np.uint8)])))["base_color"].shape[2] == 3


@pytest.mark.parametrize("colors", [2, 5, 256])
def test_a_palette_has_as_many_colours_as_asked_for_at_most(colors):
    made = painted(request(palette=colors))["base_color"]
    assert 1 < len(np.unique(made.reshape(-1, 3), axis=0)) <= colors


def test_large_pixels_are_drawn_small_and_enlarged():
    made = painted(request(pixel_size=4))["base_color"]
    cells = made.reshape(16, 4, 16, 4, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    plan = style.resolve(MANIFEST, request(pixel_size=4))
    assert (plan.drawn_px, plan.source.color.shape) == ((16, 16), (16, 16, 3))


def test_a_picture_of_pixel_art_is_drawn_at_its_own_resolution():
    art = photo(32)
    large = art.repeat(2, axis=0).repeat(2, axis=1)
    small = painted(request(art))["base_color"]
    assert np.abs(painted(request(large, pixel_size=2))["base_color"][::2, ::2].astype(int) - small).max() <= 1


def test_pixels_too_large_for_the_network_are_refused():
    with pytest.raises(FieldInvalid, match=r"parameters\[pixel_size\]: 16 is not allowed for 64 x 64 px; .* 8 pixels"):
        style.resolve(MANIFEST, request(pixel_size=16))


def test_windows_give_what_the_whole_gives(served):
    windowed = replace(MANIFEST, size=replace(MANIFEST.size, window_px=64))
    for pixels in (photo(128, 256), photo(250, 130)[:, :130]):
        asked = request(pixels, tiles="no" if pixels.shape[0] % 4 else "yes")
        whole, parts = (made_by(served, asked, manifest)["base_color"] for manifest in (MANIFEST, windowed))
        plan = style.resolve(windowed, asked)
        assert count_windows(windowed, plan.height_px, plan.width_px) > 6
        assert np.abs(whole.astype(int) - parts).max() <= 1
        assert (whole == parts).mean() > 0.99


@pytest.mark.parametrize(
    ("profile", "name"),
    [("plain", "wall_base_color.png"), ("unreal", "T_wall_D.png"), ("unity-urp", "wall_BaseMap.png"),
     ("godot", "wall_albedo.png"), ("gltf", "wall_baseColor.png")],
)  # fmt: skip
def test_engines_get_the_file_that_there_is_under_their_name(profile, name):
    plan = style.resolve(MANIFEST, request(output=OutputSpec(profile=profile, name="wall")))
    made = {"base_color": style.prepare(MANIFEST, plan, 0)["image"]}
    (file,) = style.finish(MANIFEST, plan, 0, made)
    assert (file.name, file.media_type, file.color_space) == (name, "image/png", "srgb")
    with Image.open(io.BytesIO(file.data)) as picture:
        assert np.array_equal(np.asarray(picture), photo())
        assert "compositeWithTrainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]


def test_maps_that_are_not_made_are_refused():
    with pytest.raises(FieldInvalid, match="normal is not made by this model"):
        style.resolve(MANIFEST, request(output=OutputSpec(maps=(MapKind.NORMAL,))))


MAPS = style_manifest("maps", maps=True)


def test_a_photo_gets_all_maps_and_keeps_its_colours():
    assert style.made_maps(MAPS) == tuple(MapKind)
    made = painted(request(), MAPS)
    assert set(made) == set(MapKind)
    assert np.array_equal(made["base_color"], photo())
    assert not np.array_equal(made["normal"][:, :, :2], np.full((64, 64, 2), 128))
    assert set(painted(request(output=replace(RAW, profile="unreal")), MAPS)) == {
        "base_color", "normal", "orm", "height"
    }  # fmt: skip


def test_relief_and_roughness_of_a_photo_can_be_changed():
    flat = painted(request(relief=0.0), MAPS)
    assert (flat["normal"] == [128, 128, 255]).all()
    assert (painted(request(roughness_shift=1.0), MAPS)["roughness"] == 255).all()


def test_a_class_without_metal_has_none():
    assert painted(request(), MAPS)["metallic"].any()
    assert not painted(request(**{"class": "retro"}), MAPS)["metallic"].any()


def test_normals_at_the_border_of_a_photo_that_does_not_tile_are_those_of_its_mirror_image():
    ramp = np.repeat(np.linspace(20, 220, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    slopes = painted(request(ramp, tiles="no"), MAPS, network=lambda image: image)["normal"][:, :, 0].astype(int)
    inside = slopes[:, 8:-8]
    # The outermost slope is half as steep, between the pixel beside it and its own image.
    assert np.abs(slopes[:, 0] - 128).max() <= np.abs(inside - 128).max()
    assert (np.sign(slopes - 128) == np.sign(inside.mean() - 128)).all()


def test_outputs_of_another_size_are_an_error_of_ours():
    plan = style.resolve(MANIFEST, request(tiles="yes"))
    style.prepare(MANIFEST, plan, 0)
    with pytest.raises(ValueError, match="base_color"):
        list(style.finish(MANIFEST, plan, 0, {"base_color": np.zeros((1, 3, 64, 68), np.float32)}))


def test_a_model_can_be_checked_without_anybody_sending_a_picture(tmp_path):
    package = VerifiedPackage(tmp_path, MANIFEST, "")
    assert example_inputs(package, 16)["image"].shape == (1, 3, 16, 16)


IMAGE = MANIFEST.parameters[0]
STRANGE = [
    ({"inputs": (*MANIFEST.inputs, InputSpec("z", "latent", ("n", 4)))}, "role 'latent'"),
    ({"outputs": (OutputMap("normal", "normal", 3),)}, "output 'normal'"),
    ({"outputs": (OutputMap("base_color", "base_color", 4),)}, "of 4 channels"),
    ({"parameters": MANIFEST.parameters[1:]}, "required"),
    ({"parameters": (replace(IMAGE, required=False),)}, "required"),
    ({"parameters": (replace(IMAGE, media_types=("image/gif",)),)}, "image/gif"),
    ({"parameters": (IMAGE, ParameterSpec("glow", "G", "G.", "float", default=0.0))}, "'glow'"),
    ({"parameters": (IMAGE, ParameterSpec("strength", "S", "S.", "float", maximum=2.0, default=1.0))}, "0 to 2"),
    ({"parameters": (IMAGE, ParameterSpec("tiles", "T", "T.", "choice", default="x", values=("x",)))}, "'x'"),
    ({"parameters": (IMAGE, ParameterSpec("class", "C", "C.", "choice", default="x", values=("x",)))}, "'x'"),
    ({"size": replace(MANIFEST.size, min_px=64, max_px=64)}, "more than one size"),
]


@pytest.mark.parametrize(("changes", "message"), STRANGE, ids=range(len(STRANGE)))
def test_packages_that_ask_for_what_would_not_act_are_refused(tmp_path, changes, message):
    style.check(VerifiedPackage(tmp_path, MANIFEST, ""))
    with pytest.raises(PackageInvalid, match=message):
        style.check(VerifiedPackage(tmp_path, replace(MANIFEST, **changes), ""))
