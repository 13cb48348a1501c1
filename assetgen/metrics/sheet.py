"""Figures as a picture: real crops, generated ones, and what in training is most like these; numpy and Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from assetgen.metrics.figures import Report, Subject
from assetgen.metrics.memorisation import Nearest
from assetgen.metrics.pictures import ByteArray

REALS = 4
FAKES = 8
LABEL_PX = 140
GAP_PX = 2


def sheet(subject: Subject, report: Report) -> Image.Image:
    """Two rows a class: training, validation and generated pictures; below the last the nearest training crops."""
    step = subject.fakes[0].shape[1] + GAP_PX
    size = (LABEL_PX + (2 * REALS + FAKES) * step, len(subject.classes) * 2 * step)
    canvas = Image.new("RGB", size, (32, 32, 32))
    draw = ImageDraw.Draw(canvas)
    for label, name in enumerate(subject.classes):
        top = label * 2 * step
        draw.text((4, top + step // 2), name[:22], fill=(255, 255, 255))
        draw.text((4, top + step + step // 2), "nearest in training", fill=(160, 160, 160))
        fakes = subject.fakes[label][:FAKES]
        reals = [*subject.train[label][:REALS], *subject.validation[label][:REALS]]
        for column, pixels in enumerate([*reals, *fakes]):
            canvas.paste(Image.fromarray(pixels), (LABEL_PX + column * step, top))
        for n in range(len(fakes)):
            crop = _nearest(subject, label, report.nearest[label], n)
            canvas.paste(Image.fromarray(crop), (LABEL_PX + (len(reals) + n) * step, top + step))
    return canvas


def _nearest(subject: Subject, label: int, near: Nearest, n: int) -> ByteArray:
    """The training crop around the window that was found, which is half as wide."""
    edge = subject.fakes[label].shape[1]
    source = subject.pictures[label][near.picture[n]]
    corner = near.corner[n] - edge // 4
    top, left = (int(np.clip(at, 0, max(0, size - edge))) for at, size in zip(corner, source.shape[:2], strict=True))
    return np.ascontiguousarray(source[top : top + edge, left : left + edge])
