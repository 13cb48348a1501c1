"""Layouts: cells that close on any torus, as many and as large as asked for, at every resolution alike."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen import latents
from assetgen.layouts import Layout, draw_layout, pyramid, raster
from assetgen.manifest import PATTERNS, LayoutSpec

SEEDS = st.integers(0, 2**32 - 1)
NEAR, ACROSS, DOWN, FIRST_VALUE, STREAKS = 1, 2, 3, 4, 7
CELLS = PATTERNS[1:]
PINNED = {
    "stacked": "ee2468499930",
    "running": "34efe700a2e8",
    "scattered": "4b85a95e903d",
    "cells": "02db5f20234f",
}
BRICKS = Layout("running", pitch=8.0, aspect=2.0, jitter=0.0, turned=False)


def lay(layout, seed=0, texels=(64, 64)):
    return raster(latents.generator(seed, 0), layout, texels)


def cells_of(channels):
    """Number of different cells: each has three normal numbers of its own; one alone is sometimes drawn twice."""
    return len(np.unique(channels[FIRST_VALUE : FIRST_VALUE + 3].reshape(3, -1), axis=1).T)


@st.composite
def any_layout(draw):
    return Layout(
        draw(st.sampled_from(PATTERNS)),
        pitch=draw(st.floats(2, 80)),
        aspect=draw(st.floats(0.2, 20)),
        jitter=draw(st.floats(0, 0.45)),
        turned=draw(st.booleans()),
    )


@given(any_layout(), SEEDS, st.integers(1, 70), st.integers(1, 70))
def test_every_layout_is_finite_and_within_bounds(layout, seed, rows, columns):
    channels = lay(layout, seed, (rows, columns))
    assert channels.shape == (8, rows, columns)
    assert channels.dtype == np.float32
    assert channels.flags.c_contiguous
    assert np.isfinite(channels).all()
    assert channels[:2].min() >= 0
    assert channels[:2].max() <= 1
    assert np.abs(channels[2:4]).max() <= 1 + 1e-4
    assert np.allclose(channels[0], channels[NEAR] ** 4, atol=1e-5)
    if layout.pattern == "plain":
        assert not channels[:STREAKS].any()


@pytest.mark.parametrize("pattern", CELLS)
@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_the_border_of_the_torus_is_like_any_other_place(pattern, jitter):
    """Steps across the border are as large as steps inside, over many layouts; a seam would stand out."""
    borders, insides = [], []
    for seed in range(60):
        near = lay(Layout(pattern, 9.0, 1.7, jitter, turned=seed % 2 == 1), seed)[NEAR]
        for axis in (0, 1):
            steps = np.abs(near - np.roll(near, 1, axis)).mean(axis=1 - axis)
            borders.append(steps[0])
            insides.append(steps[1:].mean())
    assert np.mean(borders) == pytest.approx(np.mean(insides), rel=0.15)


@given(SEEDS, st.floats(4, 16), st.floats(1, 4), st.sampled_from(CELLS))
def test_cells_have_the_size_asked_for(seed, pitch, aspect, pattern):
    layout = Layout(pattern, pitch, aspect, jitter=0.0, turned=False)
    rows, columns = round(96 / pitch), max(round(160 / (pitch * aspect)), 1)
    if pattern in ("running", "cells"):
        rows = 2 * round(96 / pitch / 2)
    assert cells_of(lay(layout, seed, (96, 160))) == rows * columns


@pytest.mark.parametrize("pattern", CELLS)
def test_there_is_never_more_than_a_cell_a_texel(pattern):
    """However small a model and a request make them: their number is memory."""
    rng = Mock(wraps=latents.generator(0, 0))
    raster(rng, Layout(pattern, 0.01, 0.1, 0.4, turned=False), (24, 32))
    assert rng.standard_normal.call_args.args == ((3, 24 * 32),)


def test_twice_the_torus_has_four_times_the_cells_of_the_same_size():
    assert cells_of(lay(BRICKS)) == 8 * 4
    assert cells_of(lay(BRICKS, texels=(128, 128))) == 4 * 8 * 4


def test_running_bond_shifts_every_other_row_by_half_a_brick():
    channels = lay(BRICKS)
    starts = [np.flatnonzero(np.diff(line, append=line[0]) < -1) % 16 for line in channels[ACROSS][4::8]]
    offsets = [int(start[0]) for start in starts]
    assert all((start == start[0]).all() for start in starts)
    assert {abs(a - b) for a, b in itertools.pairwise(offsets)} == {8}
    stacked = lay(replace(BRICKS, pattern="stacked"))[ACROSS]
    assert (stacked == stacked[0]).all()


def test_turned_layouts_run_down():
    across = lay(BRICKS)
    turned = lay(replace(BRICKS, turned=True))
    assert np.array_equal(turned, across.transpose(0, 2, 1))


def test_without_jitter_cells_are_hexagons_with_six_neighbours():
    channels = lay(Layout("cells", 8.0, 1.0, 0.0, turned=False))
    ids = np.unique(channels[FIRST_VALUE], return_inverse=True)[1].reshape(64, 64)
    pairs = {tuple(sorted(p)) for a in (0, 1) for p in zip(ids.ravel(), np.roll(ids, 1, a).ravel(), strict=True)}
    counts = np.bincount([side for pair in pairs if pair[0] != pair[1] for side in pair])
    assert (counts == 6).all()


def test_joints_lie_between_cells():
    for pattern in CELLS:
        channels = lay(Layout(pattern, 10.0, 1.5, 0.3, turned=False), seed=3, texels=(80, 80))
        changes = np.zeros((80, 80), dtype=bool)
        for axis in (0, 1):
            step = channels[FIRST_VALUE] != np.roll(channels[FIRST_VALUE], 1, axis)
            changes |= step | np.roll(step, -1, axis)
        assert channels[NEAR][changes].min() > np.exp(-0.5), "a texel beside another cell is near a joint"
        assert channels[NEAR].min() < 0.5


def test_values_and_streaks_are_noise():
    many = np.stack([lay(Layout("scattered", 8.0, 6.0, 0.1, turned=False), seed) for seed in range(60)])
    for channel in (FIRST_VALUE, FIRST_VALUE + 1, FIRST_VALUE + 2, STREAKS):
        assert many[:, channel].mean() == pytest.approx(0, abs=0.1)
        assert many[:, channel].var() == pytest.approx(1, abs=0.15)
    streaks = many[:, STREAKS]
    along, across = ((streaks * np.roll(streaks, 1, axis)).mean() for axis in (2, 1))
    assert along > 0.85
    assert abs(across) < 0.05


def test_no_place_is_special():
    mean = np.mean([lay(BRICKS, seed)[NEAR] for seed in range(300)], axis=0)
    assert np.ptp(mean) < 0.2


@given(any_layout(), SEEDS)
def test_coarser_levels_are_means_and_roll_with_the_finest(layout, seed):
    finest = lay(layout, seed, (32, 48))
    levels = pyramid(finest, 3)
    rolled = pyramid(np.roll(finest, (4, 8), axis=(1, 2)), 3)
    assert [level.shape for level in levels] == [(8, 8, 12), (8, 16, 24), (8, 32, 48)]
    assert np.allclose(levels[0], finest.reshape(8, 8, 4, 12, 4).mean(axis=(2, 4)), atol=1e-5)
    for i, (level, other) in enumerate(zip(levels, rolled, strict=True)):
        assert np.array_equal(np.roll(level, (1 << i, 2 << i), axis=(1, 2)), other)


@given(SEEDS)
def test_drawn_layouts_suit_the_class(seed):
    spec = LayoutSpec(shares=(0, 0, 1, 0, 1), pitch=(6, 9), aspect=(2, 3), jitter=(0.1, 0.2), turned=0)
    layout = draw_layout(latents.generator(seed, 0), spec)
    assert layout.pattern in ("running", "cells")
    assert 6 <= layout.pitch <= 9
    assert 2 <= layout.aspect <= 3
    assert 0.1 <= layout.jitter <= 0.2
    assert not layout.turned


def test_shares_are_shares():
    spec = LayoutSpec(shares=(0, 1, 0, 3, 0))
    drawn = [draw_layout(latents.generator(seed, 0), spec).pattern for seed in range(400)]
    assert set(drawn) == {"stacked", "scattered"}
    assert drawn.count("scattered") / 400 == pytest.approx(0.75, abs=0.08)


def test_asking_for_a_pattern_or_a_scale_changes_nothing_else():
    spec = LayoutSpec()
    plain = draw_layout(latents.generator(5, 0), spec)
    rng = latents.generator(5, 0)
    assert draw_layout(rng, spec, "cells", 2.0) == replace(plain, pattern="cells", pitch=2 * plain.pitch)
    after = latents.generator(5, 0)
    draw_layout(after, spec)
    assert rng.random() == after.random()


@pytest.mark.parametrize("pattern", CELLS)
def test_the_cells_of_a_seed_are_pinned(pattern):
    """Seeds that users keep must go on meaning the same. Pinned are the cells' numbers: no rounding moves them."""
    channels = lay(Layout(pattern, 8.0, 2.0, 0.2, turned=False), seed=7)
    digest = hashlib.sha256(channels[FIRST_VALUE].tobytes()).hexdigest()
    assert digest[:12] == PINNED[pattern]
