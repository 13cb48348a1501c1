"""A Principled material from the files of one generation; every node is named after the map it carries."""

import json
from pathlib import Path
from typing import Any

import bpy

from .forms import RECIPE

COLUMN = {"texture": -700, "middle": -350, "shader": 0, "output": 350}
ROWS = ("base_color", "ambient_occlusion", "metallic", "roughness", "normal", "height")


def load_images(files: list[tuple[str, Path, bool]], pack: bool) -> dict[str, bpy.types.Image]:
    """Load (role, path, is colour), or reload what is loaded; with ``pack`` the .blend keeps the bytes itself."""
    images = {}
    for role, path, is_color in files:
        image = bpy.data.images.load(str(path), check_existing=True)
        if not image.packed_file:
            image.reload()
        image.colorspace_settings.name = "sRGB" if is_color else "Non-Color"
        image.alpha_mode = "NONE"
        if pack and not image.packed_file:
            image.pack()
        elif bpy.data.is_saved and path.is_relative_to(Path(bpy.data.filepath).parent):
            image.filepath = bpy.path.relpath(str(path))
        images[role] = image
    return images


def build(
    name: str, recipe: dict[str, Any], images: dict[str, bpy.types.Image], use_displacement: bool
) -> bpy.types.Material:
    """A new material; its normal map has Y up, as Blender's own."""
    material = bpy.data.materials.new(name)
    material[RECIPE] = json.dumps(recipe, sort_keys=True)
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    output = _node(tree, "ShaderNodeOutputMaterial", "output", "output", 0)
    shader = _node(tree, "ShaderNodeBsdfPrincipled", "principled", "shader", 0)
    tree.links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    coordinates = _node(tree, "ShaderNodeTexCoord", "coordinates", "texture", 0)
    mapping = _node(tree, "ShaderNodeMapping", "tiling", "texture", 0)
    coordinates.location.x, mapping.location.x = -1150, -950
    tree.links.new(coordinates.outputs["UV"], mapping.inputs["Vector"])
    colors = {}
    for role, image in images.items():
        texture = _node(tree, "ShaderNodeTexImage", role, "texture", ROWS.index(role) if role in ROWS else len(ROWS))
        texture.image, texture.extension = image, "REPEAT"
        tree.links.new(mapping.outputs["Vector"], texture.inputs["Vector"])
        colors[role] = texture.outputs["Color"]
    _connect(tree, shader, output, colors, use_displacement)
    material.displacement_method = "DISPLACEMENT" if use_displacement else "BUMP"
    return material


def refresh(material: bpy.types.Material, recipe: dict[str, Any], images: dict[str, bpy.types.Image]) -> bool:
    """Give a material new images and leave the rest of its nodes alone; False if it has lost one of their nodes."""
    nodes = [material.node_tree.nodes.get(role) if material.node_tree else None for role in images]
    if any(node is None or node.type != "TEX_IMAGE" for node in nodes):
        return False
    for node, image in zip(nodes, images.values(), strict=True):
        node.image = image
    material[RECIPE] = json.dumps(recipe, sort_keys=True)
    return True


def assign(material: bpy.types.Material, target: bpy.types.Object | None) -> bool:
    """Put the material into the object's active slot; one that no object takes is kept by a fake user."""
    if target is None or not hasattr(target.data, "materials"):
        material.use_fake_user = True
        return False
    target.active_material = material
    return True


def _connect(tree: Any, shader: Any, output: Any, colors: dict[str, Any], use_displacement: bool) -> None:
    if "base_color" in colors and "ambient_occlusion" in colors:
        # Principled has no input for it: multiplied into the colour, and turned down by this node's factor.
        mix = _node(tree, "ShaderNodeMix", "occlusion", "middle", 0)
        mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
        mix.inputs["Factor"].default_value = 1.0
        tree.links.new(colors["base_color"], next(slot for slot in mix.inputs if slot.identifier == "A_Color"))
        tree.links.new(colors["ambient_occlusion"], next(slot for slot in mix.inputs if slot.identifier == "B_Color"))
        mixed = next(slot for slot in mix.outputs if slot.identifier == "Result_Color")
        tree.links.new(mixed, shader.inputs["Base Color"])
    elif "base_color" in colors:
        tree.links.new(colors["base_color"], shader.inputs["Base Color"])
    for role, slot in (("metallic", "Metallic"), ("roughness", "Roughness")):
        if role in colors:
            tree.links.new(colors[role], shader.inputs[slot])
    if "normal" in colors:
        normal = _node(tree, "ShaderNodeNormalMap", "normal map", "middle", 4)
        tree.links.new(colors["normal"], normal.inputs["Color"])
        tree.links.new(normal.outputs["Normal"], shader.inputs["Normal"])
    if "height" in colors:
        displacement = _node(tree, "ShaderNodeDisplacement", "displacement", "middle", 5)
        displacement.inputs["Midlevel"].default_value = 0.5
        displacement.inputs["Scale"].default_value = 0.05
        tree.links.new(colors["height"], displacement.inputs["Height"])
        if use_displacement:
            tree.links.new(displacement.outputs["Displacement"], output.inputs["Displacement"])


def _node(tree: Any, kind: str, name: str, column: str, row: int) -> Any:
    node = tree.nodes.new(kind)
    node.name = node.label = name
    node.location = (COLUMN[column], -300 * row)
    return node
