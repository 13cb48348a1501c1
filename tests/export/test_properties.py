"""Properties of pictures: values worked out by hand, and what must not change them."""

import math

import numpy as np
import pytest
import torch

from export.properties import PROPERTIES, lab, measure

NAMES = list(PROPERTIES)


def flat(*rgb):
    return torch.tensor(rgb, dtype=torch.float32)[None, :, None, None].expand(1, 3, 8, 8) * 2 - 1


def of(pictures, name):
    return measure(pictures)[:, NAMES.index(name)]


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),  # the primaries of sRGB, from tables
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb, expected):
    assert np.allclose(lab(flat(*rgb))[0, :, 0, 0], expected, atol=0.05)


def test_means_of_a_flat_colour():
    found = dict(zip(NAMES, measure(flat(1, 0, 0))[0].tolist(), strict=True))
    assert found["brightness"] == pytest.approx(53.24, abs=0.05)
    assert found["warmth"] == pytest.approx(67.20, abs=0.05)
    assert found["tint"] == pytest.approx(80.09, abs=0.05)
    assert found["saturation"] == pytest.approx(math.hypot(80.09, 67.20), abs=0.05)


def wave(cycles, amplitude=0.2, edge=64):
    line = torch.sin(torch.arange(edge) * (2 * math.pi * cycles / edge))
    return (amplitude * line).expand(1, 3, edge, edge)


@pytest.mark.parametrize("turned", [False, True])
def test_fineness_counts_octaves(turned):
    pictures = [wave(cycles).transpose(2, 3) if turned else wave(cycles) for cycles in (4, 8, 16)]
    low, middle, high = (float(of(picture, "fineness")) for picture in pictures)
    assert low == pytest.approx(math.log2(4 / 64), abs=0.1)  # sRGB bends the wave a little
    assert middle - low == pytest.approx(1, abs=0.1)
    assert high - middle == pytest.approx(1, abs=0.1)


def test_contrast_counts_doublings_and_fineness_does_not_see_it():
    faint, strong = wave(8, 0.1), wave(8, 0.2)
    assert float(of(strong, "contrast") - of(faint, "contrast")) == pytest.approx(1, abs=0.02)
    assert float(of(strong, "fineness") - of(faint, "fineness")) == pytest.approx(0, abs=0.05)


def test_rolling_a_picture_changes_no_property():
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.allclose(measure(picture), measure(torch.roll(picture, (3, 5), dims=(2, 3))), atol=1e-3)


def test_gradients_are_finite_for_a_flat_picture():
    for value in (-1.0, 0.0, 1.0):
        picture = torch.full((1, 3, 8, 8), value, requires_grad=True)
        measure(picture).sum().backward()
        assert torch.isfinite(picture.grad).all()
