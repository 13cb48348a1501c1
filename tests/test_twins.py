"""The same thing asked for twice at once: made once, whoever is stopped meanwhile."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from assetgen.turns import Ticket
from assetgen.twins import Twins


def wait_for(condition):
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


class Slow:
    """Work that goes on when it is told to, and counts how often it was begun."""

    def __init__(self, fault=None):
        self.begun, self.go, self.fault = 0, threading.Event(), fault

    def __call__(self, tell):
        self.begun += 1
        tell("first")
        assert self.go.wait(60)
        if self.fault:
            raise self.fault
        tell("second")


def ask(twins, key, work, ticket):
    told = []
    twins.make(key, ticket, work, told.append)
    return told


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_equal_keys_at_once_are_made_once_and_told_to_all(pool):
    twins, work = Twins(), Slow()
    answers = [pool.submit(ask, twins, {"seed": 1}, work, Ticket()) for _ in range(4)]
    wait_for(lambda: twins.following == 3)
    work.go.set()
    assert [answer.result(60) for answer in answers] == [["first", "second"]] * 4
    assert work.begun == 1
    assert ask(twins, {"seed": 1}, work, Ticket()) == ["first", "second"]
    assert work.begun == 2  # nothing is kept


def test_other_keys_are_made_apart(pool):
    twins, works = Twins(), [Slow(), Slow()]
    answers = [pool.submit(ask, twins, key, work, Ticket()) for key, work in enumerate(works)]
    wait_for(lambda: all(work.begun for work in works))
    for work in works:
        work.go.set()
    assert [answer.result(60) for answer in answers] == [["first", "second"]] * 2


def test_a_follower_takes_over_from_one_that_is_stopped(pool):
    twins, lead = Twins(), Ticket()
    stopped, whole = Slow(KeyError("stopped")), Slow()
    first = pool.submit(ask, twins, 1, stopped, lead)
    wait_for(lambda: stopped.begun)
    second = pool.submit(ask, twins, 1, whole, Ticket())
    wait_for(lambda: twins.following == 1)
    lead.error = KeyError("stopped")
    whole.go.set()
    stopped.go.set()
    with pytest.raises(KeyError):
        first.result(60)
    assert second.result(60) == ["first", "second"]


def test_a_fault_of_the_work_itself_is_everybodys(pool):
    twins, work = Twins(), Slow(ZeroDivisionError())
    answers = [pool.submit(ask, twins, 1, work, Ticket()) for _ in range(3)]
    wait_for(lambda: twins.following == 2)
    work.go.set()
    for answer in answers:
        with pytest.raises(ZeroDivisionError):
            answer.result(60)
    assert work.begun == 1


def test_a_follower_that_is_called_off_leaves_the_other_alone(pool):
    twins, work, follower = Twins(), Slow(), Ticket()
    first = pool.submit(ask, twins, 1, work, Ticket())
    wait_for(lambda: work.begun)
    second = pool.submit(ask, twins, 1, work, follower)
    wait_for(lambda: twins.following == 1)
    follower.error = KeyError("off")
    twins.call_off(follower)
    with pytest.raises(KeyError, match="off"):
        second.result(60)
    work.go.set()
    assert first.result(60) == ["first", "second"]


def test_a_follower_lends_its_priority(pool):
    twins, work, lead = Twins(), Slow(), Ticket(priority=2)
    first = pool.submit(ask, twins, 1, work, lead)
    wait_for(lambda: work.begun)
    second = pool.submit(ask, twins, 1, work, Ticket(priority=0))
    wait_for(lambda: twins.following == 1)
    assert lead.priority == 0
    work.go.set()
    assert first.result(60) == second.result(60)
