"""What kinds with classes share: weights that add up, and names that no two assets share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.errors import FieldInvalid
from assetgen.kinds.classes import asset_name, check_asset_name, class_weights
from tests.helpers.tiny_package import CLASSES, tiny_manifest

MANIFEST = tiny_manifest()


@given(st.sampled_from(CLASSES), st.sampled_from(("none", *CLASSES)), st.floats(0, 1))
def test_weights_add_up_and_lie_on_the_two_classes_only(first, second, blend):
    weights, name = class_weights(MANIFEST, {"class": first, "blend_class": second, "blend": blend})
    assert name == first
    assert sum(weights) == pytest.approx(1)
    by_name = dict(zip(CLASSES, weights, strict=True))
    if second not in ("none", first):
        assert by_name[second] == pytest.approx(blend)
    else:
        assert by_name[first] == pytest.approx(1)


def test_without_parameters_it_is_the_first_class():
    assert class_weights(MANIFEST, {}) == ((1.0, 0.0), "clay")


def test_names_differ_by_index_whatever_is_given():
    assert [asset_name("rock", "clay", 7, index) for index in (0, 1, 12)] == ["rock", "rock_1", "rock_12"]
    assert [asset_name("", "clay", 7, index) for index in (0, 1)] == ["clay_7_0", "clay_7_1"]


def test_a_name_leaves_room_for_its_index():
    check_asset_name("a" * 64, 0)
    check_asset_name("a" * 62, 9)
    with pytest.raises(FieldInvalid, match="at most 61") as caught:
        check_asset_name("a" * 62, 10)
    assert caught.value.field == "output.name"
    with pytest.raises(FieldInvalid):
        check_asset_name("../x", 0)
