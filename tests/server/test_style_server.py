"""Models that take a picture, on the real server: what comes back, and what hostile pictures do to it."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from assetgen.client import Client
from assetgen.errors import FieldInvalid, ImageInvalid
from assetgen.launch import ServerProcess
from assetgen.types import Artifact, Encoding, OutputSpec, Progress, Request
from tests.helpers.picture_files import chunk, interlaced_png, png, with_notes
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_style_package(models, style_manifest())
    write_style_package(models, style_manifest("photo", maps=True))
    write_style_package(models, style_manifest("slow", max_px=4096, window_px=512), channels=64)
    arguments = ["--models", str(models), "--device", "cpu", "--threads", "1", "--log", "warning"]
    with ServerProcess(arguments) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def asked(pixels=None, model="style", **parameters):
    image = saved(photo() if pixels is None else pixels)
    return Request(model, 1, parameters={"image": image, **parameters}, output=OutputSpec(encoding=Encoding.RAW))


def made(client, request):
    return {event.role: event for event in client.generate(request) if isinstance(event, Artifact)}


def test_forms_can_be_drawn_from_what_the_server_says(client):
    model = client.model("style")
    (image,) = [spec for spec in model.parameters if spec.type == "image"]
    assert (image.name, image.required) == ("image", True)
    assert image.media_types == ("image/png", "image/jpeg", "image/webp")
    assert model.kind == "style"
    assert model.maps == ("base_color",)


def test_the_same_picture_gives_the_same_bytes_and_a_file_is_as_good_as_its_bytes(client, tmp_path):
    (tmp_path / "photo.png").write_bytes(saved(photo()))
    path = Request("style", 9, parameters={"image": tmp_path / "photo.png"}, output=OutputSpec(encoding=Encoding.RAW))
    first, second, third = (made(client, request)["base_color"] for request in (asked(), asked(), path))
    assert first.sha256 == second.sha256 == third.sha256
    assert bytes(first.data) != photo().tobytes()


def test_alpha_travels_there_and_back(client):
    pixels = np.dstack([photo(), photo(seed=1)[:, :, 0]])
    file = made(client, asked(pixels))["base_color"]
    assert file.pixel_format == "rgba8"
    assert np.array_equal(np.frombuffer(file.data, np.uint8).reshape(64, 64, 4)[:, :, 3], pixels[:, :, 3])


def test_a_photo_becomes_a_whole_material(client):
    assert set(made(client, asked(model="photo"))) == set(client.model("photo").maps)
    assert len(client.model("photo").maps) == 6


def animated():
    file = io.BytesIO()
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    first.save(file, "WEBP", save_all=True, append_images=[second])
    return file.getvalue()


def cmyk():
    file = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(file, "JPEG")
    return file.getvalue()


HOSTILE = {
    "nothing": b"",
    "text": b"<svg/>",
    "lie": b"\x89PNG\r\n\x1a\n" + b"\0" * 1000,
    "bomb by its header": png(60000, 60000),
    "bomb of 9500": png(9500, 9500),
    "bomb of 13000": png(13000, 13000),
    "bomb of 100000": png(100000, 100000),
    "bomb of 13000, interlaced": png(13000, 13000, interlaced=True),
    "no pixels": png(0, 0),
    "no columns": png(0, 64),
    "cut off": saved(photo())[:900],
    "animated": animated(),
    "cmyk": cmyk(),
    "16 bits": png(64, 64, depth=16, data=b"\0" * 64 * 385),
    "invisible": saved(np.zeros((64, 64, 4), np.uint8)),
    "too small": saved(photo(8)),
    "too large": saved(photo(300)),
    "another format": saved(photo(), "BMP"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nquit\n",
    "psd": b"8BPS\0\1" + bytes(6) + (3).to_bytes(2, "big") + (64).to_bytes(4, "big") * 2 + b"\0\x08\0\3" + bytes(99),
    "fits": b"".join(card.ljust(80) for card in (b"SIMPLE  = T", b"BITPIX  = 8", b"NAXIS   = 2", b"END")).ljust(2880),
    "interlaced and cut off": interlaced_png(photo())[:900],
}
# Strange, but each pixel is there.
SOUND = {
    "bomb by its data": png(64, 64, data=b"\0" * (1 << 26)),  # more than pixels: what is too much is never unpacked
    "interlaced": interlaced_png(photo()),
    "an animation of no frames": with_notes(saved(photo()), chunk(b"acTL", bytes(8))),
    "exif that is none": with_notes(saved(photo()), chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff")),
}


def asked_of(data):
    return Request("style", 1, parameters={"image": data}, output=OutputSpec(encoding=Encoding.RAW))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pictures_get_an_error_and_the_server_goes_on(server, client, name):
    with pytest.raises(ImageInvalid) as caught:
        made(client, asked_of(HOSTILE[name]))
    assert caught.value.field == "parameters[image]"
    assert caught.value.message.startswith("parameters[image]")
    assert caught.value.hint
    assert made(client, asked())
    assert "Warning" not in server.errors()


@pytest.mark.parametrize("name", SOUND)
def test_strange_pictures_that_are_sound_are_taken(server, client, name):
    file = made(client, asked_of(SOUND[name]))["base_color"]
    assert np.frombuffer(file.data, np.uint8).size == 64 * 64 * 3
    if not name.startswith("bomb"):
        assert file.sha256 == made(client, asked())["base_color"].sha256
    assert "Warning" not in server.errors()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked(strength=1.5), "parameters[strength]"),
        (asked(**{"class": "cubist"}), "parameters[class]"),
        (asked(palette=1), "parameters[palette]"),
        (asked(image="photo.png"), "parameters[image]"),
        (asked(photo(62), tiles="yes"), "parameters[image]"),
        (Request("style", 1), "parameters[image]"),
        (Request("style", 1, count=2, parameters={"image": saved(photo())}), "count"),
    ],
    ids=range(7),
)
def test_bad_fields_are_named(client, request_, field):
    with pytest.raises(FieldInvalid) as caught:
        made(client, request_)
    assert caught.value.field == field
    assert made(client, asked())


def test_a_call_that_is_given_up_leaves_the_device_to_others(server, client):
    seen = []
    with Client(server.address) as other:
        events = other.generate(asked(photo(1024), model="slow"))
        for event in events:
            seen.append(event)
            if isinstance(event, Progress) and event.stage == "generating":
                break
        events.close()
    assert made(client, asked())  # it waits for the one device
    assert not any(isinstance(event, Artifact) for event in seen)


def test_many_at_once_get_each_their_own(client):
    pictures = [photo(seed=seed) for seed in range(6)]
    alone = [made(client, asked(pixels))["base_color"].sha256 for pixels in pictures]
    together: dict[int, str] = {}

    def ask(number):
        together[number] = made(client, asked(pictures[number]))["base_color"].sha256

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(6)] == alone
    assert len(set(alone)) == 6
