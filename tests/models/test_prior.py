"""Codes drawn as an encoder's are: moments by class, blends, and nothing before there is anything to know."""

import pytest
import torch

from assetgen.models.prior import LatentPrior

CLASSES, LATENT = 3, 4
ROWS = torch.eye(CLASSES)


def normal(n, seed=0):
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))


def taught():
    """Class 0 lies around 2 in a line of two axes, class 1 around -1 with half the spread, class 2 was never seen."""
    prior = LatentPrior(CLASSES, LATENT)
    first, second = normal(3000), normal(3000, 1)
    first = torch.stack([first[:, 0], first[:, 0], first[:, 1], first[:, 2]], dim=1) + 2
    prior.learn(first, torch.zeros(3000, dtype=torch.int64))
    prior.learn(second / 2 - 1, torch.ones(3000, dtype=torch.int64))
    return prior


def test_a_new_one_hands_z_on():
    z = normal(CLASSES)
    assert torch.allclose(LatentPrior(CLASSES, LATENT)(z, ROWS), z, atol=1e-5)


def test_draws_have_the_moments_of_what_was_learned():
    prior = taught()
    codes = prior(normal(4000, 2), ROWS[:1].expand(4000, -1))
    assert codes.mean(dim=0) == pytest.approx([2.0] * LATENT, abs=0.35)
    correlation = torch.corrcoef(codes.t())
    assert correlation[0, 1] > 0.6  # a share of the covariance is that of all classes
    assert correlation[0, 2].abs() < 0.3
    other = prior(normal(4000, 2), ROWS[1:2].expand(4000, -1))
    assert other.mean(dim=0) == pytest.approx([-1.0] * LATENT, abs=0.2)
    assert other.std(dim=0).mean() < 0.8 * codes.std(dim=0).mean()


def test_without_z_a_code_is_the_mean_of_its_class_and_of_a_blend_that_between():
    prior = taught()
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    codes = prior(torch.zeros(2, LATENT), weights)
    assert torch.allclose(codes[0], prior.mean[0])
    assert torch.allclose(codes[1], (prior.mean[0] + prior.mean[1]) / 2)


def test_one_code_alone_leaves_a_covariance_with_a_root():
    prior = LatentPrior(CLASSES, LATENT)
    for _ in range(2000):
        prior.learn(torch.ones(1, LATENT), torch.tensor([0]))
    assert torch.isfinite(prior(normal(CLASSES), ROWS)).all()


def test_what_was_baked_moves_with_the_network_and_is_the_same():
    prior = taught()
    z = normal(CLASSES)
    wanted = prior(z, ROWS)
    prior.bake()
    assert torch.equal(prior(z, ROWS), wanted)
    assert set(prior.state_dict()) == set(LatentPrior(CLASSES, LATENT).state_dict())
    assert prior.double()(z.double(), ROWS.double()).dtype == torch.float64
