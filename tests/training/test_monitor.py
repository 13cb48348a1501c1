"""Looking at samples tells collapse, dead inputs and memorising from their absence."""

import numpy as np
import pytest
import torch

from assetgen.training import monitor
from assetgen.training.batches import Reals
from assetgen.training.recipe import PictureRecipe
from tests.helpers.tiny_runs import make_task, picture

RECIPE = PictureRecipe(crop_px=16, scan_px=32)
CLASSES = ("brick", "metal")


def reals(seed=0):
    pictures = tuple(tuple(picture(100 * seed + 10 * hue + i, 24, hue) for i in range(6)) for hue in range(2))
    return Reals(CLASSES, pictures, (("a",) * 6,) * 2, np.array([0.5, 0.5]))


def crops(which, labels, offset=0):
    made = [monitor.all_crops(which, int(label), 16, 6, 16)[(n + offset) % 6] for n, label in enumerate(labels)]
    return torch.stack(made)


def look(paint, score=lambda x, _: x.mean(dim=(1, 2, 3)), held_out=None, recipe=RECIPE):
    judge = lambda pictures, labels: (score(pictures, labels), None)  # noqa: E731
    return monitor.look(paint, torch.nn.Identity(), judge, reals(), held_out, recipe)


def test_a_generator_that_shows_reals_has_their_variety():
    found = look(lambda labels, latent_seed, seed: crops(reals(), labels, latent_seed))
    assert found["diversity.brick"] == pytest.approx(1, abs=0.3)
    assert found["latent_effect"] > 0.01
    assert found["label_effect"] > 0.01
    assert "memorised" not in found


def test_one_picture_for_every_seed_is_a_collapse():
    found = look(
        lambda labels, latent_seed, seed: crops(reals(), labels.sort().values * 0)[:1].expand(len(labels), -1, -1, -1)
    )
    assert found["diversity.brick"] < 0.05
    assert found["latent_effect"] == 0
    assert found["label_effect"] == 0


def test_labels_count_only_where_they_are_told():
    paint = lambda labels, latent_seed, seed: crops(reals(), labels, latent_seed)  # noqa: E731
    untold = PictureRecipe(crop_px=16, scan_px=32, conditioning="none")
    assert "label_effect" not in look(paint, recipe=untold)


def test_a_discriminator_that_knows_its_reals_by_heart_is_seen():
    known, unseen = reals(), reals(seed=7)
    shown = torch.cat([monitor.all_crops(known, label, 16, 8, 16) for label in range(2)]).flatten(1)

    def by_heart(pictures, _):
        return (torch.cdist(pictures.flatten(1), shown).min(dim=1).values < 1e-3).float()

    paint = lambda labels, latent_seed, seed: torch.zeros(len(labels), 3, 16, 16)  # noqa: E731
    assert look(paint, by_heart, unseen)["memorised"] == pytest.approx(1)
    fair = lambda pictures, _: pictures.std(dim=(1, 2, 3))  # noqa: E731
    assert abs(look(paint, fair, unseen)["memorised"]) < 0.3


def test_the_same_crops_at_every_call_also_shrunk():
    first, second = (monitor.all_crops(reals(), 1, edge, 8, 16) for edge in (16, 16))
    assert torch.equal(first, second)
    small = monitor.all_crops(reals(), 1, 4, 8, 16)
    torch.testing.assert_close(small, torch.nn.functional.avg_pool2d(first, 4))


def test_looking_changes_nothing_that_is_trained(data):
    task = make_task("biggan", data)
    trained = (task.generator, task.discriminator)
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in trained]
    task.monitor()
    assert task.discriminator.training
    for module, state in zip(trained, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
