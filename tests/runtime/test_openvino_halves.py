"""OpenVINO by halves: the bytes of the whole, both at once, and each stopped by itself."""

from __future__ import annotations

import threading

import pytest

from assetgen.errors import Cancelled
from assetgen.runtime import open_session, openvino, self_check
from tests.helpers.tiny_package import digest_of, tiny_feeds

INSTALLED = openvino.installed_version() != ""
HAS_BF16 = INSTALLED and "openvino:bf16" in openvino.usable_devices()[0]
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="OPENVINO NOT TESTED: pip install openvino")
needs_bf16 = pytest.mark.skipif(
    not HAS_BF16, reason="OPENVINO BF16 NOT TESTED: no openvino, or a processor without bf16"
)
SIZES = [(2, 2), (4, 4)]


HALVES = ["openvino", pytest.param("openvino:bf16", marks=needs_bf16)]


@needs_openvino
@pytest.mark.parametrize("device", HALVES)
def test_halves_give_the_bytes_of_the_whole(wide, device):
    session = open_session(wide, device, 2)
    assert session.splits
    cases = [(seed, SIZES[seed % 2]) for seed in range(6)]
    wanted = [digest_of(session.run(tiny_feeds(seed, cells=cells))) for seed, cells in cases]
    found: dict[int, list[bytes]] = {}

    def run(numbers: list[int]) -> None:
        for number in numbers:
            seed, cells = cases[number]
            found[number] = digest_of(session.run(tiny_feeds(seed, cells=cells), half=True))

    threads = [threading.Thread(target=run, args=(numbers,)) for numbers in ([0, 1, 2], [3, 4, 5], [2, 0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == wanted
    self_check(session, tiny_feeds())
    assert session.splits
    session.close()
    assert not session.splits


@needs_openvino
def test_halves_compute_at_the_same_time(wide):
    """Neither of two runs by halves waits for the other: each has a request of its own while both compute."""
    session = open_session(wide, "openvino", 2)
    feeds = tiny_feeds(cells=(48, 48))
    session.run(feeds, half=True)
    (compiled,) = session._compiled[True].values()
    busy: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.0005):
            busy.append(compiled.busy)

    watcher = threading.Thread(target=watch)
    runs = [threading.Thread(target=session.run, args=(feeds,), kwargs={"half": True}) for _ in range(2)]
    for thread in (watcher, *runs):
        thread.start()
    for thread in runs:
        thread.join()
    stop.set()
    watcher.join()
    assert max(busy) == 2
    assert (compiled.busy, len(compiled.idle)) == (0, 2)


@needs_openvino
def test_a_half_is_stopped_and_the_other_is_not(wide):
    session, mine, theirs = open_session(wide, "openvino", 2), object(), object()
    feeds, found, stop = tiny_feeds(cells=(64, 64)), {}, threading.Event()
    wanted = digest_of(session.run(feeds))

    def pester() -> None:
        while not stop.wait(0.002):
            session.terminate(theirs)

    def run(owner: object) -> None:
        try:
            found[owner] = digest_of(session.run(feeds, half=True, owner=owner))
        except Cancelled:
            found[owner] = "cancelled"

    threads = [threading.Thread(target=run, args=(owner,)) for owner in (mine, theirs)]
    pest = threading.Thread(target=pester)
    for thread in (pest, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    pest.join()
    assert found == {mine: wanted, theirs: "cancelled"}


@needs_openvino
@pytest.mark.parametrize("joined", [False, True])
def test_one_thread_and_a_joined_session_run_by_no_halves(wide, joined):
    session = open_session(wide, "openvino", 2 if joined else 1)
    if joined:
        session.join()
    assert not session.splits
    with pytest.raises(RuntimeError, match="does not split"):
        session.run(tiny_feeds(), half=True)
    self_check(session, tiny_feeds())
