"""Pools where the system gives no more threads: what was submitted is done by those that are there."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from assetgen.threads import Pool


@pytest.fixture
def no_more(monkeypatch):
    """Lets no thread be started from now on."""

    def forbid(error):
        def start(self):
            raise error

        monkeypatch.setattr(threading.Thread, "start", start)

    return forbid


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_work_is_done_by_the_threads_that_are_there(no_more, error):
    with Pool(8, "few") as pool:
        no_more(error)
        done = [pool.submit(threading.get_ident) for _ in range(20)]
        assert len({each.result(30) for each in done}) == 1


def test_without_any_thread_there_is_no_pool(no_more):
    no_more(RuntimeError("can't start new thread"))
    with pytest.raises(RuntimeError, match="start new thread"):
        Pool(8, "none")


def test_threads_come_as_they_are_needed_and_bear_the_name():
    meet = threading.Barrier(3)
    with Pool(3, "some") as pool:
        for each in [pool.submit(meet.wait, 30) for _ in range(3)]:
            each.result(30)
        names = {thread.name for thread in threading.enumerate() if thread.name.startswith("some_")}
    assert len(names) == 3


def test_the_library_still_raises_where_it_has_laid_the_work_ready(no_more):
    """What ``Pool`` is for; when this fails, it is not needed any more."""
    with ThreadPoolExecutor(8) as pool:
        assert pool.submit(int).result(30) == 0
        ready, go = threading.Event(), threading.Event()
        busy = pool.submit(lambda: ready.set() or go.wait(30))
        assert ready.wait(30)
        no_more(RuntimeError("can't start new thread"))
        made = []
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.submit(made.append, 1)
        go.set()
        busy.result(30)
        pool.shutdown()
        assert made == [1]
