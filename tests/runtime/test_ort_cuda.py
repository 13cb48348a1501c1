"""What ONNX Runtime cannot do with a graph on CUDA is told, and nothing of it goes on elsewhere by itself."""

import pytest

from assetgen.errors import PackageInvalid
from assetgen.runtime import ort
from assetgen.runtime.cuda import CudaDevice
from tests.helpers import finishing_device

LEFT_TO_CPU = (
    "This session contains graph nodes that are assigned to the default CPU EP, but fallback to CPU EP has been"
)
NO_GRAPHS = "This session cannot use the graph capture feature as requested by the user as all compute graph nodes have"


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


class OnCuda:
    """A session of the processor's that says that it is on a GPU."""

    def __init__(self, session):
        self.session = session

    def __getattr__(self, name):
        return getattr(self.session, name)

    def get_providers(self):
        return [ort.CUDA_PROVIDER]


def test_a_gpu_that_cannot_finish_maps_says_so(package, monkeypatch):
    def refuse(*_):
        raise PackageInvalid("no kernel for Reciprocal", hint="")

    module = ort.import_onnxruntime()
    monkeypatch.setattr(module, "get_available_providers", lambda: [ort.CUDA_PROVIDER, ort.CPU_PROVIDER])
    monkeypatch.setattr(ort, "cuda_devices", lambda: ([CudaDevice(0, "Test", "9.0", "13.0")], ""))
    monkeypatch.setattr(
        ort, "_load_on_cuda", lambda _, graph, *__: (OnCuda(finishing_device.load(graph, package)), True, "")
    )
    monkeypatch.setattr(ort, "load_finishing", refuse)
    session = ort.open_ort_session(package, "cuda")
    assert session.reason == "asked for; maps are finished on the processor: no kernel for Reciprocal"
    assert not session.finishes
    assert session.backend.endswith("cuda/fp32/test-sm9.0-driver13.0")


def test_slopes_are_never_computed_in_tf32(package, monkeypatch):
    asked = []
    monkeypatch.setattr(ort, "load_graph", lambda *told: asked.append(told))
    options = {"device_id": "0", "use_tf32": "1"}
    ort.load_finishing(ort.import_onnxruntime(), b"", options, package)
    _, _, session_options, providers, _ = asked[0]
    assert providers == [(ort.CUDA_PROVIDER, {"device_id": "0", "use_tf32": "0"})]
    assert session_options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
    assert options["use_tf32"] == "1"
