"""The door of all figures."""

import numpy as np
import pytest

from assetgen.metrics.pictures import check_pair, grey_of, shrunk, tensor_of


def test_black_is_minus_one_and_white_one():
    pictures = np.array([[[[0, 255, 51]]]], dtype=np.uint8)
    assert tensor_of(pictures).tolist() == [[[[-1]], [[1]], [[pytest.approx(-0.6)]]]]


def test_grey_weighs_green_most():
    pictures = np.eye(3, dtype=np.uint8).reshape(1, 1, 3, 3) * 255
    assert np.allclose(grey_of(pictures)[0, 0], [0.299, 0.587, 0.114])


def test_shrinking_takes_means():
    blocks = np.kron(np.arange(4).reshape(1, 2, 2, 1), np.ones((1, 4, 4, 1))).astype(np.uint8) * 10
    pictures = np.repeat(blocks, 3, axis=3)
    assert np.array_equal(shrunk(pictures, 4)[0, :, :, 0], [[0, 10], [20, 30]])
    with pytest.raises(ValueError, match="scale 3 does not divide 8 x 8"):
        shrunk(pictures, 3)


@pytest.mark.parametrize(
    "pictures",
    [
        np.zeros((2, 8, 8, 1), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3)),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_anything_but_colour_bytes_is_refused(pictures):
    with pytest.raises(ValueError, match="pictures"):
        tensor_of(pictures)


def test_both_sides_have_one_size():
    with pytest.raises(ValueError, match="reals"):
        check_pair(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 16, 3), np.uint8))
