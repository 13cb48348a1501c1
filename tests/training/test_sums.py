"""Means of a run's log: one bad step is left out, many are told."""

import math

import pytest
import torch

from assetgen.training.sums import Sums


def summed(*values):
    sums = Sums()
    for value in values:
        sums.add("loss", torch.tensor(value))
    return sums.means()["loss"]


def test_means_of_numbers():
    assert summed(1.0, 2.0, 6.0) == 3.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_step_is_left_out_and_half_of_them_are_told(bad):
    assert summed(1.0, bad, 3.0) == 2.0
    assert math.isnan(summed(1.0, bad))
    assert math.isnan(summed(bad, bad, 3.0))
