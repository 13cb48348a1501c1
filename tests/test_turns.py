"""Turns: never more than there are places, strictly in order, and nobody waits for ever."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen import turns as turns_module
from assetgen.turns import Ticket, Turns


@pytest.fixture(autouse=True)
def nobody_ages(monkeypatch):
    """However long this machine stands still."""
    monkeypatch.setattr(turns_module, "AGEING_S", 1e9)


def wait_for(condition):
    end_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.001)


def queued(turns, tickets, work):
    """Threads that wait for a turn, in the order of ``tickets``."""
    threads = []
    for position, ticket in enumerate(tickets):

        def take(ticket=ticket):
            try:
                with turns.taken(ticket):
                    work(ticket)
            except KeyError:
                pass

        threads.append(threading.Thread(target=take))
        threads[-1].start()
        wait_for(lambda position=position: turns.waiting == position + 1)
    return threads


@given(st.integers(1, 3), st.sets(st.integers(0, 7)))
def test_order_is_kept_and_whoever_is_called_off_gets_no_turn(places, off):
    turns, served, tickets = Turns(places), [], [Ticket() for _ in range(8)]
    holding = [turns.taken(Ticket()) for _ in range(places)]
    for held in holding:
        held.__enter__()
    threads = queued(turns, tickets, served.append)
    for number in off:
        tickets[number].error = KeyError()
        turns.call_off(tickets[number])
    wait_for(lambda: turns.waiting == 8 - len(off))
    holding[0].__exit__(None, None, None)
    for thread in threads:
        thread.join()
    assert served == [ticket for number, ticket in enumerate(tickets) if number not in off]
    for held in holding[1:]:
        held.__exit__(None, None, None)
    assert turns.waiting == 0
    with turns.taken(Ticket()):
        pass


def test_never_more_than_there_are_places():
    turns, inside, most, lock = Turns(2), 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(50):
            with turns.taken(Ticket()):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0002)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_a_place_is_given_back_after_an_error():
    turns = Turns(1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns.taken(Ticket()):
            raise ZeroDivisionError


def test_an_error_set_before_is_raised_at_once():
    turns, ticket = Turns(1), Ticket()
    ticket.error = KeyError("gone")
    turns.call_off(ticket)  # does nothing: it does not wait
    with pytest.raises(KeyError), turns.taken(ticket):
        raise AssertionError
    with turns.taken(Ticket()):
        pass


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8))
def test_those_who_need_several_places_are_not_passed_by(needs):
    turns, served, most, inside, lock = Turns(3), [], 0, 0, threading.Lock()

    def work(number, places):
        nonlocal most, inside
        with turns.taken(tickets[number], places):
            with lock:
                served.append(number)
                inside += places
                most = max(most, inside)
            time.sleep(0.0005)
            with lock:
                inside -= places

    tickets = [Ticket() for _ in needs]
    with turns.taken(Ticket(), 3):
        assert turns.used == 3
        threads = []
        for number, places in enumerate(needs):
            threads.append(threading.Thread(target=work, args=(number, places)))
            threads[-1].start()
            wait_for(lambda number=number: turns.waiting == number + 1)
    for thread in threads:
        thread.join()
    assert sorted(served) == list(range(len(needs)))
    # Who is let in together may come to the list in any order; but who needs all places comes after all before it.
    for number in (number for number, places in enumerate(needs) if places == 3):
        assert sorted(served[: number + 1]) == list(range(number + 1))
    assert most <= 3
    assert turns.used == 0


def served_in_order(turns, tickets):
    """The numbers of ``tickets``, in the order in which one place after the other lets them in."""
    served = []
    with turns.taken(Ticket()):
        threads = queued(turns, tickets, served.append)
    for thread in threads:
        thread.join()
    return [tickets.index(ticket) for ticket in served]


def test_better_priorities_go_first_whenever_they_came():
    tickets = [Ticket(priority=priority) for priority in (2, 1, 2, 0, 1, 0)]
    assert served_in_order(Turns(1), tickets) == [3, 5, 1, 4, 0, 2]


def test_waiting_makes_up_for_priority(monkeypatch):
    monkeypatch.setattr(turns_module, "AGEING_S", 0.0005)
    tickets = [Ticket(priority=2), Ticket(priority=1), Ticket(priority=0)]
    turns, served = Turns(1), []
    with turns.taken(Ticket()):
        threads = queued(turns, tickets, served.append)
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    assert served == tickets


def test_short_work_passes_long_work_but_only_as_much_of_it_as_long_work_is():
    """A ticket of cost 4 came first; three of cost 1 are done before it, not seven."""
    tickets = [Ticket(cost=4.0, flow="long"), *(Ticket(flow="short") for _ in range(7))]
    assert served_in_order(Turns(1), tickets).index(0) == 3


def test_many_tickets_of_one_flow_get_no_more_than_one_of_another():
    tickets = [*(Ticket(flow="many") for _ in range(4)), Ticket(flow="few"), Ticket(flow="few")]
    order = served_in_order(Turns(1), tickets)
    assert order == [0, 4, 1, 5, 2, 3]


def test_what_a_flow_has_had_counts_until_nobody_is_there():
    turns = Turns(1)
    assert served_in_order(turns, [Ticket(flow="a", cost=3.0), Ticket(flow="a"), Ticket(flow="b")]) == [2, 0, 1]
    assert served_in_order(turns, [Ticket(flow="a"), Ticket(flow="b")]) == [0, 1]


def take(turns, ticket, served):
    with turns.taken(ticket):
        served.append(ticket)


def test_reserved_places_are_for_the_first_priority_alone():
    turns, late = Turns(2, reserved=1), threading.Event()
    with turns.taken(Ticket(priority=1)):
        thread = threading.Thread(target=take, args=(turns, Ticket(priority=1), []))
        thread.start()
        wait_for(lambda: turns.waiting == 1)
        with turns.taken(Ticket(priority=0)):
            assert turns.used == 2
            late.set()
        assert turns.waiting == 1
    thread.join()
    assert turns.used == 0


def test_calling_off_the_first_lets_in_those_it_held_up():
    turns, wide, narrow, entered = Turns(2), Ticket(), Ticket(), threading.Event()

    def wait_wide():
        with pytest.raises(KeyError), turns.taken(wide, 2):
            raise AssertionError

    def wait_narrow():
        with turns.taken(narrow):
            entered.set()

    with turns.taken(Ticket()):
        threads = [threading.Thread(target=wait_wide), threading.Thread(target=wait_narrow)]
        for number, thread in enumerate(threads):
            thread.start()
            wait_for(lambda number=number: turns.waiting == number + 1)
        assert not entered.is_set()
        wide.error = KeyError()
        turns.call_off(wide)
        assert entered.wait(60)
    for thread in threads:
        thread.join()
