"""Sessions: opened once, closed when there is no room, never under somebody's hands."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from assetgen.kinds import example_inputs
from assetgen.sessions import HELD_BY_GRAPH, Sessions
from tests.helpers.serving import write_model


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [write_model(folder, name) for name in ("a", "b", "c")]


def graph_bytes(package):
    return next(entry.size_bytes for entry in package.manifest.files if entry.path == package.manifest.graph)


@pytest.fixture
def make(packages):
    made = []

    def sessions(models):
        budget = int(models * HELD_BY_GRAPH * max(map(graph_bytes, packages)))
        made.append(Sessions("cpu", 1, budget))
        return made[-1]

    yield sessions
    for one in made:
        one.close()


def open_now(sessions, packages):
    return [package.manifest.id for package in packages if package.digest in sessions.digests]


def test_without_a_budget_all_stay_open(make, packages):
    sessions = make(0)
    for package in packages:
        sessions.session(package)
    assert open_now(sessions, packages) == ["a", "b", "c"]
    assert sessions.held_bytes == HELD_BY_GRAPH * sum(map(graph_bytes, packages))
    assert sessions.session(packages[0]) is sessions.session(packages[0])


def test_the_one_used_longest_ago_makes_room(make, packages):
    sessions = make(2)
    a, b, c = packages
    for package in (a, b, a):
        with sessions.used(package):
            pass
    with sessions.used(c):
        assert open_now(sessions, packages) == ["a", "c"]
    backend = sessions.backend(b)  # known though it is closed
    assert open_now(sessions, packages) == ["a", "c"]
    with sessions.used(b) as session:
        assert session.backend == backend
        assert open_now(sessions, packages) == ["b", "c"]


def test_one_in_use_is_never_closed_even_without_room(make, packages, caplog):
    sessions = make(1)
    a, b, _ = packages
    inputs = example_inputs(a, 32)
    with sessions.used(a) as session:
        before = session.run(inputs)
        with sessions.used(b):
            assert open_now(sessions, packages) == ["a", "b"]
        assert "more than the budget" in caplog.text
        after = session.run(inputs)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    with sessions.used(packages[2]):
        assert open_now(sessions, packages) == ["c"]


def test_a_retired_one_is_closed_when_its_last_user_leaves(make, packages):
    sessions = make(0)
    with sessions.used(packages[0]) as session:
        sessions.retire(packages[0].digest)
        assert open_now(sessions, packages) == []
        session.run(example_inputs(packages[0], 32))
    with pytest.raises(RuntimeError, match="closed"):
        session.run(example_inputs(packages[0], 32))
    with sessions.used(packages[0]) as again:
        assert again is not session


def test_a_pinned_one_is_retired_when_the_last_pin_is_out(make, packages):
    sessions, digest = make(0), packages[0].digest
    session = sessions.session(packages[0])
    for _ in range(2):
        sessions.pin(digest)
    sessions.retire(digest)
    sessions.unpin(digest)
    assert sessions.session(packages[0]) is session
    sessions.unpin(digest)
    assert open_now(sessions, packages) == []
    with pytest.raises(RuntimeError, match="closed"):
        session.run(example_inputs(packages[0], 32))


def test_a_pin_does_not_keep_room_from_others(make, packages):
    sessions = make(1)
    sessions.session(packages[0])
    sessions.pin(packages[0].digest)
    sessions.session(packages[1])
    assert open_now(sessions, packages) == ["b"]
    sessions.unpin(packages[0].digest)


def test_many_at_once_under_a_small_budget_all_get_theirs(make, packages):
    sessions = make(1)

    def work(number):
        package = packages[number % 3]
        with sessions.used(package) as session:
            return session.backend, len(session.run(example_inputs(package, 32)))

    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(work, range(24)))
    assert len(answers) == 1
