"""Map sets as arrays: sizes, units, and above all signs."""

import numpy as np
import pytest

from assetgen.datasets.mapsets import map_sets, slopes, standard_height
from assetgen.datasets.tiles import Item
from assetgen.postprocess.pbr import normal_from_height
from assetgen.types import MapKind
from tests.helpers.tiny_runs import picture


def item(edge_px, *kinds, split="train", class_name="brick"):
    maps = {MapKind.BASE_COLOR: picture(0, edge_px)}
    for kind in kinds:
        maps[kind] = picture(1, edge_px) if kind is MapKind.NORMAL else picture(1, edge_px)[:, :, :1]
    return Item("x", class_name, "x", split, "X", "", 20.0, maps, {})


def bump(edge_px=64):
    rows, columns = np.mgrid[:edge_px, :edge_px] - edge_px / 2
    return np.exp(-(rows**2 + columns**2) / 80).astype(np.float32)[:, :, None]


def test_slopes_of_a_normal_map_are_those_of_its_height():
    """One convention for what is learned from normal maps and what is derived for them."""
    height, relief_px = bump(), 10.0
    normal = normal_from_height(height, relief_px)
    encoded = np.round((normal + 1) * 127.5).astype(np.uint8)
    found = slopes(encoded)
    expected = relief_px * np.stack(
        [(np.roll(height, -1, axis) - np.roll(height, 1, axis))[:, :, 0] / 2 for axis in (0, 1)], axis=2
    )
    assert found.shape == (64, 64, 2)
    assert np.abs(expected).max() > 0.5
    assert np.abs(found - expected).max() < 0.03


def test_the_upper_side_of_a_bump_rises_downwards():
    found = slopes(np.round((normal_from_height(bump(), 10.0) + 1) * 127.5).astype(np.uint8))
    assert found[26, 32, 0] > 0.1  # towards the top of the bump along rows
    assert found[38, 32, 0] < -0.1
    assert found[32, 26, 1] > 0.1
    assert found[32, 38, 1] < -0.1


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (0.2, 40.0), (1.0, -7.0)])
def test_standard_height_knows_no_unit(scale, offset):
    height = picture(3, 64)[:, :, :1].astype(np.float32)
    first = standard_height(height, 8)
    assert np.abs(standard_height(scale * height + offset, 8) - first).max() < 1e-5
    assert first.mean() == pytest.approx(0.5, abs=0.01)
    assert first.std() == pytest.approx(1 / 6, abs=0.02)
    assert first.min() >= 0
    assert first.max() <= 1


def test_standard_height_forgets_slow_changes():
    fast = np.random.default_rng(0).normal(0, 20, (64, 64, 1)).astype(np.float32)
    slow = 200 * np.sin(np.arange(64) / 64 * 2 * np.pi).astype(np.float32)[:, None, None]
    close, far = (
        np.abs(standard_height(fast + slow, width) - standard_height(fast, width)).mean() for width in (2, 50)
    )
    assert close < 0.2 * far


def test_flat_height_stays_flat():
    assert (standard_height(np.full((32, 32, 1), 77, np.float32), 8) == 0.5).all()


def test_large_items_teach_detail_and_small_ones_maps():
    items = [item(128), item(128, MapKind.HEIGHT, MapKind.NORMAL), item(36, MapKind.ROUGHNESS), item(36)]
    detailed, full, coarse = map_sets(items, ["brick"], scan_px=32, trim_px=1, split="train")
    assert detailed.large.shape == (120, 120, 3)
    assert detailed.small.shape == (30, 30, 3)
    assert detailed.targets == {}
    assert {name: target.shape for name, target in full.targets.items()} == {
        "height": (120, 120, 1),
        "slopes": (120, 120, 2),
    }
    assert coarse.large is None
    assert coarse.targets["roughness"].shape == (*coarse.small.shape[:2], 1)


def test_the_small_picture_is_the_mean_of_the_large_one():
    (entry,) = map_sets([item(128)], ["brick"], scan_px=32, trim_px=1, split="train")
    mean = entry.large.reshape(30, 4, 30, 4, 3).mean(axis=(1, 3))
    assert np.abs(entry.small - mean).max() <= 1


def test_only_the_split_that_was_asked_for():
    items = [item(128, split="validation"), item(128)]
    assert len(map_sets(items, ["brick"], 32, 1, "validation")) == 1


def test_unknown_classes_are_marked():
    (entry,) = map_sets([item(128, class_name="lava")], ["brick"], 32, 1, "train")
    assert entry.label == -1
