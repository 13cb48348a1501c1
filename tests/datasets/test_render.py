"""Drawing meshes: what covers what, from which side light comes, edges, and the same bytes every time."""

import numpy as np
import pytest

from assetgen.datasets.render import MARGIN, View, draw_view, render
from assetgen.errors import DataInvalid

FRONT = View(azimuth=0.0, elevation=0.0)
EDGE = 40


def plate(z, half=0.5, color=(200, 100, 50)):
    """A square that faces the camera of ``FRONT``: vertices, faces, colours."""
    corners = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]], np.float32)
    return corners, np.array([[0, 1, 2], [0, 2, 3]]), np.array([color, color], np.uint8)


def joined(*parts):
    vertices, faces, colors, first = [], [], [], 0
    for corners, numbers, shades in parts:
        vertices.append(corners)
        faces.append(numbers + first)
        colors.append(shades)
        first += len(corners)
    return np.concatenate(vertices), np.concatenate(faces), np.concatenate(colors)


def cube():
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))])
    return corners, faces, np.full((12, 3), 180, np.uint8)


def test_a_square_fills_the_picture_up_to_the_margin_and_nothing_else_is_touched():
    picture = render(*plate(0.0), FRONT, EDGE)
    rows, columns = np.nonzero(picture[:, :, 3])
    inner = round(EDGE * (1 - 2 * MARGIN))
    for places in (rows, columns):
        assert abs(int(places.max() - places.min()) + 1 - inner) <= 1
        assert places.min() + places.max() == EDGE - 1, "centred"
    assert (picture[picture[:, :, 3] == 0] == 0).all()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_nearer_hides_the_farther_whatever_the_order(order):
    parts = [plate(0.4, 0.25, (0, 0, 255)), plate(-0.4, 0.5, (255, 0, 0))]
    picture = render(*joined(*(parts[i] for i in order)), FRONT, EDGE)
    red, _, blue, alpha = picture[EDGE // 2, EDGE // 2]
    assert blue > red
    assert alpha == 255
    assert picture[EDGE // 2, 5, 0] > picture[EDGE // 2, 5, 2]


def test_both_sides_of_a_triangle_are_lit_alike():
    vertices, faces, colors = plate(0.0)
    assert np.array_equal(
        render(vertices, faces, colors, FRONT, EDGE), render(vertices, faces[:, ::-1], colors, FRONT, EDGE)
    )


def test_tops_are_lighter_than_sides_and_the_lit_side_than_the_other():
    picture = render(*cube(), View(azimuth=45.0, elevation=30.0, light_azimuth=-60.0, light_elevation=50.0), 64)
    middle = 32
    top, left, right = picture[14, middle], picture[42, middle - 14], picture[42, middle + 14]
    assert top[0] > left[0] > right[0]


def test_up_is_up():
    tower = joined(plate(0.0, 0.5, (0, 255, 0)), (plate(0.0, 0.1)[0] + [0, 0.6, 0], plate(0.0)[1], plate(0.0)[2]))
    picture = render(*tower, FRONT, EDGE)
    assert picture[: EDGE // 4, :, 3].sum() < picture[-EDGE // 4 :, :, 3].sum()


def test_edges_are_smooth_and_keep_the_colour_of_what_they_bound():
    turned = View(azimuth=0.0, elevation=0.0)
    corners, faces, colors = plate(0.0)
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    picture = render((corners @ turn.T).astype(np.float32), faces, colors, turned, EDGE)
    alpha = picture[:, :, 3]
    partly = (alpha > 0) & (alpha < 255)
    assert partly.sum() > EDGE
    inside = picture[EDGE // 2, EDGE // 2, :3].astype(int)
    assert np.abs(picture[partly][:, :3].astype(int) - inside).max() <= 1


def test_the_size_and_place_of_a_model_do_not_matter():
    vertices, faces, colors = cube()
    view = View(azimuth=20.0, elevation=20.0)
    moved = render((vertices * 64 + 128).astype(np.float32), faces, colors, view, EDGE)
    assert np.array_equal(render(vertices, faces, colors, view, EDGE), moved)


def test_triangles_without_area_draw_nothing_and_warn_of_nothing():
    vertices, faces, colors = plate(0.0)
    thin = np.concatenate([faces, [[0, 0, 1], [2, 2, 2]]])
    picture = render(vertices, thin, np.concatenate([colors, colors]), FRONT, EDGE)
    assert np.array_equal(picture, render(vertices, faces, colors, FRONT, EDGE))


def test_a_thousand_small_triangles_are_a_large_one():
    edge = np.linspace(-0.5, 0.5, 33)
    x, y = np.meshgrid(edge, edge)
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1).astype(np.float32)
    first = (np.arange(32)[:, None] * 33 + np.arange(32)).ravel()
    faces = np.concatenate([np.stack([first, first + 1, first + 34], 1), np.stack([first, first + 34, first + 33], 1)])
    colors = np.tile(np.array([200, 100, 50], np.uint8), (len(faces), 1))
    assert np.array_equal(render(vertices, faces, colors, FRONT, EDGE), render(*plate(0.0), FRONT, EDGE))


def test_views_are_spread_over_the_arc():
    for arc in (90.0, 360.0):
        views = [draw_view(np.random.default_rng(1), n, 8, arc) for n in range(8)]
        angles = [view.azimuth for view in views]
        assert angles == sorted(angles)
        assert arc * 0.7 < angles[-1] - angles[0] < arc


@pytest.mark.parametrize("broken", ["none", "number", "nan"])
def test_a_broken_mesh_is_refused(broken):
    vertices, faces, colors = plate(0.0)
    if broken == "none":
        faces, colors = faces[:0], colors[:0]
    elif broken == "number":
        faces = faces + 2
    else:
        vertices[0, 0] = np.nan
    with pytest.raises(DataInvalid, match="triangles"):
        render(vertices, faces, colors, FRONT, EDGE)
