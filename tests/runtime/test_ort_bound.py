"""ONNX Runtime on arrays that stay where they are: the same bytes, and runs that are stopped or do not fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from assetgen.errors import Cancelled, InternalError
from assetgen.runtime import Binds, open_session
from tests.helpers.tiny_package import digest_of, tiny_feeds


def test_a_session_says_that_it_can(package):
    assert isinstance(open_session(package, "cpu"), Binds)


@pytest.mark.parametrize("half", [False, True])
def test_bound_arrays_get_the_bytes_of_a_run(package, half):
    session, feeds = open_session(package, "cpu", 2), tiny_feeds(cells=(2, 5))
    outputs = {name: np.zeros_like(values) for name, values in session.run(feeds).items()}
    bound = session.bind(feeds, outputs)
    for seed in (0, 1):
        for name, values in tiny_feeds(seed, cells=(2, 5)).items():
            feeds[name][...] = values  # what lies there counts, not what lay there
        session.run_bound(bound, half=half)
        assert digest_of(outputs) == digest_of(session.run(feeds))


def test_a_bound_run_can_be_stopped_and_comes_to_itself(wide):
    session, feeds, mine = open_session(wide, "cpu", 2), tiny_feeds(cells=(96, 96)), object()
    wanted = session.run(feeds)
    outputs = {name: np.zeros_like(values) for name, values in wanted.items()}
    bound, stop = session.bind(feeds, outputs), threading.Event()

    def pester() -> None:
        while not stop.wait(0.002):
            session.terminate(mine)

    pest = threading.Thread(target=pester)
    pest.start()
    with pytest.raises(Cancelled):
        session.run_bound(bound, owner=mine)
    stop.set()
    pest.join()
    session.run_bound(bound)
    assert digest_of(outputs) == digest_of(wanted)


def test_outputs_of_another_size_are_refused(package):
    session, feeds = open_session(package, "cpu"), tiny_feeds()
    outputs = {name: np.zeros((1, 1, 2, 2), np.float32) for name in session.run(feeds)}
    with pytest.raises(InternalError):
        session.run_bound(session.bind(feeds, outputs))
