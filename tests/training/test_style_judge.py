"""The judge of looks and the figures it takes part in."""

import numpy as np
import pytest
import torch

from assetgen.training.batches import Reals
from assetgen.training.style_batches import domain_batch
from assetgen.training.style_judge import style_figures, taken_for, train_judge
from tests.helpers.tiny_styles import style_recipe

RECIPE = style_recipe("fastcut", source="dark", target="bright", batch=8)


def looks():
    rng = np.random.default_rng(0)
    pictures = (
        tuple(np.clip(rng.normal(mean, 12, (48, 48, 3)), 0, 255).astype(np.uint8) for _ in range(4))
        for mean in (60, 200)
    )
    return Reals(("dark", "bright"), tuple(pictures), (tuple("abcd"),) * 2, np.full(2, 0.5))


@pytest.fixture(scope="module")
def judge():
    return train_judge(looks(), RECIPE, 15, seed=1)


def crops(label, step=7):
    return domain_batch(looks(), label, RECIPE, step)[:, :, 4:-4, 4:-4]


def test_it_tells_looks_apart_that_differ(judge):
    assert [taken_for(judge, crops(label), label) for label in (0, 1)] == [1.0, 1.0]
    assert taken_for(judge, crops(0), 1) == 0.0


def test_the_same_seed_makes_the_same_judge(judge):
    again = train_judge(looks(), RECIPE, 15, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), judge.parameters(), strict=True))
    assert not torch.equal(train_judge(looks(), RECIPE, 15, seed=2).score.weight, judge.score.weight)


def test_handing_the_input_back_gets_the_figures_of_the_input(judge):
    before = crops(0)
    figures = style_figures(before, before, crops(1), crops(1, step=8), judge, 1)
    for shares in (figures.swd, figures.gram, figures.told):
        assert shares["results"] == shares["inputs"]
    assert figures.told == {"results": 0.0, "inputs": 0.0, "real": 1.0}
    assert figures.swd["real"] < 0.2 * figures.swd["inputs"]
    assert figures.gram["real"] < 0.2 * figures.gram["inputs"]
    assert (figures.structure, figures.change) == (pytest.approx(1), 0)


def test_pictures_of_the_target_get_the_figures_of_real_ones(judge):
    figures = style_figures(crops(0), crops(1, step=8), crops(1), crops(1, step=8), judge, 1)
    assert figures.swd["results"] == figures.swd["real"]
    assert figures.told["results"] == 1.0
    assert figures.change == pytest.approx((200 - 60) / 127.5, rel=0.05)
    assert abs(figures.structure) < 0.2
    assert figures.diversity == pytest.approx(1, abs=0.4)
