"""Packages and processes for the tests of this folder."""

import psutil
import pytest

from assetgen.process.supervisor import DeviceProcess, Limits
from tests.helpers import faulty_device
from tests.helpers.serving import write_model

USUAL = Limits()


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: write_model(folder, name) for name in ("a", "b", "gpu", "poison")}


@pytest.fixture
def make():
    made = []

    def process(limits=USUAL, threads=1, device="cpu"):
        made.append(DeviceProcess(device, threads, limits, faulty_device.PROGRAM))
        return made[-1]

    yield process
    for one in made:
        pid = one.pid
        one.close()
        assert pid is None or not psutil.pid_exists(pid)
