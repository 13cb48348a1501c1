"""Edges of pictures with alpha: a clean one has no halo whatever its colour, and each fault has its figure."""

import numpy as np
import pytest

from assetgen.metrics.halos import halos


def disc(color, edge=32, radius=9.0):
    """A disc of one colour with a smooth edge, colours times alpha."""
    rows, columns = np.mgrid[:edge, :edge] - (edge - 1) / 2
    alpha = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return np.rint(np.dstack([np.array(color) * alpha[..., None], alpha * 255])).astype(np.uint8)[None]


@pytest.mark.parametrize("color", [(255, 255, 255), (200, 30, 90), (0, 0, 0)])
def test_a_smooth_edge_has_no_halo_in_any_colour(color):
    found = halos(disc(color))
    assert found.rim < 1.5
    assert (found.uncovered, found.dust) == (0.0, 0.0)
    assert 0.02 < found.partly < 0.1


@pytest.mark.parametrize("ground", [0, 255])
def test_an_edge_that_kept_its_old_ground_has_one(ground):
    """Straight colours mixed with what was behind: the classic fault of cutting out."""
    clean = disc((200, 30, 90)).astype(float)
    alpha = clean[..., 3:] / 255
    dirty = np.concatenate([(clean[..., :3] + ground * (1 - alpha)) * alpha, clean[..., 3:]], axis=3)
    assert halos(dirty.astype(np.uint8)).rim > 10 * halos(disc((200, 30, 90))).rim


def test_colour_without_cover_is_counted():
    picture = disc((200, 30, 90))
    picture[0, 0, :8, 0] = 50
    assert halos(picture).uncovered == pytest.approx(8 / 32**2)


def test_specks_far_from_anything_are_dust():
    picture = disc((200, 30, 90))
    partly = halos(picture).partly
    picture[0, 1, ::4] = (60, 60, 60, 60)
    found = halos(picture)
    assert found.partly == pytest.approx(partly + 8 / 32**2)
    assert found.dust == pytest.approx(8 / 32**2 / found.partly)


def test_hard_edges_have_nothing_to_judge():
    picture = np.zeros((2, 8, 8, 4), np.uint8)
    picture[:, 2:6, 2:6] = 255
    assert halos(picture).rim == halos(picture).partly == 0.0
    with pytest.raises(ValueError, match=r"\[n, h, w, 4\]"):
        halos(picture[..., :3])
