"""Places: never more inside than there are, and it is always the oldest that goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from assetgen.server.places import Places


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.integers(0, 7))))
def test_the_oldest_makes_way(most, steps):
    places, expected = Places(most), []
    for enters, who in steps:
        if not enters:
            places.leave(who)
            expected = [other for other in expected if other != who]
            continue
        expected += [] if who in expected else [who]
        gone = expected.pop(0) if len(expected) > most else None
        assert places.enter(who) == gone
