"""Losses against closed forms, and augmentation that leaves alone what it should."""

import math

import pytest
import torch

from assetgen.training import losses
from assetgen.training.augment import _cutout, augment
from assetgen.training.detail import _mismatch, _slopes


def crops(n=4, edge=8, seed=0):
    return torch.rand(n, 3, edge, edge, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_losses_at_zero_are_logarithms_of_two():
    zero = torch.zeros(4)
    assert losses.generator_loss(zero) == pytest.approx(math.log(2))
    assert losses.discriminator_loss(zero, zero) == pytest.approx(2 * math.log(2))


def test_losses_are_the_logistic_ones():
    real, fake = torch.tensor([0.5, -1.0]), torch.tensor([2.0, -3.0])
    expected = [math.log(1 + math.exp(-float(x))) for x in fake]
    assert losses.generator_loss(fake) == pytest.approx(sum(expected) / 2, rel=1e-5)
    terms = [math.log(1 + math.exp(-float(x))) for x in real] + [math.log(1 + math.exp(float(x))) for x in fake]
    assert losses.discriminator_loss(real, fake) == pytest.approx(sum(terms) / 2, rel=1e-5)


def test_large_logits_do_not_overflow():
    assert torch.isfinite(losses.discriminator_loss(torch.tensor([-1e6]), torch.tensor([1e6])))


def test_the_penalty_of_a_quadratic_is_known():
    """D(x) = |x|^2 has the gradient 2x, so R1 is half of 4 |x|^2, and its own gradient 4x / n."""
    x = crops().requires_grad_(True)
    penalty = losses.r1_penalty(x.square().sum(dim=(1, 2, 3)), x)
    assert penalty.item() == pytest.approx(float(2 * x.detach().square().sum() / len(x)), rel=1e-5)
    (gradient,) = torch.autograd.grad(penalty, x)
    assert torch.allclose(gradient, 4 * x / len(x), atol=1e-6)


def test_no_augmentation_at_probability_zero():
    x = crops()
    assert (augment(x, 0.0, torch.Generator().manual_seed(1)) - x).abs().max() < 1e-6


def test_augmentation_follows_its_generator_and_probability():
    x = crops(n=256)
    same = [augment(x, 0.3, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*same)
    changed = float(((same[0] - x).abs().amax(dim=(1, 2, 3)) > 1e-6).float().mean())
    assert changed == pytest.approx(1 - 0.7**6, abs=0.07)


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
