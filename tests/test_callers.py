"""Allowances: never more than a minute's worth at once, never more than the rate in the long run."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.callers import Allowances, Caller
from assetgen.errors import QuotaExceeded

MPX = 2**20


def test_a_minutes_worth_at_once_then_as_much_as_comes_in():
    allowances, anna = Allowances(), Caller("anna", mpx_per_minute=6)
    for _ in range(6):
        allowances.spend(anna, MPX, 100.0)
    with pytest.raises(QuotaExceeded) as caught:
        allowances.spend(anna, MPX, 100.0)
    assert caught.value.retry_after_s == pytest.approx(10.0)
    allowances.spend(anna, MPX, 110.0)
    with pytest.raises(QuotaExceeded):
        allowances.spend(anna, MPX, 119.9)


def test_callers_have_allowances_of_their_own_and_some_have_no_limit():
    allowances = Allowances()
    allowances.spend(Caller("anna", mpx_per_minute=1), MPX, 0.0)
    allowances.spend(Caller("ben", mpx_per_minute=1), MPX, 0.0)
    for _ in range(100):
        allowances.spend(Caller("carl"), 1000 * MPX, 0.0)


def test_more_than_a_minutes_worth_is_taken_from_a_full_allowance_and_paid_back():
    allowances, anna = Allowances(), Caller("anna", mpx_per_minute=1)
    allowances.spend(anna, 3 * MPX, 0.0)
    with pytest.raises(QuotaExceeded) as caught:
        allowances.spend(anna, MPX, 60.0)
    assert caught.value.retry_after_s == pytest.approx(120.0)
    allowances.spend(anna, MPX, 180.0)


@given(st.lists(st.tuples(st.integers(1, 2 * MPX), st.floats(0, 30)), max_size=40))
def test_in_the_long_run_the_rate_is_kept(asked):
    allowances, anna, now_s, taken = Allowances(), Caller("anna", mpx_per_minute=2), 0.0, 0
    for px, pause_s in asked:
        now_s += pause_s
        with suppress(QuotaExceeded):
            allowances.spend(anna, px, now_s)
            taken += px
        assert taken <= 2 * MPX * (1 + now_s / 60) + 1
