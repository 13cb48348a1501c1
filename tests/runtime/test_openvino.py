"""Sessions of OpenVINO: right numbers, bytes that no history changes, stopping, bf16, every way it can be absent."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from assetgen import doctor, golden
from assetgen.errors import Cancelled, ConfigInvalid, InternalError, PackageInvalid, RuntimeMissing
from assetgen.fidelity import psnr_db
from assetgen.package import VerifiedPackage, write_manifest
from assetgen.processor import instruction_family, usable_cores
from assetgen.runtime import open_session, openvino, precision_of, self_check
from assetgen.runtime.devices import describe_devices
from tests.helpers.serving import write_model
from tests.helpers.tiny_package import digest_of, tiny_feeds, tiny_manifest

INSTALLED = openvino.installed_version() != ""
HAS_BF16 = INSTALLED and "openvino:bf16" in openvino.usable_devices()[0]
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="OPENVINO NOT TESTED: pip install openvino")
needs_bf16 = pytest.mark.skipif(
    not HAS_BF16, reason="OPENVINO BF16 NOT TESTED: no openvino, or a processor without bf16"
)
SIZES = [(2, 2), (4, 4), (2, 5), (6, 3), (3, 3)]


@pytest.fixture(scope="module")
def session(package) -> Any:
    return open_session(package, "openvino")


@pytest.fixture(scope="module")
def rounded(package) -> Any:
    return open_session(package, "openvino:bf16")


def write_golden_model(folder: Path) -> None:
    """A package whose golden requests ONNX Runtime made."""
    package = write_model(folder)
    recorded = golden.record(open_session(package, "cpu", 1), package.manifest, [golden.GoldenRequest(3)])
    (package.folder / golden.FILE_NAME).write_text(json.dumps(recorded), encoding="utf-8")
    write_manifest(package.folder, package.manifest)


def roll(feeds: dict[str, Any], rows: int, columns: int) -> dict[str, Any]:
    """The spatial inputs rolled by a number of cells of the grid."""
    factors = {"grid": 1, "layout_0": 1, "layout_1": 2, "noise_0": 2}
    return {
        name: np.roll(values, (rows * factors[name], columns * factors[name]), (2, 3)) if name in factors else values
        for name, values in feeds.items()
    }


# What needs no OpenVINO.


@pytest.mark.parametrize("device", ["openvino:", "openvino:fp16", "openvino:fp32", "openvino:0", "openvinos"])
def test_unknown_devices_are_refused(package, device):
    with pytest.raises(ConfigInvalid, match="use openvino or openvino:bf16") as caught:
        open_session(package, device)
    assert caught.value.field == "device"


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_impossible_thread_numbers_are_refused(package, threads):
    with pytest.raises(ConfigInvalid, match="threads"):
        open_session(package, "openvino", threads)


def without_openvino(monkeypatch, version: str = "") -> None:
    """Make the import fail; with a ``version``, though the distribution is there."""
    real_import, real_version = importlib.import_module, importlib.metadata.version

    def missing(name: str, *rest: Any) -> types.ModuleType:
        if name == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'")
        return real_import(name, *rest)

    def found(name: str) -> str:
        if name != "openvino":
            return real_version(name)
        if not version:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(importlib.metadata, "version", found)


@pytest.mark.parametrize("device", list(openvino.DEVICES))
def test_its_absence_names_the_extra(package, monkeypatch, device):
    without_openvino(monkeypatch)
    with pytest.raises(RuntimeMissing, match="openvino is not installed") as caught:
        open_session(package, device)
    assert "pip install 'assetgen[openvino]'" in caught.value.hint
    report = describe_devices()
    assert (report.openvino, report.openvino_devices) == ("", ())
    assert report.chosen.split(":")[0] in ("cpu", "cuda")


def test_one_that_does_not_load_is_to_be_reinstalled(package, monkeypatch):
    without_openvino(monkeypatch, "2026.4.1")
    with pytest.raises(RuntimeMissing, match="does not load") as caught:
        open_session(package, "openvino")
    assert "--force-reinstall --no-deps openvino" in caught.value.hint
    report = describe_devices()
    assert (report.openvino, report.openvino_devices) == ("2026.4.1", ())
    assert "does not load" in report.openvino_problem


class Plugin:
    """Answers what OpenVINO would of a processor."""

    def __init__(self, *capabilities: str) -> None:
        self.capabilities = list(capabilities)

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.capabilities


@pytest.mark.parametrize(
    ("capabilities", "flags", "problem"),
    [
        (["FP32", "INT8"], ["avx2"], "no bf16 on this processor"),
        (["FP32", "INT8"], [], "no bf16 on this processor"),
        (["FP32", "BF16"], ["avx2", "avx512f"], "would emulate"),
        (["FP32", "BF16"], ["avx512f", "avx512_bf16"], ""),
        (["FP32", "BF16"], ["avx512f", "amx_bf16"], ""),
        (["FP32", "BF16"], [], ""),  # no flags to read: OpenVINO is believed
    ],
)
def test_bf16_without_the_instructions_is_refused(package, monkeypatch, capabilities, flags, problem):
    monkeypatch.setattr(openvino, "openvino_core", lambda: Plugin(*capabilities))
    monkeypatch.setattr(openvino, "_processor_flags", lambda: frozenset(flags))
    names, why = openvino.usable_devices()
    assert names == (("openvino",) if problem else ("openvino", "openvino:bf16"))
    assert problem in why
    if problem:
        with pytest.raises(RuntimeMissing, match=problem) as caught:
            open_session(package, "openvino:bf16")
        assert "Use cpu or openvino" in caught.value.hint


def test_matrix_units_are_another_backend_in_bf16_only(monkeypatch):
    monkeypatch.setattr(openvino, "_processor_flags", lambda: frozenset(["avx512_bf16", "amx_bf16"]))
    assert openvino._kernels("bf16") == instruction_family() + "-amx"
    assert openvino._kernels("fp32") == instruction_family()


def test_the_smallest_shapes_are_those_of_an_asset_of_the_smallest_size():
    feeds = tiny_feeds(cells=(2, 2))
    assert openvino._smallest(tiny_manifest()) == tuple(sorted((name, v.shape) for name, v in feeds.items()))


def test_the_processor_by_onnx_runtime_needs_no_openvino(package):
    code = (
        "import sys; from pathlib import Path; from assetgen.package import verify_package\n"
        "from assetgen.runtime import open_session\n"
        "open_session(verify_package(Path(sys.argv[1])), 'cpu'); print('openvino' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, package.folder], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class Rounded:
    """ONNX Runtime's session with an error on top, as if it computed in bf16."""

    splits = False

    def __init__(self, exact: Any, error: float) -> None:
        self.exact, self.error = exact, error
        self.device, self.reason = exact.device, exact.reason
        self.backend = exact.backend.replace("/fp32/", "/bf16/")

    def run(self, inputs: Any, *, half: bool = False, owner: object = None) -> dict[str, Any]:
        return {name: values + np.float32(self.error) for name, values in self.exact.run(inputs).items()}

    def close(self) -> None:
        self.exact.close()


