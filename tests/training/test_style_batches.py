"""Crops of domains: the same for the same step, on the grid of small pictures, never turned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.datasets import tiles
from assetgen.errors import DataInvalid
from assetgen.training.batches import Reals
from assetgen.training.style_batches import (
    _crop,
    dither,
    domain_batch,
    domains_from_items,
    fixed_crops,
    mixed_batch,
    spread_crops,
)
from assetgen.types import MapKind
from tests.helpers.tiny_styles import style_recipe

RECIPE = style_recipe("fastcut", batch=8)


def reals_of(*pictures):
    names = tuple("abcdef"[: len(pictures)])
    return Reals(
        names, tuple((entry,) for entry in pictures), (("g",),) * len(names), np.full(len(names), 1 / len(names))
    )


@pytest.fixture(scope="module")
def items(data):
    return tiles.load(data)


def test_domains_stand_in_the_order_of_the_recipe(items):
    there, back = (
        domains_from_items(items, style_recipe("fastcut", source=a, target=b))
        for a, b in (("brick", "metal"), ("metal", "brick"))
    )
    assert there.classes == back.classes[::-1] == ("brick", "metal")
    assert there.groups == back.groups[::-1]


def test_a_star_takes_every_class_unless_some_are_named(items):
    assert domains_from_items(items, style_recipe("stargan")).classes == ("brick", "metal")
    named = style_recipe("stargan", classes=("metal", "brick"))
    assert domains_from_items(items, named).classes == ("metal", "brick")


def test_a_domain_without_pictures_is_refused(items):
    with pytest.raises(DataInvalid, match="no picture to train on for slate"):
        domains_from_items(items, style_recipe("fastcut", target="slate"))
    bricks = [item for item in items if item.class_name == "brick"]
    with pytest.raises(DataInvalid, match="two classes or more"):
        domains_from_items(bricks, style_recipe("stargan"))


def test_wide_pictures_are_shrunk(items):
    reals = domains_from_items(items, RECIPE)
    assert {pixels.shape for entry in reals.pictures for pixels in entry} <= {(40, 40, 3), (36, 36, 3)}


def test_a_batch_depends_on_seed_step_and_domain_only(items):
    reals = domains_from_items(items, RECIPE)
    batch = domain_batch(reals, 0, RECIPE, 5)
    assert batch.shape == (8, 3, 40, 40)
    assert float(batch.abs().max()) <= 1
    assert torch.equal(batch, domain_batch(reals, 0, RECIPE, 5))
    others = [(0, RECIPE, 6), (1, RECIPE, 5), (0, style_recipe("fastcut", batch=8, seed=2), 5)]
    assert all(not torch.equal(batch, domain_batch(reals, *other)) for other in others)


def test_a_mixed_batch_holds_every_domain_and_leads_everywhere(items):
    reals = domains_from_items(items, RECIPE)
    batches = [mixed_batch(reals, RECIPE, step) for step in range(8)]
    pairs = {pair for _, labels, targets in batches for pair in zip(labels.tolist(), targets.tolist(), strict=True)}
    assert pairs == {(0, 0), (0, 1), (1, 0), (1, 1)}
    again = mixed_batch(reals, RECIPE, 3)
    assert all(torch.equal(first, second) for first, second in zip(batches[3], again, strict=True))


def test_a_mixed_batch_shows_what_its_labels_say():
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    pictures, labels, _ = mixed_batch(reals_of(black, white), RECIPE, 0)
    assert torch.equal(pictures[:, 0, 0, 0], 2.0 * labels - 1)


def test_crops_are_mirrored_but_never_turned():
    rows, columns = np.mgrid[:60, :60]
    ramp = np.dstack([4 * rows, 4 * columns, 0 * rows]).astype(np.uint8)
    batch = torch.cat([domain_batch(reals_of(ramp), 0, RECIPE, step) for step in range(4)])
    assert bool((batch[:, 0].diff(dim=1) > 0).all())
    rightwards = batch[:, 1].diff(dim=2) > 0
    assert {bool(entry) for entry in rightwards.flatten(1).all(dim=1)} == {True, False}
    assert bool((rightwards.flatten(1).all(dim=1) | ~rightwards.flatten(1).any(dim=1)).all())


@settings(deadline=None, max_examples=50)
@given(
    st.integers(5, 50), st.integers(5, 50), st.integers(2, 12), st.floats(0, 1, exclude_max=True), st.floats(0, 0.999)
)
def test_small_pictures_are_enlarged_by_whole_factors_on_their_own_grid(height, width, quarter, row, column):
    crop_px = 4 * quarter
    pixels = np.arange(height * width * 3, dtype=np.uint32).reshape(height, width, 3)
    crop = _crop(pixels, crop_px, row, column)
    assert crop.shape == (crop_px, crop_px, 3)
    factor = -(-crop_px // min(height, width))
    small = crop[::factor, ::factor]
    assert np.array_equal(small.repeat(factor, 0).repeat(factor, 1)[:crop_px, :crop_px], crop)
    top, left = divmod(int(small[0, 0, 0]) // 3, width)
    assert np.array_equal(small, pixels[top : top + len(small), left : left + len(small)])


def test_tiles_are_repeated_at_their_own_scale(items):
    small = [replace(item, maps={MapKind.BASE_COLOR: item.maps[MapKind.BASE_COLOR][:16, :12]}) for item in items]
    reals = domains_from_items(small, style_recipe("fastcut", tiled=("metal",)))
    bricks, metals = reals.pictures
    assert {pixels.shape for pixels in bricks} == {(16, 12, 3)}
    for pixels in metals:
        assert min(pixels.shape[:2]) >= 40 + 12
        assert np.array_equal(pixels, np.roll(pixels, 16, axis=0))
        assert np.array_equal(pixels[:, :12], pixels[:, 12:24])
    with pytest.raises(DataInvalid, match="tiled: slate is none of the domains"):
        domains_from_items(items, style_recipe("fastcut", tiled=("slate",)))


def test_tiles_that_hold_a_crop_stay_as_they_are(items):
    plain, tiled = (domains_from_items(items, style_recipe("fastcut", crop_px=36, border_px=0, wrap=False, **changes))
                    for changes in ({}, {"tiled": ("metal",)}))  # fmt: skip
    assert [pixels.shape for pixels in plain.pictures[1]] == [pixels.shape for pixels in tiled.pictures[1]]


def test_a_larger_batch_holds_other_crops(items):
    reals = domains_from_items(items, RECIPE)
    batches = [domain_batch(reals, 0, RECIPE, 5, times) for times in (1, 2)]
    assert [len(batch) for batch in batches] == [8, 16]
    assert not torch.equal(batches[0], batches[1][:8])


def test_spread_crops_show_every_picture_about_as_often():
    pictures = tuple(np.full((40, 40, 3), 10 * n, np.uint8) for n in range(9))
    reals = Reals(("a",), (pictures,), (tuple("abcdefghi"),), np.ones(1))
    crops = spread_crops(reals, 0, 21, 32, seed=3)
    assert torch.equal(crops, spread_crops(reals, 0, 21, 32, seed=3))
    assert not torch.equal(crops, spread_crops(reals, 0, 21, 32, seed=4))
    _, counts = np.unique(crops[:, 0, 0, 0].numpy(), return_counts=True)
    assert sorted(counts) == [2] * 6 + [3] * 3


def test_fixed_crops_are_the_same_at_every_call_and_spread_over_the_domain():
    pictures = tuple(np.full((40, 40, 3), 10 * n, np.uint8) for n in range(9))
    reals = Reals(("a",), (pictures,), (tuple("abcdefghi"),), np.ones(1))
    crops = fixed_crops(reals, 0, 4, 32)
    assert torch.equal(crops, fixed_crops(reals, 0, 4, 32))
    assert ((crops[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [0, 20, 40, 60]
    assert len(fixed_crops(reals, 0, 12, 32)) == 12


def test_dither_is_noise_of_one_level_that_the_generator_alone_decides():
    picture = torch.zeros(2, 3, 32, 32)
    noisy = dither(picture, torch.Generator().manual_seed(1))
    assert torch.equal(noisy, dither(picture, torch.Generator().manual_seed(1)))
    assert float(noisy.std()) == pytest.approx(1 / 127.5, rel=0.05)
