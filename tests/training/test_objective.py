"""Losses against closed forms, and augmentation that leaves alone what it should."""

import math

import pytest
import torch

from assetgen.training import losses
from assetgen.training.augment import _cutout, augment
from assetgen.training.detail import _mismatch, _slopes
from assetgen.training.recipe import LOSS_NAMES


def crops(n=4, edge=8, seed=0):
    return torch.rand(n, 3, edge, edge, generator=torch.Generator().manual_seed(seed)) * 2 - 1


REAL, FAKE = torch.tensor([0.5, -1.0]), torch.tensor([2.0, -3.0])


def softplus(x):
    return math.log(1 + math.exp(x))


# By hand, of the logits above: discriminator, generator.
BY_HAND = {
    "ns_logistic": (
        (softplus(-0.5) + softplus(1) + softplus(2) + softplus(-3)) / 2,
        (softplus(-2) + softplus(3)) / 2,
    ),
    "saturating": (
        (softplus(-0.5) + softplus(1) + softplus(2) + softplus(-3)) / 2,
        -(softplus(2) + softplus(-3)) / 2,
    ),
    "hinge": ((0.5 + 2 + 3 + 0) / 2, 0.5),
    "least_squares": ((0.25 + 4 + 4 + 9) / 4, (1 + 16) / 4),
    "wasserstein": (-0.5 + 0.25, 0.5),
    "relativistic": ((softplus(1.5) + softplus(-2)) / 2, (softplus(-1.5) + softplus(2)) / 2),
}


def test_recipes_know_every_loss():
    assert tuple(losses.LOSSES) == LOSS_NAMES == tuple(BY_HAND)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_losses_are_those_of_their_papers(name):
    loss = losses.LOSSES[name]
    found = loss.discriminator(REAL, FAKE).item(), loss.generator(REAL, FAKE).item()
    assert found == pytest.approx(BY_HAND[name], rel=1e-5)
    assert all(
        math.isfinite(side(torch.tensor([-1e6]), torch.tensor([1e6]))) for side in (loss.discriminator, loss.generator)
    )


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_only_paired_losses_need_reals_for_the_generator(name):
    loss = losses.LOSSES[name]
    assert loss.paired == (loss.generator(REAL + 1, FAKE) != loss.generator(REAL, FAKE))
    if not loss.paired:
        assert loss.generator(torch.zeros(0), FAKE) == loss.generator(REAL, FAKE)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_both_sides_pull_the_logits_apart_and_together(name):
    """The discriminator wants reals up and fakes down, the generator fakes up."""
    loss, real, fake = losses.LOSSES[name], torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    real_pull, fake_pull = torch.autograd.grad(loss.discriminator(real, fake), [real, fake])
    assert (real_pull < 0).all()
    assert (fake_pull > 0).all() or name == "least_squares"  # at its target already
    (pull,) = torch.autograd.grad(loss.generator(real, fake), [fake])
    assert (pull < 0).all()


def test_the_zero_centred_penalty_of_a_quadratic_is_known():
    """D(x) = |x|^2 has the gradient 2x, so the penalty is half of 4 |x|^2, and its own gradient 4x / n."""
    x = crops().requires_grad_(True)
    penalty = losses.zero_centred_penalty(x.square().sum(dim=(1, 2, 3)), x)
    assert penalty.item() == pytest.approx(float(2 * x.detach().square().sum() / len(x)), rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, x)
    assert torch.allclose(gradient, 4 * x / len(x), atol=1e-6)


def test_the_one_centred_penalty_of_a_plane_is_known():
    """D(x) = a sum x has the gradient a everywhere, of length a sqrt(chw)."""
    reals, fakes = crops(seed=0), crops(seed=1)
    for slope in (0.0, 0.01, 1.0):
        a = torch.tensor(slope, requires_grad=True)
        score = lambda x, a=a: a * x.sum(dim=(1, 2, 3))  # noqa: E731
        penalty = losses.one_centred_penalty(score, reals, fakes, torch.Generator().manual_seed(1))
        assert penalty.item() == pytest.approx((slope * math.sqrt(3 * 8 * 8) - 1) ** 2, rel=1e-4)
        assert torch.isfinite(torch.autograd.grad(penalty, a)[0])


