"""Asking again while a server says that later makes sense; standard library and errors only."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from assetgen.errors import AssetgenError

T = TypeVar("T")

# Many who were refused at once shall not come back at once.
SPREAD = 0.25
LEAST_S = 0.05


def patiently(ask: Callable[[], T], patience_s: float, sleep: Callable[[float], object] = time.sleep) -> T:
    """What ``ask`` returns, asked again after the time that its error names, for ``patience_s`` seconds at most.

    Raises:
        AssetgenError: of the last time; at once if trying again makes no sense.
    """
    end_s = time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except AssetgenError as error:
            if error.retry_after_s is None:
                raise
            wait_s = max(error.retry_after_s, LEAST_S) * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311
            if time.monotonic() + wait_s > end_s:
                raise
        sleep(wait_s)
