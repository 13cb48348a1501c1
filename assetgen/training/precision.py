"""Which arithmetic a run takes: bf16 saves time where a device multiplies it and takes many times as long elsewhere."""

from __future__ import annotations

import functools
from typing import Protocol

import torch


class Precise(Protocol):
    """A recipe that names a precision."""

    @property
    def precision(self) -> str: ...


def settled(precision: str, device: str) -> str:
    """``bf16`` or ``fp32``: what ``auto`` means on ``device``, or what was asked for."""
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device.partition(":")[0]) else "fp32"


def autocast(recipe: Precise, device: str) -> torch.autocast:
    """Mixed precision if the recipe asks for it."""
    enabled = settled(recipe.precision, device) == "bf16"
    return torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=enabled)


@functools.cache
def has_bf16(kind: str) -> bool:
    """Whether devices of this kind (``cpu``, ``cuda``) multiply bf16 themselves.

    Emulated on a processor with AVX2 alone, a step of the texture recipe takes 7 times as long as in fp32.
    """
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(known for name, known in torch.cpu.get_capabilities().items() if "bf16" in name)
