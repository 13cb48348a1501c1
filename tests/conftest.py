"""What holds for every test, and the one package that is trained and exported for all of them."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded: threads that spin while they wait stand still beside other work on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Shells without job control start background programs deaf to Ctrl-C, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests that use ONNX Runtime by themselves tell nobody, either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# What is fastest here must not change what tests see; those of the choice itself say otherwise.
os.environ.setdefault("ASSETGEN_RUNTIMES", "onnxruntime")

# No limits on time: a slow machine is not a wrong one. The blob repeats a failure elsewhere.
settings.register_profile("assetgen", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assetgen")


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run folders of both networks, trained for two steps on synthetic pictures: (texture, detail)."""
    pytest.importorskip("torch", reason="needs the extra train")
    from assetgen.training.loop import Budget, train
    from tests.helpers.tiny_runs import make_task, write_data

    folder = tmp_path_factory.mktemp("runs")
    data = write_data(folder)
    for what in ("texture", "detail"):
        train(folder / what, make_task(what, data), Budget(tick_s=1e9, steps=2))
    return folder / "texture", folder / "detail"


@pytest.fixture(scope="session")
def exported(runs, tmp_path_factory):
    """The package that ``assetgen export`` makes of ``runs``; do not change it."""
    pytest.importorskip("onnxscript", reason="needs the extra export")
    from export import cli

    texture, detail = runs
    folder = tmp_path_factory.mktemp("packages")
    notes = folder / "notes.md"
    notes.write_text("It was trained for two steps and makes coloured noise.")
    package = folder / "packages" / "tiny-real"
    options = ["-o", str(package), "--notes", str(notes), "--slider-samples", "0"]
    assert cli.main([str(texture), "--detail", str(detail), *options]) == 0
    return package
