"""What of this machine's processor changes speed and bytes: usable cores and instruction family; imports psutil only.

Runtimes choose their kernels by the processor's instructions, and other kernels round otherwise.
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import sys
from pathlib import Path

import psutil

# Families for which fp32 kernels differ, the best first, with the flag Linux shows and the number Windows asks by.
_X86_FAMILIES = (("avx512", "avx512f", 41), ("avx2", "avx2", 40), ("avx", "avx", 39))


def usable_cores() -> int:
    """Physical cores this process may use: at most those of its affinity mask and of its container's quota."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, min(cores, _container_cores()))


def instruction_family() -> str:
    """Name of the platform and its processor family, such as ``linux-x86_64-avx512``."""
    machine = {"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    detail = _x86_family() if machine == "x86_64" else _apple_chip() if sys.platform == "darwin" else ""
    return "-".join(part for part in (sys.platform, machine, detail) if part)


def _container_cores() -> int:
    try:
        quota_us, period_us = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return sys.maxsize  # no control groups of version 2, so no quota that could be read
    return sys.maxsize if quota_us == "max" else math.ceil(int(quota_us) / int(period_us))


def _x86_family() -> str:
    if sys.platform == "win32":
        has = ctypes.windll.kernel32.IsProcessorFeaturePresent
        return next((name for name, _, number in _X86_FAMILIES if has(number)), "sse2")
    if sys.platform == "darwin":
        names = (("avx512", b"hw.optional.avx512f"), ("avx2", b"hw.optional.avx2_0"))
        return next((name for name, key in names if _sysctl(key) == b"\1\0\0\0"), "avx")
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("flags")[2].partition("\n")[0]
    return next((name for name, flag, _ in _X86_FAMILIES if flag in flags.split()), "sse2")


def _apple_chip() -> str:
    chip = _sysctl(b"machdep.cpu.brand_string").rstrip(b"\0").decode("ascii", "replace")
    return chip.lower().replace(" ", "-")


def _sysctl(key: bytes) -> bytes:
    """A value of macOS's sysctl; empty when there is no such key."""
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(size.value)
    failed = ctypes.CDLL(None).sysctlbyname(key, buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
    return b"" if failed else buffer.raw[: size.value]
