"""The commands for load, fuzzing and soaking work; their figures are taken by hand and stand in the documents."""

import sys

import pytest

from assetgen.launch import ServerProcess
from tests.helpers.serving import write_model
from tests.load import fuzz, garbage, generator, handover, soak


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_mutated_inputs_are_accepted_or_refused_by_errors_of_ours(target):
    answers = fuzz.fuzz(target, 400, seed=1)
    assert answers.total() == 400
    assert len(answers) > 1 or target == "status"


def test_an_error_not_of_ours_is_found_and_can_be_had_again(monkeypatch):
    def break_on(data):
        if len(data) % 5 == 0:
            raise ZeroDivisionError

    monkeypatch.setitem(fuzz.TARGETS, "planted", lambda _: ([b"sound!"], break_on))
    notes = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught:
            fuzz.fuzz("planted", 10_000)
        notes.append(caught.value.__notes__)
    assert notes[0] == notes[1]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return folder


def test_load_of_all_kinds_is_counted(models):
    options = ["--models", str(models), "--device", "cpu", "--threads", "1", "--log", "error", "--max-calls", "8"]
    with ServerProcess(options) as server:
        found = generator.measure(server.address, "tiny", 32, 0.5, [1.0, 5.0], 2.0)
    assert set(found) == {"closed_16", "open_1x", "open_5x"}
    for outcome in found.values():
        assert outcome["codes"].get("OK", 0) > 0
        assert set(outcome["codes"]) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def test_a_short_soak_ends_with_the_bytes_it_began_with(models):
    found = soak.soak(0.08, "tiny", str(models), 1)
    assert found["golden_unchanged"]
    assert found["strange"] == []
    assert found["server_errors"] == []
    assert found["calls"]["request OK"] > 0
    assert found["calls"]["wrong FIELD_INVALID"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted on Linux")
def test_a_server_under_garbage_serves_on_and_does_not_grow(models):
    found = garbage.withstand(2.0, "tiny", str(models), half_open=150)
    assert garbage.is_good(found), found
    assert found["good_calls"] > 0
    assert set(found["connections"]) == set(garbage.GARBAGE)
    assert sum(found["connections"].values()) == 500 * found["good_calls"]
    assert found["half_open"] == 150


@pytest.mark.parametrize(
    "wrong", [{"calls_with_other_files": 1}, {"growth_mib": [3.0, 4.0, garbage.MOST_MIB]}, {"server_errors": ["what"]}]
)
def test_figures_of_a_server_that_does_not_stand_garbage_are_no_good_ones(wrong):
    good = {"calls_with_other_files": 0, "growth_mib": [3.0, 4.0, 5.0], "server_errors": []}
    assert garbage.is_good(good)
    assert not garbage.is_good(good | wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="files are handed over on Linux only")
def test_maps_come_both_ways():
    found = handover.measure(1)
    assert found["bytes"] == 36 * 2**20
    assert set(found["p50_ms"]) == {"copy", "grpc", "grpc, read", "shared", "shared, read"}
