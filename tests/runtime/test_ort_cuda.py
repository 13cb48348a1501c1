"""What ONNX Runtime cannot do with a graph on CUDA is told, and nothing of it goes on elsewhere by itself."""

import pytest

from assetgen.errors import PackageInvalid
from assetgen.package import verify_package
from assetgen.runtime import ort
from tests.helpers.tiny_package import write_tiny_package

LEFT_TO_CPU = (
    "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has been"
)
NO_GRAPHS = "This session cannot use the graph capture feature as requested by the user as all compute graph nodes have"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_package(folder)
    return verify_package(folder)


@pytest.mark.parametrize(
    ("refusals", "captures", "told"),
    [
        ([], True, ""),
        ([NO_GRAPHS], False, "; without CUDA graphs"),
        ([LEFT_TO_CPU, LEFT_TO_CPU], False, "; without CUDA graphs; some nodes run on the CPU"),
        ([NO_GRAPHS, LEFT_TO_CPU], False, "; without CUDA graphs; some nodes run on the CPU"),
    ],
)
def test_what_cuda_cannot_do_with_a_graph_is_told(package, monkeypatch, refusals, captures, told):
    """ONNX Runtime's own words for it, of its source."""
    asked = []

    def load(module, graph, options, providers, package):
        asked.append(providers[0][1]["enable_cuda_graph"])
        if len(asked) <= len(refusals):
            raise PackageInvalid(refusals[len(asked) - 1], hint="")
        return "session"

    monkeypatch.setattr(ort, "load_graph", load)
    found = ort._load_on_cuda(ort.import_onnxruntime(), b"", {"device_id": "0"}, package)
    assert found == ("session", captures, told)
    assert asked == ["1", "0", "0"][: len(refusals) + 1]


def test_another_fault_of_a_graph_is_not_taken_for_that(package, monkeypatch):
    def load(*_):
        raise PackageInvalid("out of memory", hint="")

    monkeypatch.setattr(ort, "load_graph", load)
    with pytest.raises(PackageInvalid, match="out of memory"):
        ort._load_on_cuda(ort.import_onnxruntime(), b"", {"device_id": "0"}, package)


def test_onnx_runtime_is_told_not_to_go_on_elsewhere(package):
    """Its own way out of a failed run is to open again with other providers and to print a line about it."""
    session = ort.load_graph(
        ort.import_onnxruntime(), package.read_graph(), ort.session_options(ort.import_onnxruntime()),
        [ort.CPU_PROVIDER], package,
    )  # fmt: skip
    assert session._enable_fallback is False
