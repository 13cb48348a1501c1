"""The breaker: three crashes in a minute, a pause, and one more is enough."""

from assetgen.process.breaker import CRASHES, PAUSE_S, WINDOW_S, Breaker


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def test_the_third_crash_within_the_window_opens_it_for_a_while():
    clock = Clock()
    breaker = Breaker(clock)
    assert [breaker.crashed("a") for _ in range(CRASHES)] == [False] * (CRASHES - 1) + [True]
    assert breaker.pause_s("a") == PAUSE_S
    assert breaker.paused() == ["a"]
    assert breaker.pause_s("b") == 0
    clock.now_s += PAUSE_S
    assert breaker.pause_s("a") == 0
    assert breaker.paused() == []
    assert breaker.crashed("a")  # the first ones still count


def test_crashes_far_apart_do_not_add_up():
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(10):
        assert not breaker.crashed("a")
        assert breaker.suspects("a")
        clock.now_s += WINDOW_S
        assert not breaker.suspects("a")
        assert not breaker.crashed("b")


def test_what_is_long_past_takes_no_memory():
    clock = Clock()
    breaker = Breaker(clock)
    for number in range(1000):
        clock.now_s += WINDOW_S / 2
        for _ in range(CRASHES):
            breaker.crashed(number)
    assert len(breaker._crashes) <= 2
    assert len(breaker._until_s) <= 2
