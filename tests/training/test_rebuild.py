"""Codes and the distance of what is rebuilt from them."""

import pytest
import torch

from assetgen.training.rebuild import divergence, drawn_code, picture_distance


def test_codes_have_the_mean_and_the_variance_that_were_answered():
    mean, log_variance = torch.tensor([[1.0, -2.0]]).expand(20000, 2), torch.tensor([[0.0, -2.0]]).expand(20000, 2)
    codes = drawn_code(mean, log_variance, torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.mean(dim=0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(codes.var(dim=0), log_variance[0].exp(), atol=0.03, rtol=0)
    again = drawn_code(mean, log_variance, torch.Generator().manual_seed(0))
    assert torch.equal(codes, again)


def test_divergence_is_that_of_two_normal_distributions():
    mean, log_variance = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, -0.7]])
    code = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    normal = torch.distributions.Normal(torch.zeros(1, 2), torch.ones(1, 2))
    wanted = torch.distributions.kl_divergence(code, normal).sum()
    torch.testing.assert_close(divergence(mean, log_variance), wanted)
    assert divergence(torch.zeros(3, 4), torch.zeros(3, 4)) == 0


def test_distance_counts_every_size_alike():
    wanted = torch.zeros(2, 4, 32, 32)
    assert picture_distance(wanted, wanted) == 0
    assert picture_distance(wanted + 0.5, wanted) == pytest.approx(0.5)
    grid = torch.zeros(32, 32)
    grid[::2] = 1.0
    grid[1::2] = -1.0  # gone at half the size: only one of 32, 16 and 8 px sees it
    assert picture_distance(wanted + grid, wanted) == pytest.approx(1 / 3)
