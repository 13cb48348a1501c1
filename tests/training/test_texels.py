"""Texels beyond the texture network: blur and loud noise are both far off, scans of the same make are near."""

import numpy as np
import pytest
from scipy import ndimage

from assetgen.datasets.tiles import Item
from assetgen.training.texels import texels
from assetgen.types import MapKind
from tests.helpers.tiny_runs import TEXTURE

EDGE = 64  # 16 texels, and a scan is 32 wide


def grain(seed, edge_px, loud=20.0):
    rng = np.random.default_rng(seed)
    return np.clip(128 + rng.normal(0, loud, (edge_px, edge_px, 3)), 0, 255).astype(np.uint8)


def item(number, pixels, name="rock"):
    return Item(f"i{number}", name, f"i{number}", "train", "CC0-1.0", "", 1.0, {MapKind.BASE_COLOR: pixels}, {})


ITEMS = [item(n, grain(n, 128)) for n in range(4)]


def found(pictures, items=ITEMS):
    return texels({"rock": pictures}, items, TEXTURE, 4, 1)


def test_what_is_like_the_scans_is_as_near_as_scans_are():
    figures = found(np.stack([grain(9 + n, EDGE) for n in range(8)]))
    assert figures["classes"] == {"rock": 4.0}
    assert figures["fake"].keys() == figures["real"].keys() == {"1", "2"}
    for size in ("1", "2"):
        assert figures["fake"][size] < 2 * figures["real"][size]


@pytest.mark.parametrize(
    "strange",
    [
        lambda n: ndimage.gaussian_filter(grain(9 + n, EDGE), (1.5, 1.5, 0), mode="wrap"),
        lambda n: grain(9 + n, EDGE, loud=60.0),
        lambda n: np.tile(grain(9, 8), (8, 8, 1)),
    ],
    ids=["blur", "loud", "one mark repeated"],
)
def test_what_is_not_like_them_is_further_off(strange):
    figures = found(np.stack([strange(n) for n in range(8)]))
    assert max(figures["fake"][size] / figures["real"][size] for size in ("1", "2")) > 2.5


def test_colour_does_not_count():
    """It is what the texture network is judged by."""
    shifted = [np.clip(grain(9 + n, EDGE).astype(int) + 40, 0, 255).astype(np.uint8) for n in range(8)]
    figures = found(np.stack(shifted))
    assert figures["fake"]["1"] < 2 * figures["real"]["1"]


def test_classes_with_fewer_than_two_scans_in_full_do_not_count():
    pictures = np.stack([grain(9 + n, EDGE) for n in range(8)])
    assert found(pictures, ITEMS[:1]) == {}
    small = [item(n, grain(n, 64)) for n in range(4)]
    assert found(pictures, small) == {}
    both = texels({"rock": pictures, "wood": pictures}, [*ITEMS, item(9, grain(9, 128), "wood")], TEXTURE, 4, 1)
    assert both["classes"] == {"rock": 4.0}
