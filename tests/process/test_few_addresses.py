"""A parent that has no room to see what its child made: the call is told so, and the next one is served."""

import errno
import mmap

import pytest

from assetgen.errors import QueueFull
from assetgen.process import memory
from assetgen.service import Service
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from assetgen.worker import Worker
from tests.helpers.serving import files

RAW = OutputSpec(maps=(MapKind.HEIGHT,), encoding=Encoding.RAW)


def asked(edge_px):
    return Request("a", seed=3, width_px=edge_px, height_px=edge_px, output=RAW)


@pytest.fixture
def no_room(monkeypatch):
    """Refuses pieces beyond so many bytes, or those after so many; by the fault given."""
    given = []

    class Scarce:
        def __init__(self, largest_bytes, fault):
            self.largest_bytes, self.fault = largest_bytes, fault

        def mmap(self, descriptor, size_bytes):
            given.append(size_bytes)
            if size_bytes > self.largest_bytes:
                raise OSError(self.fault, "Cannot allocate memory")
            return mmap.mmap(descriptor, size_bytes)

    def scarce(largest_bytes, fault=errno.ENOMEM):
        monkeypatch.setattr(memory, "mmap", Scarce(largest_bytes, fault))
        return given

    return scarce


def test_a_piece_without_room_is_a_lack_of_memory_and_other_faults_stay_themselves(no_room):
    no_room(2 * memory.STEP_BYTES)
    slabs = memory.Slabs()
    with pytest.raises(MemoryError, match="two processes"):
        slabs.take(2 * memory.STEP_BYTES + 1)
    assert slabs.take(memory.STEP_BYTES).size_bytes == memory.STEP_BYTES
    no_room(0, errno.EBADF)
    with pytest.raises(OSError, match="Cannot allocate"):
        slabs.take(1)


def test_a_call_without_room_is_refused_and_others_are_served(make, packages, no_room, caplog):
    process = make()
    service = Service({"a": packages["a"]}, Worker("cpu", 1, process=process))
    try:
        expected = files(service.generate(asked(64)))
        pid = process.pid
        given = no_room(4 * memory.STEP_BYTES)  # of 512 px are 1 MiB inputs or less, and 6 MiB outputs
        for _ in range(3):
            with pytest.raises(QueueFull, match="not enough memory for 512 x 512 px"):
                list(service.generate(asked(512)))
            assert files(service.generate(asked(64))) == expected
        assert max(given) > 4 * memory.STEP_BYTES
        assert process.pid == pid
        assert "Traceback" not in caplog.text
        free = process._handle._slabs._free
        assert len({id(slab) for slab in free}) == len(free)  # none was given back twice, for two runs to write to
    finally:
        service.close()
