"""The alarm rings in time, again when told to, and leaves nothing behind."""

import gc
import math
import threading
import time
import weakref

from assetgen.alarm import Alarm


class Clock:
    def __init__(self, again=()):
        self.rung, self.again, self.enough = [], list(again), threading.Event()
        self.alarm = Alarm(self.ring)

    def ring(self, now_s):
        self.rung.append(now_s)
        if not self.again:
            self.enough.set()
            return math.inf
        return now_s + self.again.pop()


def test_it_rings_at_its_moment_and_not_before():
    clock = Clock()
    moment_s = time.monotonic() + 0.05
    clock.alarm.set(moment_s + 1000)
    clock.alarm.set(moment_s)
    assert clock.enough.wait(60)
    assert clock.rung[0] >= moment_s
    clock.alarm.close()


def test_it_rings_again_when_it_is_told_to():
    clock = Clock(again=[0.01, 0.01])
    clock.alarm.set(time.monotonic())
    assert clock.enough.wait(60)
    assert len(clock.rung) == 3
    clock.alarm.close()


def test_it_ends_with_its_owner():
    clock = Clock()
    thread, seen = clock.alarm._thread, weakref.ref(clock)
    alarm = clock.alarm
    del clock
    gc.collect()
    assert seen() is None
    alarm.set(time.monotonic())
    thread.join(60)
    assert not thread.is_alive()
