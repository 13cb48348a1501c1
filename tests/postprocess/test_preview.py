"""The preview picture: a coarse golden rendering, and what anyone would see in it."""

import numpy as np
import pytest

from assetgen.postprocess import pbr, preview
from assetgen.postprocess.finishing import Terms, finished
from assetgen.types import MapKind, Material

# Mean sRGB codes of a 4 x 4 grid over the sphere picture of the checkered bump material below (64 px). The tolerance
# lets arithmetic differ between processors; a changed light, scale or tone curve does not pass.
GOLDEN_CODES = np.array(
    [
        [[107, 99, 101], [107, 116, 116], [153, 104, 100], [99, 101, 104]],
        [[103, 107, 107], [241, 97, 79], [28, 133, 139], [127, 94, 93]],
        [[130, 85, 81], [18, 75, 75], [158, 53, 43], [80, 85, 86]],
        [[86, 87, 89], [71, 57, 57], [65, 67, 67], [89, 87, 89]],
    ]
)


def material(color=(0.5, 0.5, 0.5), roughness: float = 0.5, metallic: float = 0.0, edge_px: int = 32) -> Material:
    def plane(*values: float) -> np.ndarray:
        return np.full((edge_px, edge_px, len(values)), values, dtype=np.float32)

    maps = {MapKind.BASE_COLOR: plane(*color), MapKind.ROUGHNESS: plane(roughness), MapKind.METALLIC: plane(metallic)}
    return finished({**maps, MapKind.HEIGHT: plane(0.5)}, Terms(1.0))


def checkered() -> Material:
    """Red and teal quarters, the teal ones raised and metallic."""
    raised = (np.indices((32, 32)) // 16).sum(axis=0)[:, :, np.newaxis] % 2
    maps = {
        MapKind.BASE_COLOR: np.where(raised, np.float32([0.1, 0.6, 0.6]), np.float32([0.8, 0.2, 0.1])),
        MapKind.ROUGHNESS: np.where(raised, np.float32(0.3), np.float32(0.8)),
        MapKind.METALLIC: raised.astype(np.float32),
        MapKind.HEIGHT: raised.astype(np.float32),
    }
    return finished({kind: values.astype(np.float32) for kind, values in maps.items()}, Terms(2.0))


def codes(picture: np.ndarray, cells: int = 4) -> np.ndarray:
    edge = picture.shape[0] // cells
    return picture.reshape(cells, edge, cells, edge, 3).mean(axis=(1, 3))


def middle(picture: np.ndarray) -> np.ndarray:
    edge = picture.shape[0]
    return picture[edge * 2 // 5 : edge * 3 // 5, edge * 2 // 5 : edge * 3 // 5].reshape(-1, 3).mean(axis=0)


def test_a_known_material_looks_as_it_did():
    assert np.abs(codes(preview.sphere(checkered(), 64)) - GOLDEN_CODES).max() < 2


def test_the_picture_is_two_squares_side_by_side():
    picture = preview.material_preview(checkered(), 48)
    assert picture.shape == (48, 96, 3)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture[:, :48], preview.tiled(checkered().maps[MapKind.BASE_COLOR], 48))
    assert np.array_equal(picture[:, 48:], preview.sphere(checkered(), 48))


def test_the_tiling_shows_the_colour_twice_each_way():
    color = np.random.default_rng(5).random((16, 16, 3), dtype=np.float32)
    shown = preview.tiled(color, 32)
    assert np.array_equal(shown, np.tile(np.round(color * 255).astype(np.uint8), (2, 2, 1)))


def test_oblong_tiles_keep_their_shape():
    shown = preview.tiled(np.ones((8, 32, 3), dtype=np.float32), 64)
    assert [int((shown == 255).all(axis=2).any(axis=axis).sum()) for axis in (0, 1)] == [64, 16]


def test_light_comes_from_above_on_the_left():
    picture = preview.sphere(material(), 64).astype(int)
    assert picture[20, 22].sum() > picture[44, 42].sum() + 100


def test_a_matt_grey_ball_is_about_as_bright_as_its_colour():
    assert np.all(np.abs(middle(preview.sphere(material(roughness=1.0), 64)) - 128) < 24)


def test_colours_keep_their_hue():
    red, green, blue = middle(preview.sphere(material((0.8, 0.3, 0.1), roughness=0.9), 64))
    assert red > green + 50 > blue + 60


def test_white_under_light_is_bright_but_not_burnt_out():
    picture = preview.sphere(material((1.0, 1.0, 1.0), roughness=1.0), 64)
    assert picture[24:40, 24:40].mean() > 190
    assert np.mean(picture == 255) < 0.01


def test_smooth_balls_have_a_small_bright_highlight_and_rough_ones_none():
    smooth = preview.sphere(material((0.02, 0.02, 0.02), roughness=0.1), 128).max(axis=2)
    rough = preview.sphere(material((0.02, 0.02, 0.02), roughness=1.0), 128).max(axis=2)
    assert smooth.max() > 240
    assert 0 < np.mean(smooth > 200) < 0.02
    assert rough[32:96, 32:96].max() < 110


def test_a_metal_has_a_coloured_reflection_and_no_matt_part():
    metal = middle(preview.sphere(material((0.9, 0.6, 0.1), roughness=0.3, metallic=1.0), 64))
    plastic = middle(preview.sphere(material((0.9, 0.6, 0.1), roughness=0.3, metallic=0.0), 64))
    assert metal[2] / metal[0] < 0.55
    assert np.abs(metal - plastic).max() > 20


def test_bumps_are_lit_from_the_side_of_the_light():
    """The upper slope of a bump in the middle of the ball is brighter than its lower one, or green was flipped."""
    axis = (np.arange(64) + 0.5) / 32 - 1
    hill = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) * 8).astype(np.float32)[:, :, None]
    maps = dict(material(edge_px=64, roughness=1.0).maps)
    maps[MapKind.HEIGHT], maps[MapKind.NORMAL] = hill, pbr.normal_from_height(hill, 16.0)
    centred = {kind: np.roll(values, (32, 32), (0, 1)) for kind, values in maps.items()}
    picture = preview.sphere(Material(centred), 128).astype(int).sum(axis=2)
    assert picture[56, 64] > picture[72, 64] + 60
    assert picture[64, 56] > picture[64, 72] + 30


