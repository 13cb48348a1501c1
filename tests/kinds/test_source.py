"""The picture of a request: margins, sizes asked for, and what keeps a tile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.errors import FieldInvalid
from assetgen.kinds.source import check_torus, margins, result_size
from assetgen.types import Request
from tests.helpers.style_package import style_manifest

MANIFEST = style_manifest()
EDGES = st.integers(16, 256)


@given(EDGES, st.integers(0, 100), st.sampled_from([1, 4, 16]))
def test_margins_reach_far_enough_and_make_whole_cells(edge_px, reach_px, stride_px):
    before, behind = margins(edge_px, stride_px, reach_px)
    assert before >= reach_px
    assert behind >= reach_px
    assert before % stride_px == (before + edge_px + behind) % stride_px == 0
    assert before < reach_px + stride_px


@given(EDGES, EDGES, st.sampled_from([0, 16, 64, 256]), st.sampled_from([0, 16, 64, 256]))
def test_a_size_is_the_pictures_own_or_one_that_the_model_makes(width_px, height_px, wide, high):
    own = (width_px, height_px)
    found = result_size(own, Request("style", width_px=wide, height_px=high), MANIFEST)
    if not wide and not high:
        assert found == own
        return
    assert all(16 <= edge <= 256 and edge % 4 == 0 for edge in found)
    assert found[0] == (wide or found[0])
    assert found[1] == (high or found[1])


def test_one_edge_keeps_the_shape():
    assert result_size((200, 100), Request("style", width_px=64), MANIFEST) == (64, 32)
    assert result_size((200, 100), Request("style", height_px=64), MANIFEST) == (128, 64)


def test_only_axes_that_repeat_themselves_need_whole_cells():
    check_torus(MANIFEST.size, (50, 64), (True, False))
    check_torus(MANIFEST.size, (64, 50), (False, True))
    with pytest.raises(FieldInvalid, match="its left and right seem to continue each other, but 50 px") as caught:
        check_torus(MANIFEST.size, (50, 64), (True, True), "seem to ")
    assert "width_px" in caught.value.hint
    with pytest.raises(FieldInvalid, match="its top and bottom continue each other, but 50 px"):
        check_torus(MANIFEST.size, (64, 50), (True, True))
