"""Distance grids of meshes: right where the answer is known, whole where meshes are not."""

import numpy as np
import pytest
import trimesh

from assetgen.datasets.voxelize import MARGIN, THICKNESS, TRUNCATION, voxelize
from assetgen.errors import DataInvalid

EDGE = 24


def grid(mesh, color=(10, 200, 90), edge=EDGE):
    colors = np.tile(np.array(color, dtype=np.uint8), (len(mesh.faces), 1))
    return voxelize(np.asarray(mesh.vertices, dtype=np.float32), np.asarray(mesh.faces), colors, edge)


def distance(made):
    """Signed distance to the mesh itself in cells, within the truncation."""
    return (made[0] / 127.5 - 1) * TRUNCATION + THICKNESS


def without(mesh, keep):
    return trimesh.Trimesh(mesh.vertices, mesh.faces[keep], process=False)


def test_distances_to_a_box_are_exact():
    made = distance(grid(trimesh.creation.box((1, 1, 1))))
    axis = np.arange(EDGE) + 0.5
    beyond = np.abs(np.stack(np.meshgrid(axis, axis, axis, indexing="ij")) - EDGE / 2) - (EDGE / 2 - MARGIN)
    depth = beyond.max(axis=0)
    expected = np.where(depth < 0, depth, np.linalg.norm(np.maximum(beyond, 0), axis=0))
    expected = expected.clip(THICKNESS - TRUNCATION, THICKNESS + TRUNCATION)
    near = np.abs(expected) < 1  # farther off the nearest of the points on the surface may be of another triangle
    assert np.abs(made - expected)[near].max() <= TRUNCATION / 255 + 1e-6
    assert np.abs(made - expected).max() <= 0.05


def test_a_model_stands_on_its_ground_and_y_is_up():
    made = grid(trimesh.creation.box((0.3, 1, 0.3)))
    inside = np.argwhere(distance(made) < 0)
    low, high, middle = inside.min(axis=0), inside.max(axis=0), inside.mean(axis=0)
    assert low[1] == int(MARGIN)
    assert high[1] == EDGE - int(MARGIN) - 1
    assert middle == pytest.approx([(EDGE - 1) / 2] * 3, abs=0.01)


def test_an_open_bottom_is_closed():
    box = trimesh.creation.box((1, 1, 1))
    open_box = without(box, box.face_normals[:, 1] > -0.5)
    assert not open_box.is_watertight
    assert (grid(open_box)[0] < 128).sum() == pytest.approx((grid(box)[0] < 128).sum(), rel=0.02)


def test_the_way_triangles_are_wound_is_no_matter():
    ball = trimesh.creation.icosphere(subdivisions=2)
    faces = ball.faces.copy()
    faces[::2] = faces[::2, ::-1]
    mixed = trimesh.Trimesh(ball.vertices, faces, process=False)
    assert np.abs(grid(mixed).astype(int) - grid(ball)).max() <= 8  # a nearest triangle may be another


def test_parts_that_stick_into_each_other_are_one():
    post = trimesh.creation.box((0.2, 1, 0.2))
    both = trimesh.util.concatenate([post, trimesh.creation.box((1, 0.2, 0.2))])
    middle = distance(grid(both))[EDGE // 2, EDGE // 2, EDGE // 2]
    assert middle < -1


def test_a_single_sheet_has_an_inside():
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    inside = grid(sheet)[0] < 128
    assert inside.any(axis=0).sum() == pytest.approx((EDGE - 2 * MARGIN) ** 2, rel=0.15)
    assert inside.sum(axis=0).max() <= 2


def test_what_is_under_a_table_stays_open():
    legs = [trimesh.creation.box((0.1, 0.8, 0.1)).apply_translation([x, 0.4, z]) for x in (0, 0.9) for z in (0, 0.9)]
    table = trimesh.util.concatenate([*legs, trimesh.creation.box((1, 0.1, 1)).apply_translation([0.45, 0.85, 0.45])])
    assert grid(table)[0, EDGE // 2, EDGE // 3, EDGE // 2] == 255


def test_colours_are_those_of_the_nearest_surface_and_only_near_it():
    red, blue = trimesh.creation.box((0.4, 1, 1)), trimesh.creation.box((0.4, 1, 1))
    blue.apply_translation([0.6, 0, 0])
    both = trimesh.util.concatenate([red, blue])
    colors = np.repeat(np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8), len(red.faces), axis=0)
    made = voxelize(np.asarray(both.vertices, dtype=np.float32), np.asarray(both.faces), colors, EDGE)
    near = (made[0] > 0) & (made[0] < 255)
    assert set(map(tuple, made[1:, :, :, : EDGE // 2].transpose(1, 2, 3, 0)[near[:, :, : EDGE // 2]])) == {(255, 0, 0)}
    assert set(map(tuple, made[1:, :, :, EDGE // 2 :].transpose(1, 2, 3, 0)[near[:, :, EDGE // 2 :]])) == {(0, 0, 255)}
    assert (made[1:, ~near] == 0).all()


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (np.zeros((3, 3)), [[0, 1, 2]]),
        (np.eye(3), np.zeros((0, 3))),
        (np.eye(3), [[0, 1, 3]]),
        (np.full((3, 3), np.nan), [[0, 1, 2]]),
    ],
)
def test_what_is_no_mesh_is_refused(vertices, faces):
    with pytest.raises(DataInvalid, match="mesh"):
        voxelize(
            np.asarray(vertices, dtype=np.float32),
            np.asarray(faces, dtype=np.int64),
            np.zeros((len(faces), 3), dtype=np.uint8),
            EDGE,
        )
