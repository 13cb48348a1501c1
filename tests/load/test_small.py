"""Little memory: the command tells a server that lives from one that cannot begin, and what its clients were told."""

import sys

import psutil
import pytest

from tests.helpers.serving import write_model

if sys.platform != "linux":
    pytest.skip("addresses are limited on Linux only", allow_module_level=True)

from tests.load import small  # after the skip: it needs prlimit


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return ["--models", str(folder), "--device", "cpu", "--threads", "1", "--max-calls", "8", "--log", "error"]


def test_a_server_with_enough_sheds_calls_and_serves_on(arguments):
    found = small.measure(0, "tiny", [(256, 2)], 60.0, arguments)
    assert small.usable(found), found
    codes = found["codes of 2 x 256 px"]
    assert sum(codes.values()) == small.CALLS
    assert codes["OK"] >= 8
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert (found["workers"], found["server_errors"]) == (1, [])
    assert 50 < found["resident_mib"] < found["addresses_mib"] * 2


def test_the_limit_is_kept_by_the_server_and_what_it_starts(arguments):
    limit_mib = 6144
    server = small.Limited(limit_mib, arguments)
    try:
        assert server.address
        limits = [process.rlimit(psutil.RLIMIT_AS)[0] for process in server.family()]
        assert limits == [limit_mib << 20] * 2
    finally:
        assert server.stop()


def test_a_server_that_cannot_begin_is_told(arguments):
    found = small.measure(64, "tiny", [(256, 2)], 5.0, arguments)
    assert (found["ready"], found["lived"]) == (False, False)
    assert found["server_errors"]
    assert not small.usable(found)
