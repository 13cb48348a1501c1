"""Load in an open loop: what is drawn is a Poisson process, and no wait is left out."""

import itertools
import math
import statistics
import threading
import time
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.load.arrivals import Answer, connected, ideal_latencies, moments, offer, quantile

SEEDS = st.integers(0, 2**32)
MOMENTS = st.lists(st.integers(0, 1000), max_size=30).map(sorted)
LATE = pytest.mark.parametrize("seed", range(5))


@given(st.floats(0.1, 200), st.floats(0.01, 5), SEEDS)
def test_moments_are_in_order_within_the_run_and_the_same_for_a_seed(rate, seconds, seed):
    drawn = moments(rate, seconds, seed)
    assert drawn == sorted(drawn)
    assert all(0 < moment < seconds for moment in drawn)
    assert moments(rate, seconds, seed) == drawn


@given(st.floats(0.1, 100), st.floats(0.1, 5), SEEDS)
def test_a_longer_run_begins_as_the_shorter_one(rate, seconds, seed):
    short = moments(rate, seconds, seed)
    assert moments(rate, 2 * seconds, seed)[: len(short)] == short


@LATE
def test_gaps_are_exponential(seed):
    drawn = moments(50.0, 200.0, seed)
    gaps = sorted(b - a for a, b in itertools.pairwise(drawn))
    count = len(gaps)
    assert abs(count - 10_000) < 4 * 100  # four standard deviations
    # Kolmogorov and Smirnov: of a thousand right samples one is further off than 1.95 over the root of their number
    off = max(abs((number + 0.5) / count - (1 - math.exp(-50.0 * gap))) for number, gap in enumerate(gaps))
    assert off < 1.95 / math.sqrt(count)


@LATE
def test_counts_of_seconds_vary_as_much_as_their_mean_and_do_not_depend_on_each_other(seed):
    drawn = moments(20.0, 1000.0, seed)
    counts = [0] * 1000
    for moment in drawn:
        counts[int(moment)] += 1
    assert statistics.variance(counts) / statistics.mean(counts) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 1000))
    assert abs(statistics.correlation(counts[1:], counts[:-1])) < 4 / math.sqrt(1000)


def test_a_queue_worked_out_by_hand():
    assert ideal_latencies([0, 1, 5, 6, 6], 2) == [2, 3, 2, 3, 5]
    assert ideal_latencies([], 2) == []


@given(MOMENTS, st.integers(1, 50))
def test_the_ideal_queue_runs_one_call_at_a_time_and_never_rests_while_one_waits(due, service):
    latencies = ideal_latencies(due, service)
    ends = [moment + latency for moment, latency in zip(due, latencies, strict=True)]
    begins = [end - service for end in ends]
    for number, begin in enumerate(begins):
        assert begin >= due[number]
        before = ends[number - 1] if number else 0
        assert begin == max(due[number], before)


@given(MOMENTS, st.integers(1, 50))
def test_calls_that_never_meet_take_the_service_alone(due, service):
    spread = [number * 51 + moment % 2 for number, moment in enumerate(due)]
    assert ideal_latencies(spread, service) == [service] * len(spread)


@given(st.lists(st.floats(0, 100) | st.just(math.inf), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_least_value_that_so_many_do_not_exceed(values, share):
    found = quantile(values, share)
    assert found in values

    def enough(limit):
        return sum(value <= limit for value in values) >= share * len(values)

    assert enough(found)
    assert not any(enough(value) for value in values if value < found)


def test_quantiles_by_hand():
    values = [*range(1, 99), math.inf, math.inf]
    assert (quantile(values, 0.5), quantile(values, 0.95), quantile(values, 0.98)) == (50, 95, 98)
    assert quantile(values, 0.99) == math.inf
    assert quantile([7.0], 0.5) == 7.0


def test_a_wait_for_a_slow_server_is_counted_for_all_who_would_have_waited():
    slow_s, calls = 0.3, []

    def call(limit_s):
        if not calls:
            time.sleep(slow_s)
        calls.append(limit_s)

    due = [0.0, 0.02, 0.04, 0.06]
    answers = offer([call], due, 60.0, ())
    assert len(calls) == len(due)
    for moment, answer in zip(due, answers, strict=True):
        assert answer.latency_s >= slow_s - moment  # a client in a closed loop would have begun to count now
        assert answer.latency_s == pytest.approx(answer.end_s - moment)


def test_calls_run_side_by_side_over_as_many_connections_as_there_are():
    both = threading.Barrier(2, timeout=30)
    answers = offer([lambda _: both.wait()] * 2, [0.0, 0.0], 60.0, ())
    assert all(math.isfinite(answer.latency_s) for answer in answers)


def test_the_connection_that_was_used_last_is_used_first():
    used = []

    def when_idle():
        for number in range(3):
            while len(used) < number:
                time.sleep(0.001)
            time.sleep(0.05)  # until its connection is free again
            yield 0.0

    offer([lambda _: used.append("cold"), lambda _: used.append("warm")], when_idle(), 60.0, ())
    assert used == ["warm"] * 3


def test_a_failure_is_no_answer_and_an_unknown_one_ends_the_run():
    def call(limit_s):
        raise ConnectionError

    (answer,) = offer([call], [0.0], 60.0, (OSError,))
    assert answer.latency_s == math.inf
    with pytest.raises(ConnectionError):
        offer([call], [0.0], 60.0, (ValueError,))


def test_an_answer_that_comes_too_late_is_none_and_who_has_given_up_does_not_ask():
    asked = []

    def call(limit_s):
        asked.append(limit_s)
        time.sleep(1.2)

    answers = offer([call], [0.0, 0.01, 0.02], 1.0, ())
    assert [answer.latency_s for answer in answers] == [math.inf] * 3
    assert len(asked) == 1
    assert 0 < asked[0] <= 1.0


def test_connections_have_been_used_before_they_are_handed_out():
    used = []

    @contextmanager
    def connect():
        number = len(used)
        used.append(0)

        def call(limit_s):
            used[number] += 1

        yield call
        used[number] = "closed"

    with connected(connect, 3) as calls:
        assert used == [1, 1, 1]
        calls[1](1.0)
        assert used == [1, 2, 1]
    assert used == ["closed"] * 3


def test_answers_know_when_the_last_one_came():
    answers = offer([lambda _: None], [0.0, 0.05], 60.0, ())
    assert [type(answer) for answer in answers] == [Answer] * 2
    assert answers[1].end_s >= 0.05
