"""What a soak finds: growth beyond the limits is told, and a process that was replaced is no fault of its own."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from tests.load import soak

GOOD = {
    "golden_unchanged": True,
    "strange": [],
    "server_errors": [],
    "slope_mib_per_10_min": 0.9,
    "descriptors": [80, 82],
    "threads": [40, 40],
}


def test_a_good_run_has_no_fault():
    assert soak.faults(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"golden_unchanged": False}, "other bytes"),
        ({"strange": ["batch: KeyError('x')"]}, "KeyError"),
        ({"server_errors": ["Traceback"]}, "Traceback"),
        ({"slope_mib_per_10_min": 1.1}, "1.1 MiB"),
        ({"descriptors": [80, 113]}, "descriptors grew from 80 to 113"),
        ({"threads": [40, 49]}, "threads grew from 40 to 49"),
    ],
)
def test_each_fault_is_told(changes, said):
    (fault,) = soak.faults(GOOD | changes)
    assert said in fault


def test_faults_decide_the_status(monkeypatch, capsys):
    for slope_mib, status in ((0.5, 0), (3.0, 1)):
        monkeypatch.setattr(soak, "soak", lambda *_, slope_mib=slope_mib: GOOD | {"slope_mib_per_10_min": slope_mib})
        assert soak.main(["--minutes", "1"]) == status
        assert ("memory grew" in capsys.readouterr().out) is bool(status)
    assert soak.main(["--minutes", "1", "--slope-limit", "4"]) == 0


def test_growth_has_the_values_worked_out_by_hand():
    """2 MiB a minute and a descriptor a sample; the first sixth does not count."""
    samples = [(0.0, 900.0, 500, 500), *((60.0 * minute, 100.0 + 2 * minute, minute, 7) for minute in range(2, 12))]
    found = soak.growth(samples, 12.0)
    assert found["slope_mib_per_10_min"] == pytest.approx(20)
    assert found["resident_mib"] == [104.0, 122.0, 122.0]
    assert (found["descriptors"], found["threads"]) == ([6, 11], [7, 7])


def test_processes_are_those_of_the_moment_and_ended_ones_hold_nothing():
    sleeper = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    own = psutil.Process()
    with subprocess.Popen(sleeper, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        listed = soak.family(own)
        both = soak.held([own, psutil.Process(first.pid)])
        first.kill()
        first.wait()
        assert first.pid in {process.pid for process in listed}
        assert soak.held([process for process in listed if process.pid == first.pid]) == (0.0, 0, 0)
        assert both[2] > soak.held([own])[2]
    with subprocess.Popen(sleeper, stdout=subprocess.PIPE) as second:
        second.stdout.readline()
        assert {first.pid, second.pid} & {process.pid for process in soak.family(own)} == {second.pid}
        os.kill(second.pid, 9)


@pytest.mark.soak
@pytest.mark.slow
def test_half_a_minute_of_mixed_load_leaves_nothing_behind(capsys):
    """So short a run still opens what it keeps: sessions for each size, and up to 128 files of shared memory.

    Its limits are three times what warming up takes; maps that calls leave behind would be more.
    """
    limits = ["--slope-limit", "10000", "--descriptor-slack", "128"]
    assert soak.main(["--minutes", "0.5", *limits]) == 0, capsys.readouterr().out
    found = json.loads(capsys.readouterr().out)
    assert found["faults"] == []
    assert found["calls"]["request OK"] > 0
