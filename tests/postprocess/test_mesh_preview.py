"""Pictures of meshes."""

import numpy as np

from assetgen.postprocess.mesh import Mesh
from assetgen.postprocess.mesh_preview import picture_of_mesh

# A cube, wound counter-clockwise seen from outside.
CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float32)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
CUBE = Mesh(
    CORNERS,
    np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))], dtype=np.int32),
    np.tile(np.array([0.9, 0.2, 0.1], dtype=np.float32), (8, 1)),
)


def test_a_mesh_fills_its_picture_in_its_colour_on_nothing():
    picture = picture_of_mesh(CUBE, 48)
    assert picture.shape == (48, 48, 4)
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()
    solid = picture[picture[:, :, 3] == 255]
    assert 0.4 < len(solid) / 48**2 < 0.95
    assert (solid[:, 0] > 2 * solid[:, 1]).all()


def test_the_top_is_lighter_than_the_sides():
    picture = picture_of_mesh(CUBE, 48).astype(int)
    assert picture[12, 24, 0] > picture[34, 14, 0]
    assert picture[12, 24, 0] > picture[34, 38, 0]


def test_edges_carry_no_black_in():
    picture = picture_of_mesh(CUBE, 48)
    soft = picture[(picture[:, :, 3] > 0) & (picture[:, :, 3] < 255)]
    assert len(soft)
    assert soft[:, 0].min() > 60


def test_what_is_in_front_hides_what_is_behind():
    far = Mesh(CORNERS - [0.2, -0.3, 1.5], CUBE.faces, CUBE.colors[:, ::-1])
    both = Mesh(
        np.concatenate([CUBE.vertices, far.vertices]).astype(np.float32),
        np.concatenate([CUBE.faces, far.faces + 8]).astype(np.int32),
        np.concatenate([CUBE.colors, far.colors]),
    )
    seen = picture_of_mesh(both, 64).astype(int)
    assert seen[40, 30, 0] > seen[40, 30, 2]
