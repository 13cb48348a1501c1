"""Sprites over the real server: the same through every door, and every mistake told by its field."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from assetgen.client import Client
from assetgen.errors import FieldInvalid, ModelDigestMismatch
from assetgen.launch import ServerProcess
from assetgen.local import open_local
from assetgen.types import Artifact, Encoding, MapKind, NormalConvention, OutputSpec, Request
from tests.helpers.serving import files
from tests.helpers.tiny_sprites import CLASSES, EDGE_PX, PARAMETERS, write_sprites

OPTIONS = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_sprites(folder)
    write_sprites(folder, "scaled", scaled=True)
    return folder


@pytest.fixture(scope="module")
def client(models):
    with ServerProcess(["--models", str(models), *OPTIONS]) as server, Client(server.address) as client:
        yield client


def test_the_model_describes_itself_well_enough_for_a_form(client):
    model = client.model("items")
    assert (model.kind, model.maps) == ("sprite", ())
    assert model.class_labels == ("Potion", "Sword", "Gem")
    assert model.parameters == PARAMETERS
    assert (model.size.min_px, model.size.max_px) == (EDGE_PX, EDGE_PX)


def test_here_and_there_alone_and_among_others_it_is_the_same(client, models):
    asked = {"class": "gem", "sidecar": "on", "trim": "on", "palette": 6, "alpha": "hard", "pixel_size": 3}
    many = files(client.generate(Request("items", seed=7, count=4, parameters=asked)))
    assert sorted(many) == [(index, role) for index in range(4) for role in ("sidecar", "sprite")]
    alone = files(client.generate(Request("items", seed=7, first_index=2, parameters=asked)))
    assert alone == {key: digest for key, digest in many.items() if key[0] == 2}
    with open_local([models], "cpu", 1) as maker:
        assert files(maker.generate(Request("items", seed=7, count=4, parameters=asked))) == many
    assert len({many[index, "sprite"] for index in range(4)}) == 4


def test_the_sidecar_arrives_as_the_json_of_its_sprite(client):
    asked = {"sidecar": "on", "trim": "on", "pivot": "bottom"}
    events = client.generate(Request("items", seed=7, parameters=asked))
    sprite, sidecar = (event for event in events if isinstance(event, Artifact))
    assert (sidecar.media_type, sidecar.pixel_format, sidecar.width_px) == ("application/json", None, 0)
    entry = json.loads(bytes(sidecar.data))["frames"][sprite.name]
    with Image.open(io.BytesIO(sprite.data)) as picture:
        assert picture.size == (entry["frame"]["w"], entry["frame"]["h"])


@pytest.mark.parametrize("model", ["items", "scaled"])
def test_no_variety_makes_one_prop_a_class(client, model):
    def made(seed, class_name):
        asked = {"truncation": 0.0, "class": class_name}
        output = OutputSpec(encoding=Encoding.RAW)
        request = Request(model, seed=seed, parameters=asked, output=output)
        (file,) = (event for event in client.generate(request) if isinstance(event, Artifact))
        return np.frombuffer(file.data, np.uint8)

    assert (made(1, "gem") == made(2, "gem")).all()
    assert (made(1, "gem") != made(1, "sword")).any()


BAD = [
    ({"parameters": {"class": "cheese"}}, "parameters[class]", ", ".join(CLASSES)),
    ({"parameters": {"class": 3}}, "parameters[class]", ", ".join(CLASSES)),
    ({"parameters": {"blend_class": "wine"}}, "parameters[blend_class]", "none"),
    ({"parameters": {"truncation": 1.01}}, "parameters[truncation]", "0 to 1"),
    ({"parameters": {"truncation": -0.01}}, "parameters[truncation]", "0 to 1"),
    ({"parameters": {"truncation": float("nan")}}, "parameters[truncation]", "0 to 1"),
    ({"parameters": {"palette": 2**40}}, "parameters[palette]", "0 to 64"),
    ({"parameters": {"pixel_size": 100}}, "parameters[pixel_size]", "1 to 8"),
    ({"parameters": {"alpha_threshold": "half"}}, "parameters[alpha_threshold]", "0 to 1"),
    ({"parameters": {"trim": 1}}, "parameters[trim]", "off, on"),
    ({"parameters": {"pivot": "nose"}}, "parameters[pivot]", "center, bottom, top"),
    ({"parameters": {"sheet": "on"}}, "parameters[sheet]", "no such parameter"),
    ({"parameters": {"relief": 1.0}}, "parameters[relief]", "no such parameter"),
    ({"width_px": 64}, "width_px", str(EDGE_PX)),
    ({"count": 65}, "count", "0 to 64"),
    ({"output": OutputSpec(maps=(MapKind.NORMAL,))}, "output.maps", "no maps"),
    ({"output": OutputSpec(normal_convention=NormalConvention.Y_UP)}, "output.normal_convention", "no normals"),
    ({"output": OutputSpec(profile="doom")}, "output.profile", "unity-urp"),
    ({"output": OutputSpec(name="nul")}, "output.name", "device"),
]


@pytest.mark.parametrize(("changes", "field", "said"), BAD, ids=[str(changes)[:60] for changes, _, _ in BAD])
def test_mistakes_name_the_field_and_what_is_allowed_and_the_server_lives(client, changes, field, said):
    with pytest.raises(FieldInvalid) as caught:
        list(client.generate(Request(**{"model_id": "items", "seed": 7} | changes)))
    assert caught.value.field == field
    assert said in caught.value.message
    assert len(files(client.generate(Request("items", seed=7)))) == 1


def test_another_digest_is_refused(client):
    with pytest.raises(ModelDigestMismatch):
        list(client.generate(Request("items", seed=7, model_digest=client.model("scaled").digest)))