@pytest.mark.parametrize(("error", "status"), [(0.009, 0), (0.011, 1)])
def test_doctor_holds_bf16_to_40_db_whatever_the_limits_of_fp32(tmp_path, monkeypatch, error, status):
    write_golden_model(tmp_path)

    def opened(package: VerifiedPackage, device: str, threads: int | None) -> Any:
        exact = open_session(package, "cpu", threads)
        return Rounded(exact, error) if device == "openvino:bf16" else exact

    monkeypatch.setattr(doctor, "open_session", opened)
    said: list[str] = []
    assert doctor.examine([tmp_path], "openvino:bf16", 1, said.append) == status
    (line,) = (line for line in said if "bf16 against fp32" in line)
    assert ("base_color 40.9 dB" in line) is (status == 0)
    assert line.endswith("ok" if status == 0 else "metallic has 39.2 dB, at least 40 are asked for")


# What needs it.


@needs_openvino
@pytest.mark.parametrize(("batch", "cells"), [(1, (4, 4)), (1, (2, 5)), (3, (3, 2))])
def test_computes_what_the_reference_computes(package, session, batch, cells):
    feeds = tiny_feeds(batch=batch, cells=cells)
    found = session.run(feeds)
    model = onnx.load_from_string(package.read("generator.onnx"))
    wanted = dict(zip(found, ReferenceEvaluator(model).run(list(found), feeds), strict=True))
    assert list(found) == ["base_color", "height", "roughness", "metallic"]
    for name, values in found.items():
        assert values.dtype == np.float32
        assert values.flags.owndata
        np.testing.assert_allclose(values, wanted[name], atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("cells", [(2, 2), (4, 4), (12, 20)])
def test_rolling_the_inputs_rolls_the_outputs(session, cells):
    feeds = tiny_feeds(cells=cells)
    straight, moved = session.run(feeds), session.run(roll(feeds, 1, -1))
    for name, values in straight.items():
        np.testing.assert_allclose(np.roll(values, (16, -16), (2, 3)), moved[name], atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("kept_px", [0, 1 << 20])
def test_bytes_depend_on_no_earlier_run(package, monkeypatch, kept_px):
    monkeypatch.setattr(openvino, "SCRATCH_KEPT_PX", kept_px)
    assert len(SIZES) > openvino.SIZES_KEPT
    one, two = open_session(package, "openvino", 2), open_session(package, "openvino", 2)
    wanted = {cells: digest_of(one.run(tiny_feeds(cells=cells))) for cells in SIZES}
    for cells in (*reversed(SIZES), SIZES[0], SIZES[2]):
        assert digest_of(one.run(tiny_feeds(cells=cells))) == wanted[cells]
        assert digest_of(two.run(tiny_feeds(cells=cells))) == wanted[cells]
        two.run(tiny_feeds(seed=7, cells=cells))
    assert one.backend == two.backend


@needs_openvino
def test_only_so_many_sizes_are_kept(session):
    for cells in SIZES:
        session.run(tiny_feeds(cells=cells))
        session.run(tiny_feeds(cells=cells), half=session.splits)
        assert all(0 < len(kept) <= openvino.SIZES_KEPT for kept in session._compiled.values() if session.splits)


@needs_openvino
def test_equal_backends_give_equal_bytes_in_another_process_that_tells_nobody(package, tmp_path):
    code = """
import hashlib, sys
from pathlib import Path
from assetgen.package import verify_package
from assetgen.runtime import open_session
from tests.helpers.tiny_package import tiny_feeds
session = open_session(verify_package(Path(sys.argv[1])), "openvino")
outputs = session.run(tiny_feeds())
print(session.backend, hashlib.sha256(b"".join(v.tobytes() for v in outputs.values())).hexdigest())
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
assert "openvino_telemetry" not in sys.modules
"""
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, package.folder],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1] != ""
    assert list(tmp_path.iterdir()) == []


