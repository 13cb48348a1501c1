"""Surfaces of grids: closed, within budget, of the right place, size and colour; trimesh checks what we say."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.errors import InternalError
from assetgen.postprocess import mesh as meshes
from assetgen.postprocess.mesh import is_closed, mesh_within, placed, surface

EDGE = 20


def volume(distance, color=(0.2, 0.5, 0.8)):
    """A grid from a distance in cells as a function of z, y, x."""
    axis = np.arange(EDGE) + 0.5
    values = distance(*np.meshgrid(axis, axis, axis, indexing="ij"))
    colors = np.broadcast_to(np.array(color)[:, None, None, None], (3, *values.shape))
    return np.concatenate([np.clip(values / 6 + 0.5, 0, 1)[None], colors]).astype(np.float32)


def ball(radius, middle=(10.0, 10.0, 10.0)):
    return lambda z, y, x: np.sqrt((z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2) - radius


def as_trimesh(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)


def test_a_ball_is_where_it_should_be_and_faces_outwards():
    mesh = surface(volume(ball(6, middle=(9, 10, 12))))
    checked = as_trimesh(mesh)
    assert checked.is_watertight
    assert checked.is_winding_consistent
    assert checked.volume == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.02)
    assert checked.center_mass == pytest.approx([12 - 0.5, 10 - 0.5, 9 - 0.5], abs=0.02)
    assert mesh.colors == pytest.approx(np.broadcast_to([0.2, 0.5, 0.8], mesh.colors.shape), abs=1e-5)


def test_only_the_largest_part_is_kept_and_bubbles_go():
    def distance(z, y, x):
        shell = np.maximum(ball(6)(z, y, x), -ball(3)(z, y, x))
        return np.minimum(shell, ball(2, middle=(3, 3, 3))(z, y, x))

    checked = as_trimesh(surface(volume(distance)))
    assert checked.body_count == 1
    assert checked.volume == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.03)


def test_what_reaches_the_border_is_closed_there():
    mesh = surface(volume(lambda z, y, x: np.abs(y - 10) - 3 + 0 * x))
    assert as_trimesh(mesh).is_watertight


def test_an_empty_grid_has_no_mesh():
    assert mesh_within(volume(lambda z, y, x: 0 * x + 5), 500) is None
    assert mesh_within(volume(lambda z, y, x: 0 * x), 500) is None


def test_values_at_the_surface_itself_make_no_degenerate_triangles():
    grid = volume(lambda z, y, x: np.maximum(np.maximum(abs(z - 10), abs(y - 10)), abs(x - 10)) - 4.5)
    assert (grid[0] == 0.5).any()
    assert as_trimesh(mesh_within(grid, 4000)).is_watertight


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([100, 150, 300, 800, 3000]))
def test_any_grid_gives_a_closed_mesh_within_the_budget(seed, triangles):
    rng = np.random.default_rng(seed)
    balls = [ball(rng.uniform(1.5, 5), rng.uniform(3, 17, size=3)) for _ in range(8)]
    holes = [ball(rng.uniform(1, 3), rng.uniform(3, 17, size=3)) for _ in range(4)]

    def distance(z, y, x):
        solid = np.minimum.reduce([one(z, y, x) for one in balls])
        return np.maximum(solid, -np.minimum.reduce([one(z, y, x) for one in holes]))

    mesh = mesh_within(volume(distance), triangles)
    assert mesh is not None
    assert 4 <= len(mesh.faces) <= triangles
    assert is_closed(mesh.vertices, mesh.faces)
    assert as_trimesh(mesh).is_watertight
    assert ((mesh.colors >= 0) & (mesh.colors <= 1)).all()


def test_the_same_grid_gives_the_same_mesh():
    first, second = (mesh_within(volume(ball(7)), 300) for _ in range(2))
    assert (first.vertices == second.vertices).all()
    assert (first.faces == second.faces).all()


def test_fewer_triangles_keep_the_shape():
    fine, coarse = (as_trimesh(mesh_within(volume(ball(7)), count)) for count in (4000, 200))
    assert coarse.volume == pytest.approx(fine.volume, rel=0.05)


def test_where_no_budget_is_enough_the_error_says_so(monkeypatch):
    monkeypatch.setattr(meshes, "simplified", lambda mesh, triangles: None)
    with pytest.raises(InternalError, match="no closed mesh of 100 triangles"):
        mesh_within(volume(ball(7)), 100)


def test_a_placed_mesh_stands_at_the_origin_in_metres():
    block = volume(lambda z, y, x: np.maximum(np.maximum(abs(z - 9) - 2, abs(y - 9) - 6), abs(x - 9) - 3))
    mesh = placed(surface(block), 2.5)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    assert high[1] == pytest.approx(2.5)
    assert low[1] == pytest.approx(0, abs=1e-6)
    assert (low + high)[[0, 2]] == pytest.approx([0, 0], abs=1e-6)
    assert (high - low)[0] > (high - low)[2]


TETRAHEDRON = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)


@pytest.mark.parametrize(
    ("faces", "closed"),
    [
        (FACES, True),
        (FACES[:3], False),
        (np.concatenate([FACES[:3], FACES[3:, ::-1]]), False),
        (np.concatenate([FACES, FACES]), False),
        (np.concatenate([FACES, [[1, 1, 2]]]), False),
        (FACES[:0], False),
    ],
)
def test_what_is_closed_is_known(faces, closed):
    assert is_closed(TETRAHEDRON, faces) is closed


def test_equal_vertices_count_as_one():
    assert is_closed(TETRAHEDRON[FACES].reshape(-1, 3), np.arange(12, dtype=np.int32).reshape(-1, 3))
