"""What tests of the process of a device share: waiting for something to come true, and inputs with a fault in them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psutil

from assetgen.kinds import example_inputs
from assetgen.package import VerifiedPackage
from assetgen.types import FloatArray

SOON_S = 120.0


def until(true: Callable[[], object]) -> None:
    """Wait until something holds; fails if that takes too long."""
    end_s = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < end_s, "it did not come true"
        time.sleep(0.01)


def stand_still(pid: int) -> psutil.Process:
    """Stop a process until it is resumed or killed: what it was given it does not end meanwhile."""
    process = psutil.Process(pid)
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED)
    return process


def has_ended(process: psutil.Process) -> bool:
    """Whether nothing of it runs any more; its parent may still have to be told."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it went between the two questions
        return True


def inputs_of(package: VerifiedPackage, fault: float | None = None, edge_px: int = 32) -> dict[str, FloatArray]:
    """Inputs of a tiny model; ``fault`` is one of ``faulty_device``."""
    inputs = example_inputs(package, edge_px)
    if fault is not None:
        inputs["truncation"] = np.full_like(inputs["truncation"], fault)
    return inputs