@needs_openvino
@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals on a stack of their own")
def test_a_signal_after_a_session_was_freed_elsewhere_does_not_kill_the_process(package):
    code = """
import faulthandler, os, signal, sys, threading
from pathlib import Path
from assetgen.package import verify_package
from assetgen.runtime import open_session
faulthandler.enable()
signal.signal(signal.SIGTERM, lambda *told: print("told"))
sessions = [open_session(verify_package(Path(sys.argv[1])), "openvino")]
thread = threading.Thread(target=lambda: sessions.pop().close())
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", code, package.folder], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "told\n"), ended.stderr


@needs_openvino
def test_the_backend_names_what_changes_bytes(package, session):
    two = open_session(package, "openvino", 2)
    version = openvino.installed_version()
    assert two.backend == f"openvino-{version}/cpu/fp32/{instruction_family()}/threads2"
    assert session.backend.endswith(f"threads{usable_cores()}")
    assert precision_of(session.backend) == "fp32"
    assert (session.device, session.reason, session.splits) == ("cpu", "asked for", usable_cores() > 1)


@needs_openvino
def test_terminate_stops_a_run_and_only_that(wide):
    session, mine, theirs = open_session(wide, "openvino"), object(), object()
    large, small = tiny_feeds(cells=(96, 96)), tiny_feeds()
    before, found, stop = digest_of(session.run(small)), {}, threading.Event()
    wanted = digest_of(session.run(large))

    def pester() -> None:  # until it has worked: the run may not have begun at the first call
        while not stop.wait(0.002):
            session.terminate(theirs)

    def run(owner: object) -> None:
        try:
            found[owner] = digest_of(session.run(large, owner=owner))
        except Cancelled:
            found[owner] = "cancelled"

    pest, *runs = (threading.Thread(target=pester), *(threading.Thread(target=run, args=(o,)) for o in (mine, theirs)))
    for thread in (pest, *runs):
        thread.start()
    for thread in runs:
        thread.join()
    stop.set()
    pest.join()
    assert found == {mine: wanted, theirs: "cancelled"}
    session.terminate(theirs)
    assert digest_of(session.run(large, owner=theirs)) == wanted
    assert digest_of(session.run(small, owner=theirs)) == before


@needs_openvino
def test_a_stop_right_after_the_start_leaves_the_session_idle(package):
    session, owner = open_session(package, "openvino"), object()
    feeds = tiny_feeds(cells=(2, 2))
    wanted = digest_of(session.run(feeds))
    (compiled,) = session._compiled[False].values()
    (request,) = compiled.idle

    class Stopping:
        """A request that is stopped before anybody waits for it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(request, name)

        def start_async(self, *arguments: Any, **options: Any) -> None:
            request.start_async(*arguments, **options)
            (run,) = session._runs
            run.stopped = True

    compiled.idle[:] = [Stopping()]
    with pytest.raises(Cancelled):
        session.run(feeds, owner=owner)
    compiled.idle[:] = [request]
    assert digest_of(session.run(feeds, owner=owner)) == wanted


