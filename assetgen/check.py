"""Run-time checks of arrays at the door of public functions: type checkers do not see shapes and dtypes."""

from __future__ import annotations

from typing import Any


def shape(array: Any, pattern: str, name: str = "array") -> None:
    """Raise ValueError unless ``array.shape`` fits ``pattern``.

    Args:
        array: anything with a ``shape``.
        pattern: one word a dimension, such as ``"n 3 h w"``; a number must match, a name stands for any size and for
            the same size wherever it is repeated.
        name: what to call the array in the error.
    """
    words = pattern.split()
    sizes = tuple(array.shape)
    bound: dict[str, int] = {}
    fits = len(words) == len(sizes)
    for word, size in zip(words, sizes, strict=False):
        wanted = int(word) if word.isdigit() else bound.setdefault(word, size)
        fits = fits and wanted == size
    if not fits:
        raise ValueError(f"{name}: got shape {tuple(int(size) for size in sizes)}, expected [{pattern}]")


def in_range(array: Any, low: float, high: float, name: str = "array") -> None:
    """Raise ValueError unless every value is finite and in [low, high]."""
    smallest, largest = float(array.min()), float(array.max())
    if not (low <= smallest and largest <= high):  # also false for NaN
        raise ValueError(f"{name}: values reach from {smallest} to {largest}, expected [{low}, {high}]")
