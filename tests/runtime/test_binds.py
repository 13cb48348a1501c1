"""Sessions on arrays that stay where they are: the same bytes, and runs that are stopped or do not fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from assetgen.errors import Cancelled, InternalError
from assetgen.runtime import Binds, open_session, openvino
from tests.helpers.tiny_package import digest_of, tiny_feeds

INSTALLED = openvino.installed_version() != ""
HAS_BF16 = INSTALLED and "openvino:bf16" in openvino.usable_devices()[0]
DEVICES = [
    "cpu",
    pytest.param("openvino", marks=pytest.mark.skipif(not INSTALLED, reason="OPENVINO NOT TESTED")),
    pytest.param("openvino:bf16", marks=pytest.mark.skipif(not HAS_BF16, reason="OPENVINO BF16 NOT TESTED")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_a_session_says_that_it_can(package, device):
    assert isinstance(open_session(package, device), Binds)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_bound_arrays_get_the_bytes_of_a_run_and_no_later_ones(wide, device, half):
    session, feeds = open_session(wide, device, 2), tiny_feeds(cells=(2, 5))
    outputs = {name: np.zeros_like(values) for name, values in session.run(feeds).items()}
    bound = session.bind(feeds, outputs)
    for seed in (0, 1):
        for name, values in tiny_feeds(seed, cells=(2, 5)).items():
            feeds[name][...] = values  # what lies there counts, not what lay there
        session.run_bound(bound, half=half)
        kept = digest_of(outputs)
        assert kept == digest_of(session.run(feeds, half=half))
    session.run(tiny_feeds(2, cells=(2, 5)), half=half)
    assert digest_of(outputs) == kept
    wrong = session.bind(feeds, {name: np.zeros((1, 1, 2, 2), np.float32) for name in outputs})
    with pytest.raises(InternalError):
        session.run_bound(wrong, half=half)
    assert digest_of(session.run(feeds, half=half)) == kept


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