@needs_openvino
def test_several_threads_may_run_one_session(session):
    cases = [(seed, SIZES[seed % 2]) for seed in range(4)]
    wanted = [digest_of(session.run(tiny_feeds(seed, cells=cells))) for seed, cells in cases]
    found: dict[int, list[bytes]] = {}

    def run(seed: int, cells: tuple[int, int]) -> None:
        found[seed] = digest_of(session.run(tiny_feeds(seed, cells=cells)))

    threads = [threading.Thread(target=run, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == wanted


@needs_openvino
def test_a_closed_session_does_not_run(package):
    session = open_session(package, "openvino")
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run(tiny_feeds())


@needs_openvino
def test_int8_needs_a_graph_of_it(package):
    with pytest.raises(ConfigInvalid, match="no graph in int8; it has fp32"):
        open_session(package, "openvino:int8")


@needs_openvino
@pytest.mark.parametrize(
    "change",
    [
        {"z": np.zeros((1, 9), np.float32)},
        {"z": np.zeros((1, 8), np.float64)},
        {"grid": np.zeros((1, 8, 3, 4), np.float32)},
        {"more": np.zeros(1, np.float32)},
    ],
)
def test_wrong_inputs_are_a_fault_of_ours_that_does_not_break_the_session(session, change):
    before = digest_of(session.run(tiny_feeds()))
    with pytest.raises(InternalError, match="the graph failed"):
        session.run({**tiny_feeds(), **change})
    assert digest_of(session.run(tiny_feeds())) == before


@needs_openvino
def test_a_graph_that_does_not_load_is_an_error_of_ours(package, monkeypatch):
    monkeypatch.setattr(VerifiedPackage, "read", lambda self, name: b"\x08\x09garbage")
    with pytest.raises(PackageInvalid, match=r"cannot load the graph: Unable to read the model"):
        open_session(package, "openvino")


@needs_openvino
def test_the_report_of_devices_names_what_it_has(package):
    report = describe_devices(package)
    assert report.openvino == openvino.installed_version()
    assert report.openvino_devices[0] == "openvino"
    assert bool(report.openvino_problem) is (len(report.openvino_devices) == 1)
    assert report.chosen.split(":")[0] in ("cpu", "cuda")


@needs_openvino
@pytest.mark.parametrize("device", ["openvino", pytest.param("openvino:bf16", marks=needs_bf16)])
def test_doctor_finds_a_sound_model_sound(tmp_path, device):
    write_golden_model(tmp_path)
    said: list[str] = []
    assert doctor.examine([tmp_path], device, 1, said.append) == 0, said
    assert any("OpenVINO" in line for line in said)
    assert any("bf16 against fp32" in line and line.endswith("ok") for line in said) is (device == "openvino:bf16")


@needs_bf16
def test_bf16_rounds_and_no_more(session, rounded):
    assert precision_of(rounded.backend) == "bf16"
    feeds = tiny_feeds(cells=(8, 8))
    exact, found = session.run(feeds), rounded.run(feeds)
    for name, values in exact.items():
        assert found[name].dtype == np.float32
        assert 30 < psnr_db(values, found[name]) < 80
    self_check(rounded, feeds)


@needs_bf16
@pytest.mark.parametrize("cells", [(2, 2), (4, 4), (12, 20)])
def test_bf16_tiles_to_its_own_rounding(rounded, cells):
    feeds = tiny_feeds(cells=cells)
    straight, moved = rounded.run(feeds), rounded.run(roll(feeds, 1, -1))
    for name, values in straight.items():
        np.testing.assert_allclose(np.roll(values, (16, -16), (2, 3)), moved[name], atol=2**-8)
