"""Render generated materials on spheres with the add-on: needs `bpy` (see test.py) and a running server.

$ .venv/blender/bin/python plugins/blender/render_demo.py --server localhost:50051 -o docs/images/blender.png
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bpy
import checkout

SPACING = 2.25
TILES_AROUND = 3  # half as many from pole to pole, so that texels are square at the equator


def add_sphere(number: int, count: int) -> bpy.types.Object:
    """A sphere of radius 1 on the ground, its seam behind and its pole tilted away from the camera."""
    x = (number - (count - 1) / 2) * SPACING
    tilt = (math.radians(-24), 0, math.radians(40))
    bpy.ops.mesh.primitive_uv_sphere_add(segments=128, ring_count=64, radius=1, location=(x, 0, 1), rotation=tilt)
    bpy.ops.object.shade_smooth()
    return bpy.context.object


def add_light(location: tuple[float, float, float], size: float, power_w: float) -> None:
    """A square area light that looks at the middle of the row."""
    bpy.ops.object.light_add(type="AREA", location=location)
    light = bpy.context.object
    light.data.size, light.data.energy = size, power_w
    look_at(light, (0, 0, 1))


def look_at(thing: bpy.types.Object, point: tuple[float, float, float]) -> None:
    """Turn a camera or light towards a point."""
    track = thing.constraints.new("TRACK_TO")
    bpy.ops.object.empty_add(location=point)
    track.target, track.track_axis, track.up_axis = bpy.context.object, "TRACK_NEGATIVE_Z", "UP_Y"


def set_stage(count: int) -> None:
    """Ground, soft light and a camera that takes in `count` spheres."""
    bpy.ops.mesh.primitive_plane_add(size=200)
    ground = bpy.data.materials.new("Ground")
    ground.use_nodes = True
    ground.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (0.32, 0.32, 0.33, 1)
    ground.node_tree.nodes["Principled BSDF"].inputs["Roughness"].default_value = 0.7
    bpy.context.object.active_material = ground
    add_light((-6, -7, 7), 4, 1500)
    add_light((8, -5, 4), 3, 350)
    add_light((0, 6, 6), 6, 500)
    world = bpy.data.worlds.new("World")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.55, 0.6, 0.68, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.6
    bpy.context.scene.world = world
    bpy.ops.object.camera_add(location=(0, -13, 3.4))
    camera = bpy.context.object
    camera.data.lens = 36 * 13.2 / (count * SPACING + 0.1)
    look_at(camera, (0, 0, 0.92))
    bpy.context.scene.camera = camera


def render(path: Path, width_px: int, height_px: int, samples: int) -> None:
    """Render in Cycles on the CPU."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.use_denoising = "CPU", samples, False
    scene.view_settings.view_transform = "AgX"
    scene.render.resolution_x, scene.render.resolution_y = width_px, height_px
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGB"
    scene.render.filepath = str(path.resolve())
    bpy.ops.render.render(write_still=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="localhost:50051", help="host:port (localhost:50051)")
    parser.add_argument("--model", default="", help="id (the first of the server)")
    parser.add_argument("--classes", default="brick,wood,metal,rock", help="one sphere each, each NAME or NAME:SEED")
    parser.add_argument("--seed", default="1", help="of classes without their own (1)")
    parser.add_argument("--size", type=int, default=512, help="of the textures, in pixels (512)")
    parser.add_argument("--width", type=int, default=640, help="of the picture, in pixels (640)")
    parser.add_argument("--height", type=int, default=220, help="of the picture, in pixels (220)")
    parser.add_argument("--samples", type=int, default=128, help="rays a pixel (128)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/blender.png"), help="picture (out/blender.png)")
    options = parser.parse_args(argv)

    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    checkout.enable(options.server)
    try:
        bpy.ops.assetgen.connect()
        settings = bpy.context.scene.assetgen
        settings.model = options.model or settings.model
        settings.form.width_px = settings.form.height_px = options.size
        spheres = options.classes.split(",")
        set_stage(len(spheres))
        for number, text in enumerate(spheres):
            name, _, seed = text.partition(":")
            settings.form.param_class, settings.seed = name, seed or options.seed
            sphere = add_sphere(number, len(spheres))
            bpy.ops.assetgen.generate()
            tiling = sphere.active_material.node_tree.nodes["tiling"]
            tiling.inputs["Scale"].default_value = (TILES_AROUND, TILES_AROUND / 2, 1)
    except (RuntimeError, TypeError) as error:  # what operators report; a name that the model does not have
        print(f"{error}", file=sys.stderr)
        return 1
    render(options.output, options.width, options.height, options.samples)
    return 0


if __name__ == "__main__":
    sys.exit(main())