def test_occlusion_darkens():
    open_maps = dict(material(roughness=1.0).maps)
    closed = Material({**open_maps, MapKind.AMBIENT_OCCLUSION: np.zeros((32, 32, 1), np.float32)})
    assert middle(preview.sphere(closed, 64)).sum() < middle(preview.sphere(Material(open_maps), 64)).sum() - 30


def test_equal_materials_give_equal_pictures_at_any_roll_of_a_whole_tile():
    maps = checkered()
    again = Material({kind: np.roll(values, (32, -64), (0, 1)) for kind, values in maps.maps.items()})
    assert np.array_equal(preview.sphere(maps, 32), preview.sphere(again, 32))


def test_large_maps_are_filtered_not_skipped():
    """Fine checkers of black and white must average to grey: plain sampling would show moire."""
    checkers = np.indices((512, 512)).sum(axis=0)[:, :, np.newaxis] % 2 * np.ones(3)
    maps = dict(material(edge_px=512, roughness=1.0).maps)
    maps[MapKind.BASE_COLOR] = checkers.astype(np.float32)
    grey = preview.sphere(material((0.735357,) * 3, roughness=1.0, edge_px=512), 64).astype(int)
    assert np.abs(preview.sphere(Material(maps), 64).astype(int) - grey).max() <= 1


def test_a_sheet_holds_every_picture_and_its_label():
    pictures = [(name, np.full((32, 64, 3), 40 * (i + 1), np.uint8)) for i, name in enumerate("abcde")]
    joined = preview.sheet(pictures, columns=2)
    assert joined.ndim == 3
    for place in range(5):
        assert np.all(joined == 40 * (place + 1), axis=2).sum() >= 32 * 64
    blank = preview.sheet([("", picture) for _, picture in pictures], columns=2)
    assert blank.shape == joined.shape
    assert np.any(joined != blank)
    assert np.array_equal(preview.sheet(dict(pictures), columns=2), joined)


def test_bad_previews_are_refused():
    with pytest.raises(ValueError, match="normal, ambient_occlusion are missing"):
        preview.material_preview(
            Material(
                {k: v for k, v in checkered().maps.items() if k not in (MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION)}
            ),
            64,
        )
    with pytest.raises(ValueError, match="edge_px"):
        preview.material_preview(checkered(), 8)
    with pytest.raises(ValueError, match="previews"):
        preview.sheet([])
    with pytest.raises(ValueError, match="preview 'b'"):
        preview.sheet([("a", np.zeros((8, 8, 3), np.uint8)), ("b", np.zeros((8, 9, 3), np.uint8))])
