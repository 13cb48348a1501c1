"""What the frequencies of textures tell: the profile of power, artefacts of a grid, and repetition; numpy only.

Crops do not close, so every picture is faded to its mean at the border (a Hann window) before it is transformed, tiles
too: both sides must be treated alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assetgen.metrics.pictures import ByteArray, check_pair, grey_of
from assetgen.types import FloatArray

PERIODS_PX = (2, 4, 8)
SMALLEST_PX = 32
FLOOR = 1e-12


def power_spectrum(pictures: ByteArray) -> NDArray[np.float64]:
    """Power ``[edge, edge]`` of square pictures, frequency 0 in the corner: the geometric mean over pictures.

    Each picture is scaled to the power 1 first. What is in every picture stands out, what is in one hardly.

    Raises:
        ValueError: not square, below 32 px, or not a multiple of 8 px.
    """
    grey = grey_of(pictures).astype(np.float64)
    edge = grey.shape[1]
    if grey.shape[1] != grey.shape[2] or edge < SMALLEST_PX or edge % max(PERIODS_PX):
        raise ValueError(f"pictures of {grey.shape[2]} x {edge} px; squares of 32, 40, 48 … px are needed")
    power = np.abs(np.fft.fft2(_faded(grey))) ** 2
    total = power.sum(axis=(1, 2), keepdims=True)
    # A picture of one colour has no power to scale.
    mean: NDArray[np.float64] = np.exp(np.log(power / np.maximum(total, 1e-12) + FLOOR).mean(axis=0))
    return mean


def radial_profile(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power at 1, 2, … edge / 2 cycles a picture, over all directions."""
    edge = len(power)
    cycles = np.fft.fftfreq(edge) * edge
    radius = np.rint(np.hypot(cycles[:, None], cycles)).astype(int).ravel()
    counts = np.bincount(radius)
    profile: NDArray[np.float64] = np.bincount(radius, power.ravel())[1 : edge // 2 + 1] / counts[1 : edge // 2 + 1]
    return profile


def spectrum_distance(fakes: ByteArray, reals: ByteArray) -> float:
    """Mean absolute difference of the profiles in dB."""
    check_pair(fakes, reals)
    a, b = (10 * np.log10(radial_profile(power_spectrum(side))) for side in (fakes, reals))
    return float(np.abs(a - b).mean())


def grid_artefact(pictures: ByteArray) -> float:
    """Power at periods of 2, 4 and 8 px along the axes, by that at frequencies nearby on the same axis; the largest.

    About 1 without artefacts: networks that enlarge in steps of 2 leave peaks there (Odena et al. 2016). Give many
    pictures: of one the figure is mostly chance.
    """
    power = power_spectrum(pictures)
    edge = len(power)
    # Both axes; frequencies above edge / 2 mirror those below.
    lines = (power[0], power[:, 0])
    largest = 0.0
    for line in lines:
        for period in PERIODS_PX:
            at = edge // period
            # The window spreads a peak over its neighbours: compare with those two and three away.
            near = np.array([line[(at + step) % edge] for step in (-3, -2, 2, 3)])
            around = float(np.exp(np.log(near).mean()))
            largest = max(largest, float(line[at]) / around)
    return largest


def repetition(pictures: ByteArray) -> FloatArray:
    """Highest peak of the autocorrelation away from the origin, ``[n]``: 1 for a pattern that repeats exactly.

    Peaks are local maxima at shifts up to half the edge; 0 where there is none.
    """
    grey = grey_of(pictures).astype(np.float64)
    n, height, width = grey.shape
    window = _window(height, width)
    faded = _faded(grey)
    padded = (2 * height, 2 * width)
    correlation = np.fft.irfft2(np.abs(np.fft.rfft2(faded, padded)) ** 2, padded)
    overlap = np.fft.irfft2(np.abs(np.fft.rfft2(window, padded)) ** 2, padded)
    # Shifts of -half … half, without the share that is lost as the windows part.
    rows, columns = (np.arange(-(edge // 2), edge // 2 + 1) for edge in (height, width))
    correlation = correlation[:, rows[:, None], columns] / np.maximum(overlap[rows[:, None], columns], 1e-9)
    origin = correlation[:, height // 2, width // 2, None, None]
    correlation = correlation / np.maximum(origin, 1e-9)
    inner = correlation[:, 1:-1, 1:-1]
    peak = np.ones(inner.shape, dtype=bool)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            if (down, right) != (1, 1):
                shifted = correlation[:, down : down + inner.shape[1], right : right + inner.shape[2]]
                peak &= inner > shifted
    peak[:, height // 2 - 1, width // 2 - 1] = False
    found: FloatArray = np.where(peak, inner, 0).reshape(n, -1).max(axis=1).astype(np.float32)
    return np.clip(found, 0, 1)


def _window(height: int, width: int) -> NDArray[np.float64]:
    # Half a step in, so that it is symmetric and no pixel is lost.
    rows, columns = (np.sin((np.arange(edge) + 0.5) * np.pi / edge) ** 2 for edge in (height, width))
    window: NDArray[np.float64] = rows[:, None] * columns
    return window


def _faded(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    window = _window(*grey.shape[1:])
    mean = (grey * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    faded: NDArray[np.float64] = (grey - mean) * window
    return faded
