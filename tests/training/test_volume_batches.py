"""Batches of volumes, their augmentation, and the recipe that they follow."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from assetgen.datasets.volumes import VolumeItem
from assetgen.errors import ConfigInvalid, DataInvalid
from assetgen.models.volume import fits
from assetgen.training.cli import RECIPES
from assetgen.training.recipe import recipe_from_toml
from assetgen.training.volume_batches import (
    augment_volumes,
    fake_latents,
    real_volumes,
    volumes_from_items,
)
from assetgen.training.volume_recipe import VolumeRecipe
from tests.helpers.tiny_meshes import RECIPE

EDGE = 16


def item(class_name, number, split="train"):
    grid = np.full((4, EDGE, EDGE, EDGE), 255, dtype=np.uint8)
    grid[0, 3:6, 2:8, 3:9] = 0
    grid[1] = number
    return VolumeItem(f"{class_name}{number}", class_name, str(number), split, "CC0-1.0", "A", grid)


ITEMS = [*(item("ball", n) for n in range(9)), item("crate", 1), item("crate", 2, "validation")]


def test_classes_come_up_by_the_root_of_their_count():
    volumes = volumes_from_items(ITEMS, RECIPE)
    assert [len(grids) for grids in volumes.grids] == [9, 1]
    assert volumes.class_chances == pytest.approx([0.75, 0.25])


def test_a_batch_is_a_function_of_seed_and_step():
    volumes = volumes_from_items(ITEMS, RECIPE)
    first, labels = real_volumes(volumes, RECIPE, 5)
    again, _ = real_volumes(volumes, RECIPE, 5)
    assert torch.equal(first, again)
    assert first.shape == (4, 4, EDGE, EDGE, EDGE)
    assert (first.min(), first.max()) == (-1, 1)
    assert labels.dtype == torch.int64
    assert not torch.equal(first, real_volumes(volumes, RECIPE, 6)[0])
    z = fake_latents(volumes, RECIPE, 5).z
    assert torch.equal(z, fake_latents(volumes, RECIPE, 5).z)
    assert not torch.equal(z, fake_latents(volumes, RECIPE, 5, stream=1).z)


def test_only_classes_without_a_front_are_turned_and_no_model_is_tilted():
    volumes = volumes_from_items(ITEMS, RECIPE)
    shapes = {"ball": set(), "crate": set()}
    for step in range(30):
        made, labels = real_volumes(volumes, RECIPE, step)
        for volume, label in zip(made, labels, strict=True):
            inside = np.argwhere(volume[0].numpy() < 0)
            low, high = inside.min(axis=0), inside.max(axis=0)
            assert (low[1], high[1]) == (2, 7)
            shapes[volumes.classes[label]].add((tuple(map(int, low)), tuple(map(int, high))))
    assert len(shapes["ball"]) == 8
    assert shapes["crate"] == {((3, 2, 3), (5, 7, 8)), ((3, 2, 7), (5, 7, 12))}


def test_an_edge_or_class_that_the_data_lacks_is_told():
    with pytest.raises(DataInvalid, match="16 cells along an edge, the recipe 24"):
        volumes_from_items(ITEMS, replace(RECIPE, volume_edge=24))
    with pytest.raises(DataInvalid, match="boat"):
        volumes_from_items(ITEMS, replace(RECIPE, classes=("ball", "boat")))


def test_augmentation_moves_by_whole_cells_and_fills_with_outside():
    x = real_volumes(volumes_from_items(ITEMS, RECIPE), RECIPE, 0)[0]
    rng = torch.Generator().manual_seed(3)
    moved = augment_volumes(x, 1.0, 2, rng)
    assert moved.shape == x.shape
    assert torch.equal((moved[:, 0] < 0).sum(dim=(1, 2, 3)), (x[:, 0] < 0).sum(dim=(1, 2, 3)))
    assert not torch.equal(moved[:, 0], x[:, 0])
    assert torch.equal(augment_volumes(x, 0.0, 2, rng), x)


def test_augmentation_passes_gradients_on():
    x = torch.zeros(2, 4, 8, 8, 8, requires_grad=True)
    augment_volumes(x, 1.0, 1, torch.Generator().manual_seed(0)).sum().backward()
    assert x.grad.min() >= 0
    assert x.grad.max() == 1


@pytest.mark.parametrize("name", ["mesh", "mesh-cpu"])
def test_the_recipes_that_are_shipped_are_valid(name):
    assert fits(recipe_from_toml(VolumeRecipe, RECIPES / f"{name}.toml").volume_edge)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"volume_edge": 34}, "volume_edge: 34"),
        ({"batch": 6}, "batch: 6"),
        ({"loss": "wasserstein"}, "loss: wasserstein"),
        ({"adversarial": 0.0, "rebuild": 0.0}, "nothing would be learned"),
        ({"adversarial_from": 0.5, "rebuild": 0.0}, "adversarial_from"),
        ({"latent": 0}, "latent: 0"),
        ({"augment_shift": 9}, "augment_shift: 9"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, what):
    with pytest.raises(ConfigInvalid, match=what):
        replace(RECIPE, **changes)


@pytest.mark.parametrize("edge", range(8, 140))
def test_the_recipe_and_the_networks_agree_on_sizes(edge):
    if fits(edge):
        assert replace(RECIPE, volume_edge=edge).volume_edge == edge
    else:
        with pytest.raises(ConfigInvalid):
            replace(RECIPE, volume_edge=edge)
