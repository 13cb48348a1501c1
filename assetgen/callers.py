"""Who calls, how soon it matters, and how much each may ask for; standard library and errors only."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum

from assetgen.errors import QuotaExceeded

MINUTE_S = 60.0


class Priority(IntEnum):
    """How soon a call matters; lower goes first."""

    PREVIEW = 0
    GENERATE = 1
    BATCH = 2


@dataclass(frozen=True)
class Caller:
    """One who may call.

    Attributes:
        name: stands in the log, never in an answer; empty where nobody has to say who he is.
        max_calls: calls under way at once; 0 leaves it to the service's own limit.
        mpx_per_minute: 2**20 pixels asked for in a minute, on average; 0 sets no limit.
    """

    name: str = ""
    max_calls: int = 0
    mpx_per_minute: float = 0.0


@dataclass(frozen=True)
class Terms:
    """How a call is treated beside others; what it gets never depends on it.

    Attributes:
        flow: calls of one flow share what one is due, such as all of a token or of a connection; empty: a flow alone.
        supersede_key: a newer call of the same caller with the same key ends this one; empty: none does.
    """

    caller: Caller = Caller()
    flow: str = ""
    priority: Priority = Priority.GENERATE
    supersede_key: str = ""


PLAIN_TERMS = Terms()


@dataclass
class _Bucket:
    left_px: float
    seen_s: float


class Allowances:
    """How many pixels each caller may still ask for: a bucket a name, full at first, filled again within a minute."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def spend(self, caller: Caller, px: int, now_s: float) -> None:
        """Take ``px`` from what ``caller`` has left; more than a whole bucket empties it for as long as it takes.

        Raises:
            QuotaExceeded: there is not that much now.
        """
        full_px = caller.mpx_per_minute * 2**20
        if not full_px:
            return
        with self._lock:
            bucket = self._buckets.setdefault(caller.name, _Bucket(full_px, now_s))
            bucket.left_px = min(full_px, bucket.left_px + (now_s - bucket.seen_s) * full_px / MINUTE_S)
            bucket.seen_s = now_s
            if bucket.left_px < min(px, full_px):
                wait_s = (min(px, full_px) - bucket.left_px) * MINUTE_S / full_px
                raise QuotaExceeded(
                    f"this token may ask for {caller.mpx_per_minute:.4g} Mpx a minute; the call wants "
                    f"{px / 2**20:.4g} Mpx, {max(bucket.left_px, 0.0) / 2**20:.4g} Mpx are left",
                    hint=f"try again in {wait_s:.1f} s, or ask the operator for more",
                    retry_after_s=wait_s,
                    metadata={"mpx_per_minute": f"{caller.mpx_per_minute:.4g}", "wanted_px": str(px)},
                )
            bucket.left_px -= px
