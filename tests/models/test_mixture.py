"""Codes drawn as an encoder's are: heaps by class, blends, and nothing before there is anything to know."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.models.mixture import COMPONENTS, FAR, FIT_EVERY, KEPT_CODES, MixturePrior

CLASSES, LATENT = 3, 4
ROWS = torch.eye(CLASSES)
HEAPS = torch.tensor([[4.0, 0.0, 0.0, 0.0], [-4.0, 4.0, 0.0, 0.0], [0.0, -4.0, 4.0, 0.0]])
SURE, UNSURE = -6.0, 0.0  # log variance


def normal(n, seed=0):
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))


def taught(log_variance=SURE):
    """Class 0 lies in three heaps, half of it in the first; class 1 in one around -1; class 2 was never seen."""
    prior = MixturePrior(CLASSES, LATENT)
    codes = HEAPS[torch.tensor([0, 0, 1, 2] * 128)] + 0.2 * normal(512)
    prior.learn(codes, torch.full_like(codes, log_variance), torch.zeros(512, dtype=torch.int64))
    codes = 0.2 * normal(300, 1) - 1
    prior.learn(codes, torch.full_like(codes, log_variance), torch.ones(300, dtype=torch.int64))
    prior.fit()
    return prior


def test_a_new_one_and_a_class_never_seen_hand_z_on():
    z = normal(CLASSES)
    assert torch.equal(MixturePrior(CLASSES, LATENT)(z, ROWS), z)
    assert torch.equal(taught()(z, ROWS)[2], z[2])


def test_draws_lie_in_the_heaps_as_often_as_codes_did_and_not_between():
    codes = taught()(normal(4000, 2), ROWS[:1].expand(4000, -1))
    distance, heap = torch.cdist(codes, HEAPS).min(dim=1)
    assert distance.max() < 1.5, "the means of heaps are more than 5 apart"
    shares = torch.bincount(heap) / len(heap)
    assert shares.tolist() == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
    other = taught()(normal(4000, 2), ROWS[1:2].expand(4000, -1))
    assert other.mean(dim=0) == pytest.approx([-1.0] * LATENT, abs=0.05)


def test_draws_spread_as_codes_do_that_the_encoder_was_unsure_of():
    draws = normal(4000, 2)
    sure, unsure = (taught(each)(draws, ROWS[1:2].expand(4000, -1)).var(dim=0).sum() for each in (SURE, UNSURE))
    assert sure < 0.5, "0.04 in each direction, and what is left of the 1 that it began with"
    assert unsure == pytest.approx(LATENT - 1, abs=0.5), "1 in each but that which chooses"


def test_without_z_a_code_is_the_mean_of_the_largest_heap_and_of_a_blend_that_between():
    prior = taught()
    codes = prior(torch.zeros(2, LATENT), torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]))
    assert codes[0] == pytest.approx(HEAPS[0], abs=0.3)
    one = prior(torch.zeros(1, LATENT), ROWS[1:2])[0]
    torch.testing.assert_close(codes[1], (codes[0] + one) / 2)


def test_it_is_fitted_as_codes_come_and_forgets_old_ones():
    prior = MixturePrior(CLASSES, LATENT)
    labels, sure = torch.zeros(16, dtype=torch.int64), torch.full((16, LATENT), SURE)
    for _ in range(FIT_EVERY):
        prior.learn(torch.full((16, LATENT), 3.0) + 0.1 * normal(16), sure, labels)
    assert prior(torch.zeros(1, LATENT), ROWS[:1])[0] == pytest.approx([3.0] * LATENT, abs=0.3)
    for _ in range(max(FIT_EVERY, KEPT_CODES // 16)):
        prior.learn(torch.full((16, LATENT), -3.0) + 0.1 * normal(16), sure, labels)
    assert (prior.codes[0] < 0).all()
    assert prior(torch.zeros(1, LATENT), ROWS[:1])[0] == pytest.approx([-3.0] * LATENT, abs=0.3)


@given(count=st.integers(1, 60), kinds=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_whatever_codes_there_are_draws_are_finite_and_the_same(count, kinds, seed):
    codes = normal(kinds, seed)[torch.arange(count) % kinds]  # many are the same
    made = []
    for _ in range(2):
        prior = MixturePrior(CLASSES, LATENT)
        prior.learn(codes, torch.full_like(codes, -8.0), torch.zeros(count, dtype=torch.int64))
        prior.fit()
        made.append(prior(normal(50), ROWS[:1].expand(50, -1)))
    assert torch.isfinite(made[0]).all()
    assert torch.equal(*made)
    assert (prior.bounds[0] < FAR).sum() < COMPONENTS
    assert prior.bounds.isfinite().all()
