"""What people see of one request in a deploy report, by kind of model; imports fidelity, manifest, post-processing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from assetgen.errors import RuntimeMissing
from assetgen.fidelity import normals
from assetgen.manifest import Manifest
from assetgen.postprocess import mesh as meshes
from assetgen.postprocess.mesh_preview import picture_of_mesh
from assetgen.postprocess.slices import volume_from_atlas
from assetgen.postprocess.sprites import on_squares, unpremultiply
from assetgen.types import FloatArray, MapKind

NORMALS, ALPHA, MESH = "normals", "alpha", "mesh"
DISTANCE, COLOR = "slices of distance", "slices of colour"
SQUARE_PX = 4
MESH_PX, MESH_TRIANGLES = 256, 2000
_GROUND = np.float32(72 / 255)

Pictures = dict[str, FloatArray]


def pictures_of(manifest: Manifest, inputs: Mapping[str, FloatArray], outputs: Mapping[str, FloatArray]) -> Pictures:
    """Pictures ``[1 or 3, h, w]`` in [0, 1] of the first asset of a run, by what they show.

    Maps come as they are, with normals of the height; sprites on squares, with their alpha; volumes as a drawn mesh,
    where the libraries for it are installed, and as the slices that it is cut from. What holds numbers that are not
    finite is shown as its maps alone.
    """
    found: Pictures = {}
    for spec in manifest.outputs:
        values = outputs[spec.name][0]
        finite = bool(np.isfinite(values).all())
        if manifest.kind == "sprite" and finite:
            found |= _of_sprite(spec.name, values)
        elif manifest.kind == "mesh" and finite:
            found |= _of_volume(values)
        else:
            found[spec.name] = values
        if spec.map_kind == MapKind.HEIGHT and finite:
            turned = normals(manifest, inputs, outputs[spec.name])[0]
            found[NORMALS] = (turned * 0.5 + 0.5).transpose(2, 0, 1)
    return found


def _of_sprite(name: str, values: FloatArray) -> Pictures:
    sprite = unpremultiply(np.clip(values.transpose(1, 2, 0), 0, 1))
    shown = on_squares(sprite, SQUARE_PX).astype(np.float32) / np.float32(255)
    return {name: shown.transpose(2, 0, 1), ALPHA: values[3:]}


def _of_volume(atlas: FloatArray) -> Pictures:
    slices = {DISTANCE: atlas[:1], COLOR: atlas[1:]}
    try:
        meshes.check_libraries()
    except RuntimeMissing:
        return slices
    mesh = meshes.mesh_within(volume_from_atlas(np.clip(atlas, 0, 1)), MESH_TRIANGLES)
    drawn = np.zeros((MESH_PX, MESH_PX, 4), np.uint8) if mesh is None else picture_of_mesh(mesh, MESH_PX)
    pixels = drawn.astype(np.float32) / np.float32(255)
    shown: FloatArray = pixels[:, :, :3] * pixels[:, :, 3:] + _GROUND * (1 - pixels[:, :, 3:])
    return {MESH: shown.transpose(2, 0, 1)} | slices
