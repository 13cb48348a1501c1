"""The Blender add-on makes materials, in real Blender: `python plugins/blender/test.py`."""

import json
import re
import subprocess
from pathlib import Path

import pytest

bpy = pytest.importorskip("bpy", reason="BLENDER NOT TESTED: run `python plugins/blender/test.py`")

from tests.helpers.blender import ROOT, SERVER_PYTHON, active, choose, contents, refused, source, textures  # noqa: E402

pytestmark = pytest.mark.blender
MAPS = {"base_color", "normal", "roughness", "metallic", "ambient_occlusion", "height"}


def test_it_registers_and_unregisters_again_and_again(checkout):
    for _ in range(3):
        checkout.enable("127.0.0.1:1")
        assert hasattr(bpy.types, "ASSETGEN_OT_generate")
        assert hasattr(bpy.context.scene, "assetgen")
        checkout.disable()
        assert not hasattr(bpy.types, "ASSETGEN_OT_generate")
        assert not hasattr(bpy.context.scene, "assetgen")
        assert not [name for name in dir(bpy.types.Scene) if name.startswith("assetgen")]


def test_the_form_is_drawn_from_what_the_server_describes(connected):
    settings = bpy.context.scene.assetgen
    assert set(connected.forms.server.models) == {"slow", "tiny"}
    assert [item[0] for item in connected.forms._models] == ["NONE", "slow", "tiny"]
    fields = settings.form.bl_rna.properties
    assert [item.identifier for item in fields["param_class"].enum_items] == ["clay", "steel"]
    assert [item.name for item in fields["param_class"].enum_items] == ["Clay", "Steel"]
    relief = fields["param_relief"]
    assert (relief.type, relief.hard_min, relief.hard_max, relief.default) == ("FLOAT", 0.0, 4.0, 1.0)
    assert (relief.name, relief.description) == ("Relief", "Strength.")
    assert fields["param_variation_seed"].type == "STRING"  # beyond Blender's whole numbers
    assert fields["param_variation_seed"].default == "-1"
    width = fields["width_px"]
    assert (width.hard_min, width.hard_max, width.default, width.step) == (32, 1024, 64, 16)
    assert connected.forms.recipe_of(settings)["parameters"] == {
        "class": "clay",
        "blend_class": "none",
        "blend": 0.0,
        "truncation": 0.7,
        "relief": 1.0,
        "roughness_shift": 0.0,
        "pattern": "auto",
        "pattern_scale": 1.0,
        "variation_seed": -1,
    }


def test_connecting_again_keeps_what_was_chosen(connected):
    choose("tiny", 96, **{"class": "steel"})
    bpy.ops.assetgen.connect()
    assert bpy.context.scene.assetgen.model == "tiny"
    assert bpy.context.scene.assetgen.form.param_class == "steel"
    assert bpy.context.scene.assetgen.form.width_px == 96


def test_a_material_is_built_with_the_right_nodes_and_color_spaces(saved):
    bpy.context.scene.assetgen.seed = "4294967295"
    assert bpy.ops.assetgen.generate() == {"FINISHED"}
    material = active()
    assert material.name == "Clay 4294967295"
    nodes = material.node_tree.nodes
    images = {node.name: node for node in nodes if node.type == "TEX_IMAGE"}
    assert set(images) == MAPS
    for role, node in images.items():
        assert node.extension == "REPEAT"
        assert node.image.colorspace_settings.name == ("sRGB" if role == "base_color" else "Non-Color")
        assert tuple(node.image.size) == (64, 64)
        assert node.image.filepath.startswith("//assetgen")
        assert source(node.inputs["Vector"]) == nodes["tiling"]
    assert images["height"].image.is_float or images["height"].image.depth == 16
    shader = nodes["principled"]
    assert source(shader.inputs["Metallic"]).name == "metallic"
    assert source(shader.inputs["Roughness"]).name == "roughness"
    normal = source(shader.inputs["Normal"])
    assert (normal.type, normal.space) == ("NORMAL_MAP", "TANGENT")
    assert source(normal.inputs["Color"]).name == "normal"
    mix = source(shader.inputs["Base Color"])
    assert (mix.blend_type, mix.data_type) == ("MULTIPLY", "RGBA")
    linked = {link.from_node.name for link in material.node_tree.links if link.to_node == mix}
    assert linked == {"base_color", "ambient_occlusion"}
    assert source(nodes["displacement"].inputs["Height"]).name == "height"
    assert not nodes["output"].inputs["Displacement"].is_linked
    assert len(contents(saved)) == 6


def test_displacement_is_connected_when_asked_for(connected):
    bpy.context.scene.assetgen.use_displacement = True
    bpy.ops.assetgen.generate()
    assert source(active().node_tree.nodes["output"].inputs["Displacement"]).name == "displacement"
    assert active().displacement_method == "DISPLACEMENT"


def test_one_undo_takes_everything_back(connected):
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.assetgen.generate("EXEC_DEFAULT", True) == {"FINISHED"}
    assert (len(bpy.data.materials), len(bpy.data.images)) == (1, 6)
    bpy.ops.ed.undo()
    assert (len(bpy.data.materials), len(bpy.data.images)) == (0, 0)
    assert active() is None
    bpy.ops.ed.redo()
    assert active().name == "Clay 1"


