"""Hostile packages of kind sprite: refused before use, or an error of one call; the server outlives both."""

import json
import re

import grpc
import numpy as np
import onnx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from onnx import helper, numpy_helper

from assetgen.client import Client
from assetgen.errors import AddressUnusable, InternalError, PackageInvalid, PolicyViolated
from assetgen.launch import ServerProcess
from assetgen.local import open_local
from assetgen.manifest import ClassSpec, OutputMap, SizeSpec
from assetgen.package import write_manifest
from assetgen.types import Request
from tests.helpers.serving import files
from tests.helpers.tiny_sprites import sprite_model, write_sprites


def refused(folder, error, rule):
    with pytest.raises(error, match=rule), open_local([folder], "cpu", 1) as maker:
        list(maker.generate(Request("items", seed=1)))


def edited(package, change):
    """Change the manifest as a forger would: its digest changes with it."""
    path = package.folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def with_parameter(name, **changes):
    def change(document):
        (spec,) = (spec for spec in document["parameters"] if spec["name"] == name)
        spec.update(changes)

    return change


MANIFESTS = {
    "squares without end": (with_parameter("pixel_size", maximum=1_000_000), "pixel_size"),
    "a margin without end": (with_parameter("trim_margin", maximum=1_000_000), "trim_margin"),
    "colours without end": (with_parameter("palette", maximum=2**31), "palette"),
    "truncation that never ends": (with_parameter("truncation", minimum=-5.0), "truncation"),
    "a class that is a path": (with_parameter("class", values=["potion", "../../x"]), "offers"),
    "a class that is a device": (with_parameter("class", values=["potion", "nul"]), "offers"),
    "a class nobody trained": (with_parameter("class", values=["potion", "dragon"]), "offers"),
    "a pivot that is none": (with_parameter("pivot", values=["center", "nose"]), "offers"),
    "a threshold that is text": (
        with_parameter("alpha_threshold", type="choice", values=["0.5"], default="0.5"),
        "choice",
    ),
    "a parameter that would not act": (
        lambda document: document["parameters"].append(document["parameters"][0] | {"name": "shell"}),
        "'shell'",
    ),
    "a map in a sprite's place": (lambda document: document["outputs"][0].update(map_kind="height"), "one output"),
    "a kind that is none": (lambda document: document.update(kind="spritee"), "kind"),
}


@pytest.mark.parametrize(("change", "rule"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_forged_manifest(change, rule, tmp_path):
    edited(write_sprites(tmp_path), change)
    refused(tmp_path, PackageInvalid, rule)


def test_class_names_cannot_lead_out_of_the_folder(tmp_path):
    with pytest.raises(PackageInvalid, match="lower_snake_case"):
        write_sprites(tmp_path, classes=(ClassSpec("../x", "X"), ClassSpec("sword", "S"), ClassSpec("gem", "G")))


GRAPHS = {
    "another size": {"size": SizeSpec(stride_px=32, min_px=32, max_px=32, default_px=32)},
    "fewer channels": {"outputs": (OutputMap("sprite", "sprite", 3),)},
    "another name": {"outputs": (OutputMap("picture", "sprite", 4),)},
}


@pytest.mark.parametrize("changes", GRAPHS.values(), ids=GRAPHS)
def test_a_graph_that_is_not_what_the_manifest_says(changes, tmp_path):
    write_sprites(tmp_path, **changes)
    refused(tmp_path, (PackageInvalid, PolicyViolated), "manifest says|one output")


def poisoned(op_type, *constants):
    """The graph with one operation more at its end, which makes what no sprite is."""
    model = sprite_model()
    last = model.graph.node[-1]
    last.output[0] = "clean"
    names = [f"poison_{number}" for number in range(len(constants))]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(value), name) for name, value in zip(names, constants, strict=True)
    )
    model.graph.node.append(helper.make_node(op_type, ["clean", *names], ["sprite"], name="poison"))
    return model


POISONS = {
    "not a number": ("Log", ()),  # of 0 and of values near 0: negative and minus infinity
    "above 1": ("Add", (3.0,)),
    "below 0": ("Sub", (3.0,)),
    "infinite": ("Div", (0.0,)),
}


def write_poisoned(models, op_type, constants):
    package = write_sprites(models)
    graph = poisoned(op_type, *constants)
    onnx.checker.check_model(graph)
    (package.folder / "generator.onnx").write_bytes(graph.SerializeToString())
    write_manifest(package.folder, package.manifest)
    return package.folder


def health_of(server):
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest.mark.parametrize(("op_type", "constants"), POISONS.values(), ids=POISONS)
def test_a_graph_that_makes_no_sprites_fails_its_own_calls_only(op_type, constants, tmp_path):
    models = tmp_path / "models"
    write_sprites(models, "sound")
    write_poisoned(models, op_type, constants)
    with (
        ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1", "--lazy"]) as server,
        Client(server.address) as client,
    ):
        for _ in range(2):
            with pytest.raises(InternalError) as caught:
                list(client.generate(Request("items", seed=1)))
            assert str(tmp_path) not in caught.value.message + caught.value.hint
            assert health_of(server) == "SERVING"
        assert len(files(client.generate(Request("sound", seed=1)))) == 1


@pytest.mark.parametrize("worker", ["process", "thread"])
def test_a_server_that_opens_its_models_first_names_the_one_that_makes_no_numbers(tmp_path, worker):
    write_sprites(tmp_path, "sound")
    folder = write_poisoned(tmp_path, *POISONS["infinite"])
    arguments = ["--models", str(tmp_path), "--device", "cpu", "--threads", "1", "--worker", worker]
    with pytest.raises(AddressUnusable, match="status 2") as caught:
        ServerProcess(arguments)
    said = caught.value.message
    assert re.search("error: model 'items' cannot be served: .* 'sprite' holds values that are not finite\n", said)
    assert f"hint: remove {folder}, or choose another device" in said
    assert "Traceback" not in said


def test_the_largest_allowed_request_stays_small(tmp_path):
    """64 sprites of the largest squares with everything on: nothing multiplies beyond what is checked."""
    write_sprites(tmp_path)
    asked = {"pixel_size": 8, "palette": 64, "alpha": "hard", "trim": "on", "trim_margin": 16, "sidecar": "on"}
    with open_local([tmp_path], "cpu", 1) as maker:
        made = files(maker.generate(Request("items", seed=1, count=64, parameters=asked)))
    assert len(made) == 128