def test_the_one_centred_penalty_looks_between_each_pair():
    seen = []

    def score(x):
        seen.append(x.detach())
        return x.sum(dim=(1, 2, 3))

    reals, fakes = crops(n=64, seed=0), crops(n=64, seed=1)
    losses.one_centred_penalty(score, reals, fakes, torch.Generator().manual_seed(1))
    share = ((seen[0] - reals) / (fakes - reals)).flatten(1)
    assert (share.std(dim=1) < 1e-3).all()
    assert 0 <= share.min() < 0.1
    assert 0.9 < share.max() <= 1 + 1e-4


def test_no_augmentation_at_probability_zero():
    x = crops()
    assert (augment(x, 0.0, torch.Generator().manual_seed(1)) - x).abs().max() < 1e-6


def test_augmentation_follows_its_generator_and_probability():
    x = crops(n=256)
    same = [augment(x, 0.3, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*same)
    changed = float(((same[0] - x).abs().amax(dim=(1, 2, 3)) > 1e-6).float().mean())
    assert changed == pytest.approx(1 - 0.7**6, abs=0.07)


def test_tints_come_with_their_probability_and_go_as_far_in_every_hue():
    """Once they came in three of four samples, and twice as far to green and magenta: joints came out lilac."""
    grey = torch.zeros(20_000, 3, 2, 2)
    grey = augment(grey, 0.5, torch.Generator().manual_seed(1))[:, :, 0, 0]  # the cutout makes a quarter of these black
    tint = grey - grey.mean(dim=1, keepdim=True)
    tinted = tint.abs().amax(dim=1) > 1e-6
    assert float(tinted.float().mean()) == pytest.approx(0.5 * (1 - 0.5 * 0.25), abs=0.02)
    hues = [torch.tensor([math.cos(turn + third), math.cos(turn + third + 2.0944), math.cos(turn + third - 2.0944)])
            for turn in (0.0, 0.5) for third in (0.0, 2.0944, 4.1888)]  # fmt: skip
    spreads = [float((tint[tinted] @ hue).std()) for hue in hues]
    assert max(spreads) / min(spreads) == pytest.approx(1, abs=0.05)


def test_the_number_of_draws_does_not_depend_on_the_probability():
    states = []
    for probability in (0.0, 1.0):
        rng = torch.Generator().manual_seed(1)
        augment(crops(), probability, rng)
        states.append(rng.get_state())
    assert torch.equal(*states)


def test_gradients_pass_the_augmentation():
    x = crops().requires_grad_(True)
    augment(x, 1.0, torch.Generator().manual_seed(1)).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


def test_the_cutout_wraps_around():
    mask = _cutout(torch.tensor([[0.75, 0.0], [0.75, 0.25]]), torch.tensor([1.0, 0.0]), 8, 8)
    hole = (mask[0, 0] == 0).nonzero().tolist()
    assert {row for row, _ in hole} == {6, 7, 0, 1}
    assert {column for _, column in hole} == {6, 7, 0, 1}
    assert (mask[1] == 1).all(), "not where it is not active"


def test_a_cutout_is_a_quarter_wherever_it_lies():
    place = torch.rand(2, 64, generator=torch.Generator().manual_seed(0))
    assert (_cutout(place, torch.ones(64), 8, 8).mean(dim=(1, 2, 3)) == 0.75).all()


def test_slopes_of_a_plane():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(7.0), indexing="ij")
    found = _slopes((2 * rows - 3 * columns)[None, None])
    assert found.shape == (1, 2, 4, 5)
    assert (found[0, 0] == 2).all()
    assert (found[0, 1] == -3).all()


def test_the_mismatch_of_shapes_is_blind_to_scale_and_level():
    x, y = crops(seed=0)[:, :1], crops(seed=1)[:, :1]
    assert _mismatch(x, 3 * x + 7).abs().max() < 1e-5
    assert torch.allclose(_mismatch(x, -x), torch.tensor(2.0), atol=1e-5)
    assert torch.allclose(_mismatch(x, y), _mismatch(x, 5 * y - 1), atol=1e-5)
