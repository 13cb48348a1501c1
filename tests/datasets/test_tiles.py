"""Reading a training file back."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from assetgen.datasets.pack import pack
from assetgen.datasets.tiles import at_density, load, on_ground, read_index
from assetgen.errors import DataInvalid
from assetgen.types import MapKind
from tests.helpers.tiny_runs import picture, save, write_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pack(write_folder(folder / "f", sets=1), folder / "data.zip", license="CC0-1.0")
    return folder / "data.zip"


def one(tmp_path, pixels, *, maps=None):
    """The only item of a folder with one map set."""
    for name, array in {"albedo": pixels, **(maps or {})}.items():
        path = tmp_path / "f" / "brick" / "set" / f"x_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    pack(tmp_path / "f", tmp_path / "one.zip", license="X")
    (item,) = load(tmp_path / "one.zip")
    return item


def test_pictures_come_back_pixel_for_pixel(data):
    item = next(item for item in load(data) if item.id == "metal/p2.png")
    assert (item.maps[MapKind.BASE_COLOR] == picture(12, 40, 1)).all()
    assert (item.class_name, item.license, item.group) == ("metal", "CC0-1.0", "metal/p2.png")


def test_maps_have_the_channels_they_mean(data):
    item = next(item for item in load(data) if item.id == "metal/set0")
    shapes = {kind.value: pixels.shape for kind, pixels in item.maps.items()}
    one_channel = dict.fromkeys(("height", "roughness", "metallic"), (128, 128, 1))
    assert shapes == {"base_color": (128, 128, 3), "normal": (128, 128, 3), **one_channel}


def test_sixteen_bit_height_keeps_its_upper_byte(tmp_path):
    height = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    item = one(tmp_path, picture(0, 32), maps={"height": height})
    assert (item.maps[MapKind.HEIGHT][:, :, 0] == height >> 8).all()


@pytest.mark.parametrize("alpha", [False, True])
def test_sixteen_bit_grey_is_a_base_color_of_its_upper_byte(tmp_path, alpha):
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    folder = tmp_path / "tree" / "rock"
    folder.mkdir(parents=True)
    Image.fromarray(grey).save(folder / "grey.png")
    pack(tmp_path / "tree", tmp_path / "a.zip", license="X", validation_share=0.0)
    (item,) = load(tmp_path / "a.zip", alpha=alpha)
    assert np.array_equal(item.maps[MapKind.BASE_COLOR][:, :, :3], np.repeat((grey >> 8)[:, :, None], 3, axis=2))
    assert item.contrast == pytest.approx((grey >> 8).std(), abs=0.01)


def test_classes_can_be_chosen(data):
    assert {item.class_name for item in load(data, classes=["metal"])} == {"metal"}
    with pytest.raises(DataInvalid, match="class 'lava' is not in") as caught:
        load(data, classes=["metal", "lava"])
    assert caught.value.hint.startswith("it holds brick, metal; --set 'classes=[]'")


def test_flat_and_small_pictures_can_be_left_out(tmp_path):
    save(tmp_path / "f" / "brick" / "flat.png", np.full((64, 64, 3), 90, np.uint8))
    save(tmp_path / "f" / "brick" / "small.png", picture(0, 40))
    save(tmp_path / "f" / "brick" / "good.png", picture(0, 64))
    pack(tmp_path / "f", tmp_path / "a.zip", license="X")
    names = {item.id for item in load(tmp_path / "a.zip", min_contrast=4.0, min_edge_px=50)}
    assert names == {"brick/good.png"}
    with pytest.raises(DataInvalid, match="no item of"):
        load(tmp_path / "a.zip", min_contrast=127.0)


def test_an_altered_member_is_found(data, tmp_path):
    raw = bytearray(data.read_bytes())
    with zipfile.ZipFile(data) as archive:
        info = archive.infolist()[3]
        raw[info.header_offset + 30 + len(info.filename) + 60] ^= 255
    (tmp_path / "bad.zip").write_bytes(raw)
    with pytest.raises(DataInvalid, match=f"{info.filename} in .* is damaged"):
        load(tmp_path / "bad.zip")


def test_what_is_no_training_file_is_said_so(data, tmp_path):
    with pytest.raises(DataInvalid, match="does not exist"):
        load(tmp_path / "nothing.zip")
    raw = data.read_bytes()
    for number, content in enumerate([b"", b"hello", raw[: len(raw) // 2], raw[:-30]]):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(content)
        with pytest.raises(DataInvalid, match="is not a training file"):
            load(path)
    with pytest.raises(DataInvalid, match="is not a training file"):
        load(tmp_path)


@pytest.mark.parametrize("index", ["[]", "3", "{}", "{", '{"schema": 2, "items": []}', '{"schema": null}'])
def test_a_strange_index_is_an_error(tmp_path, index):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("index.json", index)
    with pytest.raises(DataInvalid):
        read_index(tmp_path / "a.zip")


def test_the_index_says_what_was_refused(tmp_path):
    save(tmp_path / "f" / "brick" / "good.png", picture(0, 64))
    save(tmp_path / "f" / "brick" / "tiny.png", picture(0, 8))
    pack(tmp_path / "f", tmp_path / "a.zip", license="X")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        index = json.loads(archive.read("index.json"))
    assert [entry["id"] for entry in index["refused"]] == ["brick/tiny.png"]


def test_one_texel_density(tmp_path):
    item = one(tmp_path, picture(0, 128)[:96], maps={"roughness": picture(1, 128)[:96, :, 0]})
    assert at_density(item, 64).shape == (48, 64, 3)
    assert at_density(item, 64, MapKind.ROUGHNESS).shape == (48, 64, 1)
    assert at_density(item, 128) is item.maps[MapKind.BASE_COLOR]
    assert at_density(item, 256).shape == (96, 128, 3), "nothing is enlarged"
    box = item.maps[MapKind.BASE_COLOR].reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(at_density(item, 64) - box).max() <= 1, "areas are averaged"


def with_alpha(edge):
    """Straight alpha: red to the left, white that must not be seen to the right, half red between."""
    pixels = np.full((edge, edge, 4), 255, np.uint8)
    pixels[:, : edge // 2, 1:3] = 0
    pixels[:, edge // 2 :, 3] = 0
    pixels[:, edge // 2 - 1, 3] = 128
    return pixels


def rgba(tmp_path, pixels, **options):
    save(tmp_path / "f" / "gem" / "a.png", pixels)
    pack(tmp_path / "f", tmp_path / "a.zip", license="X")
    (item,) = load(tmp_path / "a.zip", **options)
    return item


def test_with_alpha_colours_are_multiplied_and_without_they_are_as_stored(tmp_path):
    item = rgba(tmp_path, with_alpha(32), alpha=True)
    assert item.maps[MapKind.BASE_COLOR][0, [0, 15, 16]].tolist() == [[255, 0, 0, 255], [128, 0, 0, 128], [0, 0, 0, 0]]
    plain = rgba(tmp_path, with_alpha(32)).maps[MapKind.BASE_COLOR]
    assert plain[0, [0, 15, 16]].tolist() == [[255, 0, 0], [255, 0, 0], [255, 255, 255]]


def test_a_picture_without_alpha_is_opaque(tmp_path):
    pixels = rgba(tmp_path, picture(0, 32), alpha=True).maps[MapKind.BASE_COLOR]
    assert (pixels[:, :, 3] == 255).all()
    assert (pixels[:, :, :3] == picture(0, 32)).all()


def test_shrinking_does_not_bring_in_what_was_transparent(tmp_path):
    item = rgba(tmp_path, with_alpha(64), alpha=True)
    small = at_density(item, 32)
    whole = item.maps[MapKind.BASE_COLOR].reshape(32, 2, 32, 2, 4).mean(axis=(1, 3))
    assert np.abs(small - whole).max() <= 1
    assert (small[:, :, :3] <= small[:, :, 3:]).all()


def test_a_ground_shows_through_by_what_alpha_leaves():
    pixels = np.array([[[255, 0, 0, 255], [100, 0, 0, 100], [0, 0, 0, 0]]], np.uint8)
    assert on_ground(pixels, (255, 255, 255)).tolist() == [[[255, 0, 0], [255, 155, 155], [255, 255, 255]]]
    assert on_ground(pixels, (0, 0, 0)).tolist() == [[[255, 0, 0], [100, 0, 0], [0, 0, 0]]]
    assert on_ground(pixels[:, :, :3]).tolist() == pixels[:, :, :3].tolist()
