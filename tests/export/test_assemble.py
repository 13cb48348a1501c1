"""What a package must not hold never becomes one, and is not served if it was put together by other means."""

import shutil

import onnx
import pytest

from assetgen.errors import AddressUnusable, PolicyViolated
from assetgen.launch import ServerProcess
from assetgen.package import verify_package
from export import package_from_runs
from tests.export.test_export import package
from tests.helpers.altered_graphs import append, with_operations

RULES = {
    "randomness": (("RandomNormalLike",), "", "'RandomNormalLike': randomness inside the graph"),
    "a foreign domain": (("Twist",), "com.example", "operator domain 'com.example', allowed is ONNX's own"),
}


@pytest.mark.parametrize(("op_types", "domain", "rule"), RULES.values(), ids=RULES)
def test_a_graph_against_the_policy_never_becomes_a_package(
    runs, exported, tmp_path, monkeypatch, op_types, domain, rule
):
    output = tmp_path / "tiny-real"
    shutil.copytree(exported, output)
    former = verify_package(output).digest

    def write(graph, path):
        model = onnx.load(exported / "generator.fp32.onnx")
        append(model, *op_types, domain=domain)
        onnx.save(model, path)

    monkeypatch.setattr(package_from_runs, "onnx_from_module", write)
    for place in (tmp_path / "new", output):
        with pytest.raises(PolicyViolated, match=rule):
            package(runs, place)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-real"]
    assert verify_package(output, digest=former)


def test_a_server_does_not_start_with_such_a_package_and_says_why(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "tiny-real")
    with_operations(verify_package(tmp_path / "tiny-real"), "RandomNormalLike")
    with pytest.raises(AddressUnusable, match="status 2") as caught:
        ServerProcess(["--models", str(tmp_path), "--device", "cpu", "--threads", "1"])
    said = caught.value.message
    assert "generator.fp32.onnx: node 'RandomNormalLike' is a 'RandomNormalLike': randomness inside the graph" in said
    assert PolicyViolated.HINT in said
    assert "Traceback" not in said
