"""Too little memory in the process of the device: nobody is to blame, the process stays, and clients are told."""

import sys

import numpy as np
import pytest

from assetgen.errors import QueueFull
from assetgen.process.supervisor import DeviceProcess
from assetgen.service import Service
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from assetgen.worker import Worker
from tests.helpers import faulty_device
from tests.helpers.faulty_device import NO_MEMORY, little_memory
from tests.helpers.processes import inputs_of, until
from tests.helpers.serving import files

# A run of 1024 px takes several pieces of 32 MiB.
SPARE_BYTES = 16 << 20
# Less than the inputs of 1024 px take.
UNMAPPED_BYTES = 320 << 10
RAW = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process")


def asked(model_id, edge_px):
    return Request(model_id, seed=7, width_px=edge_px, height_px=edge_px, output=RAW)


@pytest.fixture
def service(packages):
    process = DeviceProcess("cpu", 1, program=faulty_device.PROGRAM)
    made = Service({name: packages[name] for name in ("a", "gpu")}, Worker(process=process))
    made.preload()
    yield made
    made.close()


def stayed(process, pid):
    return process.pid == pid and not process.ends and not process.breaker.paused()


@needs_limits
@pytest.mark.parametrize("name", ["a", "gpu"])
def test_runs_that_do_not_fit_neither_end_the_process_nor_count_for_the_breaker(make, packages, name, caplog):
    """On a GPU every other failure of a run does both."""
    process, package = make(), packages[name]
    session, pid = process.open(package), process.pid
    small, large = inputs_of(package), inputs_of(package, edge_px=1024)
    wanted = {key: values.tobytes() for key, values in session.run(small).items()}
    with little_memory(pid, SPARE_BYTES):
        for _ in range(3):  # as many as open the breaker
            with pytest.raises(MemoryError):
                session.run(large)
            assert {key: values.tobytes() for key, values in session.run(small).items()} == wanted
    assert session.run(large)
    assert stayed(process, pid)
    assert not process.breaker.suspects(package.digest)
    until(lambda: caplog.text.count("not enough memory for a run: ") == 3)


@needs_limits
@pytest.mark.parametrize("name", ["a", "gpu"])
def test_a_client_is_told_that_memory_lacks_and_others_are_served(service, name):
    process, pid = service.worker.process, service.worker.process.pid
    wanted = {other: files(service.generate(asked(other, 32))) for other in ("a", "gpu")}
    with little_memory(pid, SPARE_BYTES):
        for _ in range(3):
            with pytest.raises(QueueFull, match="not enough memory for 1024 x 1024 px now") as caught:
                files(service.generate(asked(name, 1024)))
            assert "smaller size" in caught.value.hint
            assert {other: files(service.generate(asked(other, 32))) for other in ("a", "gpu")} == wanted
    assert files(service.generate(asked(name, 1024)))
    assert stayed(process, pid)


@pytest.mark.parametrize("name", ["a", "gpu"])
def test_a_lack_that_python_tells_comes_to_the_client_as_one(service, packages, name, monkeypatch):
    process, pid = service.worker.process, service.worker.process.pid
    session = service.worker.session(packages[name])
    run = session.run

    def short(inputs, **options):
        return run({**inputs, "truncation": np.full((1, 1), NO_MEMORY, np.float32)}, **options)

    with monkeypatch.context() as fault:
        fault.setattr(session, "run", short)
        for _ in range(3):
            with pytest.raises(QueueFull, match="not enough memory for 32 x 32 px now"):
                files(service.generate(asked(name, 32)))
    assert files(service.generate(asked(name, 32)))
    assert stayed(process, pid)
    assert not process.breaker.suspects(packages[name].digest)


@needs_limits
@pytest.mark.parametrize("name", ["a", "gpu"])
def test_what_could_not_be_mapped_is_mapped_when_there_is_room_again(make, packages, name):
    """The parent sends a piece of memory once and uses it again and again, whatever became of the call it was for."""
    process, package = make(), packages[name]
    session, pid = process.open(package), process.pid
    small, large = inputs_of(package), inputs_of(package, edge_px=1024)
    session.run(small)
    with little_memory(pid, UNMAPPED_BYTES):
        for _ in range(3):
            with pytest.raises(MemoryError):
                session.run(large)
    assert session.run(large)
    assert session.run(small)
    assert stayed(process, pid)
