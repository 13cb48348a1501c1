"""3D props: what a request means, before and after the graph; imports latents and postprocess, no runtime.

The graph makes the slices of one coloured distance grid, laid side by side (``postprocess.slices``), in [0, 1]; sizes
are those of that picture, and a model has one. Parameters act by name, and a model declares those it offers:

- ``class``, ``blend_class``, ``blend``: what to make; ``blend`` moves the class weights from the first to the second.
- ``truncation``: 0 is the typical prop, 1 the full variety.
- sliders: every input of role ``slider`` takes the parameter of its name; 0 changes nothing.
- ``triangles``: at most so many, in the finest level of detail.
- ``levels``: levels of detail, each a file with at most half the triangles of the one before.
- ``normals``: ``flat``, every triangle by itself, or ``smooth``.
- ``format``: ``glb`` or ``obj``.
- ``size``: the longest side in metres; the base stands on the ground, its middle at the origin, Y up.
- ``preview``: edge of a picture of the mesh in pixels, 32 or more; 0 makes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from assetgen import check as arrays
from assetgen import latents
from assetgen.errors import FieldInvalid, InternalError, PackageInvalid
from assetgen.kinds.classes import NO_CLASS, asset_name, resolve_drawn
from assetgen.kinds.declared import check_declared
from assetgen.manifest import Manifest
from assetgen.package import VerifiedPackage
from assetgen.postprocess import encode, mesh_files, profiles, xmp
from assetgen.postprocess import mesh as meshes
from assetgen.postprocess.mesh import Mesh
from assetgen.postprocess.mesh_preview import picture_of_mesh
from assetgen.postprocess.slices import volume_edge, volume_from_atlas
from assetgen.types import Artifact, ColorSpace, Encoding, FloatArray, MapKind, OutputSpec, PixelFormat, Request

ROLE, LEVEL_ROLE, PREVIEW_ROLE = "mesh", "mesh_lod", "preview"
OUTPUT, CHANNELS = "volume", 4
INPUT_ROLES = frozenset({"latent", "class_weights", "truncation", "slider"})
FEWEST_TRIANGLES, MOST_TRIANGLES = 100, 50_000
SMALLEST_PREVIEW_PX = 32
GLB, OBJ = "glb", "obj"
FLAT, SMOOTH = "flat", "smooth"
# Name to type, and the smallest and largest value that this version can do.
_NUMBERS = {
    "blend": ("float", 0, 1),
    "truncation": ("float", 0, 1),
    "triangles": ("int", FEWEST_TRIANGLES, MOST_TRIANGLES),
    "levels": ("int", 1, 4),
    "size": ("float", 0.001, 1000),
    "preview": ("int", 0, 1024),
}
_CHOICES = {"normals": {FLAT, SMOOTH}, "format": {GLB, OBJ}}
_FILE_NAMES = {"unreal": "SM_{name}"}


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes:
        width_px, height_px: of the picture of slices that the graph makes.
        class_weights: one number a class, adding up to 1.
        sliders: value by name of the input.
        triangles: at most, of each level of detail, the finest first.
        size_m: longest side.
        preview_px: 0 for none.
    """

    seed: int
    first_index: int
    count: int
    width_px: int
    height_px: int
    class_weights: tuple[float, ...]
    truncation: float
    sliders: Mapping[str, float]
    triangles: tuple[int, ...]
    flat: bool
    format: str
    size_m: float
    preview_px: int
    class_name: str
    output: OutputSpec


def check(package: VerifiedPackage) -> None:
    """Raise PackageInvalid if the model declares what would not act, or what this version cannot do.

    Raises:
        RuntimeMissing: the libraries of the extra ``mesh`` are not installed.
    """
    meshes.check_libraries()
    manifest, where = package.manifest, package.folder
    made = [(output.map_kind, output.channels) for output in manifest.outputs]
    if made != [(OUTPUT, CHANNELS)]:
        raise PackageInvalid(f"{where}: a mesh model has one output, {OUTPUT!r} of {CHANNELS} channels, not {made}")
    size = manifest.size
    if size.min_px != size.max_px or not volume_edge(size.max_px):
        raise PackageInvalid(f"{where}: {size.min_px} to {size.max_px} px are not the slices of one cube of cells")
    if strange := {spec.role for spec in manifest.inputs} - INPUT_ROLES:
        raise PackageInvalid(f"{where}: a mesh model takes no input of role {min(strange)!r}")
    names = {known.name for known in manifest.classes}
    choices = _CHOICES | {"class": names, "blend_class": names | {NO_CLASS}}
    check_declared(package, "mesh model", choices, _NUMBERS)


def made_maps(_manifest: Manifest) -> tuple[MapKind, ...]:
    """None: a mesh is no map of a material."""
    return ()


def resolve(manifest: Manifest, request: Request) -> Plan:
    """Check the request against the model, and fill in what it leaves open; raises FieldInvalid."""
    fields, values = resolve_drawn(manifest, request)
    _check_output(request.output)
    return Plan(
        **fields,
        triangles=_budgets(values.get("triangles", 2000), values.get("levels", 1)),
        flat=values.get("normals", FLAT) == FLAT,
        format=values.get("format", GLB),
        size_m=values.get("size", 1.0),
        preview_px=_preview_px(values.get("preview", 0)),
    )


