"""Differences across the border."""

import numpy as np
import pytest

from assetgen.metrics.seams import wrap_ratio
from tests.metrics.synthetic import blotches, bytes_of, waves


def test_a_ramp_breaks_at_the_border_by_its_whole_height():
    ramp = np.broadcast_to(np.arange(32)[None, None, :, None] * 2, (1, 32, 32, 3)).astype(np.uint8)
    assert wrap_ratio(ramp)[0] == pytest.approx((2 * 31 + 0.5) / (2 + 0.5))


def test_tiles_have_a_ratio_of_one_and_crops_of_them_more():
    tiles = blotches(32)
    assert np.median(wrap_ratio(tiles)) == pytest.approx(1.05, abs=0.15)
    assert np.median(wrap_ratio(np.ascontiguousarray(tiles[:, :40, :40]))) > 2
    assert np.median(wrap_ratio(waves(32))) > 2


def test_one_colour_shows_no_border():
    assert wrap_ratio(np.full((1, 16, 16, 3), 77, np.uint8))[0] == 1


def test_borders_of_cells_are_compared_with_borders_of_cells():
    """The phase trap: a tile of flat cells of 4 px differs at cell borders only, the wrap being one of them."""
    cells = blotches(32, edge_px=16, cells=6)
    tiles = np.repeat(np.repeat(cells, 4, axis=1), 4, axis=2)
    assert np.median(wrap_ratio(tiles)) > 2.5
    assert np.median(wrap_ratio(tiles, stride_px=4)) == pytest.approx(1.05, abs=0.2)


def test_a_line_drawn_at_the_border_is_seen_at_its_stride():
    tiles = blotches(8)
    marked = bytes_of(tiles.astype(float))
    marked[:, 0] = np.clip(marked[:, 0].astype(int) + 60, 0, 255)
    assert (wrap_ratio(marked, stride_px=4) > 1.5 * wrap_ratio(tiles, stride_px=4)).all()


@pytest.mark.parametrize("stride", [0, 3, 16])
def test_a_stride_without_lines_inside_is_refused(stride):
    with pytest.raises(ValueError, match=f"stride_px {stride}"):
        wrap_ratio(np.zeros((1, 16, 16, 3), np.uint8), stride)