def test_an_unsaved_file_keeps_its_textures_inside(connected, tmp_path):
    bpy.ops.assetgen.generate()
    name = active().name
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "later.blend"))
    before = {node.name: bytes(node.image.packed_file.data) for node in textures(active())}
    for path in Path(bpy.app.tempdir).rglob("*.png"):
        path.unlink()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "later.blend"))
    again = {node.name: bytes(node.image.packed_file.data) for node in textures(bpy.data.materials[name])}
    assert set(again) == MAPS
    assert again == before


def test_regenerate_gives_identical_files_and_leaves_other_nodes_alone(saved):
    choose("tiny", 96, **{"class": "steel", "relief": 2.5})
    bpy.ops.assetgen.generate()
    material, first = active(), contents(saved)
    recipe = json.loads(material["assetgen_recipe"])
    assert recipe["seed"] == 1
    assert recipe["width_px"] == 96
    assert recipe["parameters"]["relief"] == 2.5
    assert re.fullmatch("[0-9a-f]{64}", recipe["model_digest"])
    material.node_tree.nodes["principled"].inputs["IOR"].default_value = 1.25
    for path in (saved / "assetgen").iterdir():
        path.unlink()
    choose("slow", 64)  # the recipe counts, not the form
    assert bpy.ops.assetgen.regenerate() == {"FINISHED"}
    assert contents(saved) == first
    assert active() == material
    assert len(bpy.data.materials) == 1
    assert len(bpy.data.images) == 6
    assert material.node_tree.nodes["principled"].inputs["IOR"].default_value == 1.25


def test_files_are_those_that_any_other_client_gets(saved, server):
    bpy.ops.assetgen.generate()
    command = [SERVER_PYTHON, "-m", "assetgen", "generate", "--server", server.address, "--model", "tiny"]
    command += ["--seed", "1", "--size", "64", "--profile", "blender", "--output", str(saved / "other")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    others = sorted((saved / "other").glob("*.png"))
    assert len(others) == 6
    assert sorted(path.read_bytes() for path in others) == sorted(contents(saved / "assetgen").values())


def test_vary_makes_another_material_by_its_seed_alone(saved):
    bpy.ops.assetgen.generate()
    first = active()
    assert bpy.ops.assetgen.vary() == {"FINISHED"}
    assert active() != first
    one, two = (json.loads(material["assetgen_recipe"]) for material in (first, active()))
    assert one.pop("seed") != two.pop("seed")
    assert one == two
    assert len(contents(saved)) == 12


def test_a_recipe_of_other_weights_is_refused(connected):
    bpy.ops.assetgen.generate()
    recipe = json.loads(active()["assetgen_recipe"])
    active()["assetgen_recipe"] = json.dumps(recipe | {"model_digest": "00" * 32})
    assert "model_digest" in refused(bpy.ops.assetgen.regenerate)
    for damaged in ("{", "[]", "{}", json.dumps(recipe | {"width_px": "wide"})):
        active()["assetgen_recipe"] = damaged
        assert "generate the material anew" in refused(bpy.ops.assetgen.regenerate)


def test_dice_and_bad_seeds(connected):
    settings = bpy.context.scene.assetgen
    bpy.ops.assetgen.dice()
    assert 0 <= int(settings.seed) < 2**32
    for text in ("-1", "4294967296", "brick", "", "1.5"):
        settings.seed = text
        assert "4294967295" in refused(bpy.ops.assetgen.generate)


def test_what_the_server_refuses_is_told_with_its_hint(connected):
    choose("tiny", 33)
    said = refused(bpy.ops.assetgen.generate, lines=1)  # this one holds both
    assert "width_px: 33" in said
    assert "multiples of 16" in said
    recipe = connected.forms.recipe_of(choose("tiny", 64))
    bpy.ops.assetgen.generate()
    active()["assetgen_recipe"] = json.dumps(recipe | {"model_id": "absent"})
    assert "models served: slow, tiny" in refused(bpy.ops.assetgen.regenerate)


def test_without_an_object_the_material_is_kept(connected):
    bpy.data.objects.remove(bpy.context.object)
    assert bpy.ops.assetgen.generate() == {"FINISHED"}
    assert [material.use_fake_user for material in bpy.data.materials] == [True]


def render(path):
    """Render the active object's material on a sphere, 256 px, in Cycles on the CPU; return its pixels."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", 8, False
    scene.render.resolution_x = scene.render.resolution_y = 256
    scene.render.image_settings.file_format, scene.render.filepath = "PNG", str(path)
    scene.render.threads_mode, scene.render.threads = "FIXED", 1
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    return list(image.pixels)


def test_a_render_shows_the_material_and_differs_with_the_class(connected, tmp_path):
    bpy.ops.mesh.primitive_uv_sphere_add(segments=48, ring_count=24)
    sphere = bpy.context.object
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0.0))
    bpy.context.object.data.energy = 3.0
    bpy.ops.object.camera_add(location=(0.0, -4.0, 0.0), rotation=(1.5708, 0.0, 0.0))
    bpy.context.scene.camera = bpy.context.object
    bpy.context.view_layer.objects.active = sphere
    pictures = []
    for name in ("clay", "steel"):
        choose("tiny", 128, **{"class": name})
        bpy.ops.assetgen.generate()
        assert active().name == f"{name.capitalize()} 1"
        pictures.append(render(tmp_path / f"{name}.png"))
    clay, steel = pictures
    mean = sum(clay) / len(clay)
    assert mean > 0.3  # alpha alone is 0.25
    assert sum(abs(a - b) for a, b in zip(clay, steel, strict=True)) / len(clay) > 0.005