def prepare(manifest: Manifest, plan: Plan, index: int) -> dict[str, FloatArray]:
    """Make the graph's inputs for asset ``index``: name to array, batch dimension 1."""
    values: dict[str, FloatArray] = {
        "latent": latents.latent(latents.generator(plan.seed, index), manifest.latent_dimension)[None],
        "class_weights": np.array([plan.class_weights], dtype=np.float32),
        "truncation": np.array([[plan.truncation]], dtype=np.float32),
    }
    inputs = {spec.name: values[spec.role] for spec in manifest.inputs if spec.role in values}
    return inputs | {name: np.array([[value]], dtype=np.float32) for name, value in plan.sliders.items()}


def finish(manifest: Manifest, plan: Plan, index: int, outputs: Mapping[str, FloatArray]) -> Iterator[Artifact]:
    """Turn the graph's output (``[1, 4, h, w]`` in [0, 1]) for asset ``index`` into files, the finest mesh first.

    Raises:
        ValueError: the output is not finite, or not what the manifest says.
        InternalError: the volume is empty, or needs more triangles than allowed.
    """
    spec = manifest.outputs[0]
    arrays.shape(outputs[spec.name], f"1 {CHANNELS} {plan.height_px} {plan.width_px}", spec.name)
    volume = volume_from_atlas(outputs[spec.name][0])
    facts = {"model": manifest.id, "version": manifest.version, "seed": str(plan.seed), "index": str(index)}
    stem = _FILE_NAMES.get(plan.output.profile, "{name}").format(
        name=asset_name(plan.output.name, plan.class_name, plan.seed, index)
    )
    finest = None
    for level, triangles in enumerate(plan.triangles):
        mesh = meshes.mesh_within(volume, triangles)
        if mesh is None:
            raise InternalError("the model made nothing for this seed", hint="take another seed, or less truncation")
        mesh = meshes.placed(mesh, plan.size_m)
        finest = finest or mesh
        name = f"{stem}_LOD{level}" if len(plan.triangles) > 1 else stem
        yield _file(index, f"{LEVEL_ROLE}{level}" if level else ROLE, name, plan, mesh, facts)
    if plan.preview_px and finest is not None:
        yield _preview(index, f"{stem}_preview", plan, finest, facts)


def _file(index: int, role: str, name: str, plan: Plan, mesh: Mesh, facts: Mapping[str, str]) -> Artifact:
    write = mesh_files.glb_bytes if plan.format == GLB else mesh_files.obj_bytes
    data = write(mesh, name, flat=plan.flat, facts=facts)
    return Artifact(
        index=index,
        role=role,
        name=f"{name}.{plan.format}",
        media_type=mesh_files.GLB_MEDIA_TYPE if plan.format == GLB else mesh_files.OBJ_MEDIA_TYPE,
        pixel_format=None,
        color_space=None,
        width_px=0,
        height_px=0,
        data=data,
    )


def _preview(index: int, name: str, plan: Plan, mesh: Mesh, facts: Mapping[str, str]) -> Artifact:
    encoding = plan.output.encoding
    metadata = xmp.xmp_packet(dict(facts)) if encoding is Encoding.PNG else b""
    data = encode.encode(
        picture_of_mesh(mesh, plan.preview_px),
        PixelFormat.RGBA8,
        encoding,
        color_space=ColorSpace.SRGB,
        metadata=metadata,
    )
    return Artifact(
        index=index,
        role=PREVIEW_ROLE,
        name=f"{name}.{encoding.value}",
        media_type=encode.media_type(encoding),
        pixel_format=PixelFormat.RGBA8,
        color_space=ColorSpace.SRGB,
        width_px=plan.preview_px,
        height_px=plan.preview_px,
        data=data,
    )


def _budgets(triangles: int, levels: int) -> tuple[int, ...]:
    """Triangles of each level; a last level of too few is refused, rather than given as another."""
    budgets = tuple(triangles >> level for level in range(levels))
    if budgets[-1] < FEWEST_TRIANGLES:
        raise FieldInvalid(
            f"parameters[levels]: {levels} levels from {triangles} triangles end at {budgets[-1]}; "
            f"the last needs {FEWEST_TRIANGLES} or more",
            field="parameters[levels]",
            hint=f"use triangles of {FEWEST_TRIANGLES << (levels - 1)} or more, or fewer levels",
            metadata={"value": str(levels), "triangles": str(triangles)},
        )
    return budgets


def _preview_px(edge_px: int) -> int:
    if 0 < edge_px < SMALLEST_PREVIEW_PX:
        raise FieldInvalid(
            f"parameters[preview]: {edge_px} is not allowed; use 0 for none, or {SMALLEST_PREVIEW_PX} px or more",
            field="parameters[preview]",
            metadata={"value": str(edge_px), "parameter": "preview"},
        )
    return edge_px


def _check_output(output: OutputSpec) -> None:
    """Refuse what has no meaning for meshes, rather than ignore it."""
    profiles.find_profile(output.profile)
    for name, given in (("maps", ", ".join(output.maps)), ("normal_convention", output.normal_convention or "")):
        if given:
            raise FieldInvalid(
                f"output.{name}: got {given}, but a mesh has no maps",
                hint="leave it out",
                field=f"output.{name}",
                metadata={"given": str(given)},
            )
