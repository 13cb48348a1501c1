"""Synthetic textures: kinds that differ in structure, and as many of each as are wanted; numpy only."""

import numpy as np

EDGE_PX = 64


def bytes_of(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def waves(n, seed=0, edge_px=EDGE_PX):
    """Stripes of random direction, phase and colour, with a little noise, ``[n, edge, edge, 3]``."""
    rng = np.random.default_rng([1, seed])
    rows, columns = np.mgrid[:edge_px, :edge_px]
    made = []
    for _ in range(n):
        angle, phase, cycles = rng.uniform(0, np.pi), rng.uniform(0, 6), rng.uniform(4, 8)
        along = (rows * np.sin(angle) + columns * np.cos(angle)) * cycles * 2 * np.pi / edge_px
        color = rng.uniform(20, 80, 3)
        made.append(128 + np.sin(along + phase)[:, :, None] * color + rng.normal(0, 6, (edge_px, edge_px, 3)))
    return bytes_of(np.stack(made))


def blotches(n, seed=0, edge_px=EDGE_PX, cells=16):
    """Smooth random spots of random tint that wrap around, ``[n, edge, edge, 3]``."""
    rng = np.random.default_rng([2, seed])
    cycles = np.fft.fftfreq(edge_px) * edge_px
    keep = np.exp(-((np.hypot(cycles[:, None], cycles) / cells) ** 2))
    spots = np.fft.ifft2(np.fft.fft2(rng.standard_normal((n, edge_px, edge_px))) * keep).real
    spots /= spots.std(axis=(1, 2), keepdims=True)
    tint = rng.uniform(10, 50, (n, 1, 1, 3))
    level = rng.uniform(90, 160, (n, 1, 1, 3))
    return bytes_of(level + spots[..., None] * tint)


def noise(n, seed=0, edge_px=EDGE_PX):
    """Independent grey values, ``[n, edge, edge, 3]``."""
    grey = np.random.default_rng([3, seed]).integers(60, 181, (n, edge_px, edge_px, 1))
    return np.repeat(grey, 3, axis=3).astype(np.uint8)


def blurred(pictures):
    """Means over 3 x 3 px."""
    total = sum(np.roll(pictures.astype(float), (down, right), (1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1))
    return bytes_of(total / 9)
