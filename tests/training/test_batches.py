"""What a step is fed: pure functions of (seed, step), from the right class, inside the picture, the right way up."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from assetgen import latents, layouts
from assetgen.datasets.tiles import Item
from assetgen.manifest import LayoutSpec
from assetgen.training import batches
from assetgen.training.batches import fake_batch, grounded, real_batch, reals_from_items
from assetgen.training.recipe import PictureRecipe
from assetgen.types import MapKind
from tests.helpers.tiny_runs import TEXTURE

EDGE = TEXTURE.crop_px


def item(class_name, pixels, split="train"):
    return Item("x", class_name, "g", split, "X", "", 20.0, {MapKind.BASE_COLOR: pixels}, {})


def gradient(red, height, width):
    """Red names the class, green the row and blue the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([np.full((height, width), red), rows, columns]).astype(np.uint8)


@pytest.fixture(scope="module")
def reals():
    items = [item("brick", gradient(50, 32, 32)), item("metal", gradient(200, 24, 30))]
    return reals_from_items([*items, item("metal", gradient(9, 32, 32), "validation")], replace(TEXTURE, trim_px=0))


def pixels(batch):
    return ((batch + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def flat(inputs):
    spatial = [inputs.grid, *inputs.layouts, *inputs.noises]
    return [inputs.z, inputs.labels, inputs.class_weights, *spatial, torch.from_numpy(inputs.rolls)]


def test_batches_are_functions_of_seed_and_step(reals):
    assert same(real_batch(reals, TEXTURE, 3), real_batch(reals, TEXTURE, 3))
    assert same(flat(fake_batch(reals, TEXTURE, 3)), flat(fake_batch(reals, TEXTURE, 3)))
    other = replace(TEXTURE, seed=2)
    for changed in ((TEXTURE, 4), (other, 3)):
        assert not same(real_batch(reals, TEXTURE, 3), real_batch(reals, *changed))
        assert not same(flat(fake_batch(reals, TEXTURE, 3)), flat(fake_batch(reals, *changed)))
    assert not same(flat(fake_batch(reals, TEXTURE, 3, 0)), flat(fake_batch(reals, TEXTURE, 3, 1)))


def test_crops_come_from_the_right_class_and_never_leave_a_picture(reals):
    for step in range(30):
        batch, labels = real_batch(reals, TEXTURE, step)
        assert batch.shape == (4, 3, EDGE, EDGE)
        assert batch.min() >= -1
        assert batch.max() <= 1
        for crop, label in zip(pixels(batch), labels.tolist(), strict=True):
            assert (crop[:, :, 0] == (50, 200)[label]).all()
            rows, columns = crop[:, :, 1].astype(int), crop[:, :, 2].astype(int)
            for values, limit in ((rows, (32, 24)[label]), (columns, (32, 30)[label])):
                assert sorted(set(values.ravel())) == list(range(values.min(), values.min() + EDGE))
                assert values.max() < limit


def test_directed_classes_are_flipped_but_not_turned(reals):
    turned = {0: set(), 1: set()}
    for step in range(40):
        batch, labels = real_batch(reals, TEXTURE, step)
        for crop, label in zip(pixels(batch), labels.tolist(), strict=True):
            down_first = int(crop[1, 0, 1]) - int(crop[0, 0, 1])
            turned[label].add(down_first)
    assert "brick" in TEXTURE.directed_classes
    assert turned[0] == {1, -1}, "rows stay rows"
    assert turned[1] == {1, -1, 0}


def test_classes_come_up_by_the_root_of_their_number():
    items = [item("brick", gradient(50, 32, 32))] * 9 + [item("metal", gradient(200, 32, 32))]
    assert reals_from_items(items, TEXTURE).class_chances == pytest.approx([0.75, 0.25])


def test_pictures_that_a_crop_does_not_fit_into_are_left_out():
    items = [
        item("brick", gradient(50, 32, 17)),
        item("brick", gradient(50, 32, 18)),
        item("metal", gradient(1, 40, 40)),
    ]
    found = reals_from_items(items, TEXTURE)
    assert [[picture.shape[:2] for picture in pictures] for pictures in found.pictures] == [[(30, 16)], [(30, 30)]]
    assert found.count == 2


def test_fakes_have_the_shapes_of_the_generator(reals):
    inputs = fake_batch(reals, TEXTURE, 0)
    assert inputs.grid.shape == (4, 4, 4, 4)
    assert [tuple(layout.shape) for layout in inputs.layouts] == [(4, 8, 4, 4), (4, 8, 8, 8), (4, 8, 16, 16)]
    assert [tuple(noise.shape) for noise in inputs.noises] == [(4, 1, 4, 4), (4, 1, 8, 8), (4, 1, 16, 16)]
    assert (inputs.class_weights.sum(dim=1) == 1).all()
    assert (inputs.class_weights.argmax(dim=1) == inputs.labels).all()
    assert ((inputs.rolls >= 0) & (inputs.rolls < EDGE)).all()


def test_layouts_in_training_are_those_of_serving(reals):
    """The first of a batch: drawn from its class's spec, rastered and halved as ``kinds.texture`` does it."""
    rng, labels = latents.generator(3, 0), np.array([0, 1])
    made = batches.fake_inputs(latents.generator(3, 0), labels, reals.classes, TEXTURE, 16).layouts
    for n, spec in enumerate((TEXTURE.layouts["brick"], LayoutSpec())):
        served = layouts.pyramid(layouts.raster(rng, layouts.draw_layout(rng, spec), (16, 16)), 3)
        for level, expected in zip(made, served, strict=True):
            assert np.array_equal(level[n].numpy(), expected)


SPRITE = PictureRecipe(
    classes=("gem",), wrap=False, alpha=True, flips="none", scan_px=16, trim_px=0, crop_px=16, batch=64
)


def test_pictures_with_alpha_come_with_four_channels_transparent_being_minus_one():
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:8, 4:8] = 255
    reals = reals_from_items([item("gem", pixels)], SPRITE)
    batch, _ = real_batch(reals, SPRITE, 0)
    assert batch.shape == (64, 4, 16, 16)
    assert (batch[:, :, 4:8, 4:8] == 1).all()
    assert (batch[:, :, 0] == -1).all()
    assert grounded(reals).pictures[0][0].shape == (16, 16, 3)
    assert grounded(reals).pictures[0][0][0, 0].tolist() == [150, 150, 150]


@pytest.mark.parametrize(("flips", "different"), [("none", 1), ("mirror", 2), ("all", 8)])
def test_flips_are_those_that_are_allowed(flips, different):
    pixels = np.dstack([gradient(50, 16, 16), np.full((16, 16), 255, np.uint8)])
    recipe = replace(SPRITE, flips=flips)
    batch, _ = real_batch(reals_from_items([item("gem", pixels)], recipe), recipe, 0)
    assert len({picture.numpy().tobytes() for picture in batch}) == different
    if flips == "mirror":
        assert (batch[:, 1] == batch[:1, 1]).all(), "green names the row"


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (3, 4, 9, 14)])
def test_pictures_are_rolled_by_their_own_places_and_so_are_gradients(shape):
    rng = np.random.default_rng(1)
    pictures = torch.from_numpy(rng.random(shape, dtype=np.float32)).requires_grad_(True)
    rolls = rng.integers(min(shape[2:]), size=(shape[0], 2))
    one_by_one = torch.stack(
        [torch.roll(picture, tuple(roll.tolist()), (1, 2)) for picture, roll in zip(pictures, rolls, strict=True)]
    )
    rolled = batches.rolled(pictures, rolls)
    assert torch.equal(rolled, one_by_one)
    weights = torch.from_numpy(rng.random(shape, dtype=np.float32))
    expected, given = (torch.autograd.grad((made * weights).sum(), pictures)[0] for made in (one_by_one, rolled))
    assert torch.equal(given, expected)
