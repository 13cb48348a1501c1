"""Volumes as pictures of slices: there and back."""

import numpy as np
import pytest

from assetgen.postprocess.slices import atlas_edge, columns_of, volume_edge, volume_from_atlas


@pytest.mark.parametrize(("edge", "columns"), [(16, 4), (24, 5), (32, 6), (36, 6), (48, 7), (64, 8)])
def test_the_size_of_the_picture_tells_that_of_the_volume(edge, columns):
    assert columns_of(edge) == columns
    assert volume_edge(atlas_edge(edge)) == edge


def test_a_picture_that_is_no_volume_is_none():
    assert volume_edge(101) == 0


def test_slices_lie_row_by_row():
    edge, columns = 6, columns_of(6)
    volume = np.random.default_rng(0).random((4, edge, edge, edge), dtype=np.float32)
    atlas = np.ones((4, columns * edge, columns * edge), dtype=np.float32)
    for z in range(edge):
        top, left = z // columns * edge, z % columns * edge
        atlas[:, top : top + edge, left : left + edge] = volume[:, z]
    assert (volume_from_atlas(atlas) == volume).all()
