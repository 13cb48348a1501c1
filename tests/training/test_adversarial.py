"""One step of the adversarial game: what is summed, what is penalised, what becomes of bad gradients."""

import math

import pytest
import torch
from torch import nn

from assetgen.training import losses
from assetgen.training.adversarial import GRADIENT_LIMIT, LECAM_FROM_STEP, Adversary, Anchors, Shown, anchors, sanitise
from assetgen.training.recipe import TextureRecipe
from assetgen.training.sums import Sums


class Linear(nn.Module):
    """Logits are sums of weighted pixels: gradients are known by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3, 2, 2), 0.5))

    def forward(self, x, _labels):
        return (x * self.weight).sum(dim=(1, 2, 3)), None


def adversary(module, anchors=None, apart=False, **changes):
    recipe = TextureRecipe(**{"r1_gamma": 0.0, "r1_interval": 1, **changes})
    optimiser = torch.optim.Adam(module.parameters(), lr=0.0)
    return Adversary(module, optimiser, recipe, module, module, anchors, apart)


def shown(n=4):
    rng = torch.Generator().manual_seed(0)
    reals, fakes = torch.rand(2, n, 3, 2, 2, generator=rng)
    labels = torch.zeros(n, dtype=torch.long)
    return Shown(reals, labels, fakes, labels)


@pytest.mark.parametrize("apart", [False, True])
def test_a_step_reports_the_loss_of_its_logits(apart):
    module, seen, sums = Linear(), shown(), Sums()
    sign = adversary(module, apart=apart).learn(seen, 0, 1.0, torch.Generator(), sums)
    with torch.no_grad():
        real, fake = module(seen.reals, None)[0], module(seen.fakes, None)[0]
    means = sums.means()
    assert means["loss_d"] == pytest.approx(float(losses.LOSSES["ns_logistic"].discriminator(real, fake)), abs=1e-5)
    assert means["real_score"] == pytest.approx(float(real.mean()), abs=1e-5)
    assert sign == 1.0


def test_penalties_are_weighed_and_scaled():
    """R1 of a linear map is half its squared weights; its gradient is the weight times weight of the penalty."""
    found = []
    for scale in (0.0, 1.0, 3.0):
        module, sums = Linear(), Sums()
        adversary(module, r1_gamma=2.0).learn(shown(), 0, scale, torch.Generator(), sums)
        found.append(module.weight.grad.clone())
    assert sums.means()["r1"] == pytest.approx(0.5 * 12 * 0.25)
    torch.testing.assert_close(found[1] - found[0], torch.full((3, 2, 2), 2.0 * 0.5))
    torch.testing.assert_close(found[2] - found[0], torch.full((3, 2, 2), 3 * 2.0 * 0.5))


def test_penalties_come_at_their_interval():
    module, sums = Linear(), Sums()
    game = adversary(module, r1_gamma=1.0, r1_interval=4)
    for step in range(8):
        game.learn(shown(), step, 1.0, torch.Generator(), sums)
    assert sums.counts["r1"] == 2


def test_lecam_begins_late_and_pulls_logits_together():
    modules, module = {}, Linear()
    kept = anchors(modules, 0.5, "cpu")
    assert modules["anchors"] is kept
    assert anchors({}, 0.0, "cpu") is None
    game, sums = adversary(module, anchors=kept, lecam=0.5), Sums()
    game.learn(shown(), 0, 1.0, torch.Generator(), sums)
    assert "lecam" not in sums.totals
    assert float(kept.real) > 0
    game.learn(shown(), LECAM_FROM_STEP, 1.0, torch.Generator(), sums)
    assert sums.means()["lecam"] > 0


def test_lecam_is_that_of_its_paper():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.0, 1.0])
    # relu(2 - 0.5)^2 = 2.25, relu(-1.5) = 0; relu(1 - 0)^2 = 1, relu(1 - 1) = 0
    assert float(losses.lecam(real, fake, torch.tensor(1.0), torch.tensor(0.5))) == pytest.approx(2.25 / 2 + 1 / 2)


def test_anchors_follow_the_logits():
    kept = Anchors()
    for _ in range(2000):
        kept.move(torch.tensor([3.0]), torch.tensor([-2.0]))
    assert (float(kept.real), float(kept.fake)) == pytest.approx((3.0, -2.0), abs=1e-3)


@pytest.mark.parametrize(("bad", "kept"), [(math.nan, 0.0), (math.inf, GRADIENT_LIMIT), (-math.inf, -GRADIENT_LIMIT)])
def test_gradients_that_are_no_numbers_are_replaced_and_counted(bad, kept):
    module, sums = Linear(), Sums()
    module.weight.grad = torch.ones(3, 2, 2)
    module.weight.grad[0, 0, 0] = bad
    sanitise(module, "d", sums)
    assert float(module.weight.grad[0, 0, 0]) == kept
    assert float(module.weight.grad[0, 0, 1]) == 1.0
    means = sums.means()
    assert means["bad_gradients"] == 1.0
    assert math.isfinite(means["gradient_d"])


def test_sound_gradients_are_left_alone():
    module, sums = Linear(), Sums()
    module.weight.grad = torch.full((3, 2, 2), 2.0)
    sanitise(module, "g", sums)
    assert torch.equal(module.weight.grad, torch.full((3, 2, 2), 2.0))
    assert sums.means() == {"gradient_g": pytest.approx(math.sqrt(48), abs=1e-4), "bad_gradients": 0.0}
