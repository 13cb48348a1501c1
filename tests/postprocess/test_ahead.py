"""Work done ahead by threads: in order, bounded, with the errors of whoever did it."""

import threading
import time

import pytest

from assetgen.postprocess import ahead as module
from assetgen.postprocess.ahead import ahead


@pytest.fixture(params=[1, 2, 5])
def cores(request, monkeypatch):
    monkeypatch.setattr(module, "_cores", lambda: request.param)
    module._pool.cache_clear()
    yield request.param
    module._pool.cache_clear()


def test_what_comes_is_in_the_order_of_the_items(cores):
    def slow_first(n):
        time.sleep(0.02 if n % 3 == 0 else 0)
        return n * n

    assert list(ahead(slow_first, range(20))) == [(n, n * n) for n in range(20)]
    assert list(ahead(slow_first, [])) == []


def test_as_many_are_worked_on_at_once_as_there_are_cores(cores):
    together, most, lock = [0], [0], threading.Lock()

    def work(_):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        time.sleep(0.01)
        with lock:
            together[0] -= 1

    list(ahead(work, range(4 * cores)))
    assert most[0] == cores


def test_items_are_taken_no_further_ahead_than_needed(cores):
    taken = []

    def items():
        for n in range(50):
            taken.append(n)
            yield n

    made = ahead(lambda n: time.sleep(0.001), items())
    for wanted in range(50):
        assert next(made)[0] == wanted
        assert len(taken) <= wanted + 2 * cores + 1


def test_work_goes_on_while_an_item_takes_long_to_come():
    """Two wait for the third, whose maker must not wait for the first."""
    module._pool.cache_clear()
    done = []

    def items():
        yield from range(2)
        time.sleep(0.2)
        done.append(time.monotonic())
        yield 2

    ended = {}

    def work(n):
        time.sleep(0.05)
        ended[n] = time.monotonic()

    assert [n for n, _ in ahead(work, items())] == [0, 1, 2]
    assert module._cores() == 1 or max(ended[0], ended[1]) < done[0]


def test_an_error_comes_in_its_turn_and_ends_it(cores):
    def fail_at_three(n):
        if n == 3:
            raise ValueError("three")
        return n

    made = ahead(fail_at_three, range(9))
    assert [next(made) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(ValueError, match="three"):
        next(made)


def test_closing_it_calls_off_what_has_not_begun(cores):
    begun = []

    def work(n):
        begun.append(n)
        time.sleep(0.05)

    made = ahead(work, range(100))
    next(made)
    made.close()
    time.sleep(0.1)
    assert len(begun) <= 2 * cores + 1
