"""The Blender add-on in real Blender, against a real server of another Python: `python plugins/blender/test.py`."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

bpy = pytest.importorskip("bpy", reason="BLENDER NOT TESTED: run `python plugins/blender/test.py`")

import grpc  # noqa: E402 -- after bpy, as in Blender

from assetgen import launch  # noqa: E402 -- stdlib only: this Python has no server

pytestmark = pytest.mark.blender
ROOT = Path(__file__).resolve().parents[2]
SERVER_PYTHON = os.environ.get("ASSETGEN_SERVER_PYTHON", sys.executable)
MODELS = "import sys, pathlib; from tests.helpers.serving import write_model as w; f = pathlib.Path(sys.argv[1])\n"
MODELS += "w(f); w(f, 'slow', channels=96)"
MAPS = {"base_color", "normal", "roughness", "metallic", "ambient_occlusion", "height"}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([SERVER_PYTHON, "-c", MODELS, str(folder)], cwd=ROOT, check=True)
    return folder


def start(models):
    with patch.object(launch.sys, "executable", SERVER_PYTHON):
        return launch.ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1"])


@pytest.fixture(scope="session")
def server(models):
    with start(models) as running:
        yield running


@pytest.fixture(scope="session")
def checkout():
    sys.path.insert(0, str(ROOT / "plugins" / "blender"))
    import checkout

    return checkout


@pytest.fixture
def addon(checkout):
    """The add-on, enabled in a new file that has one plane."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    module = checkout.enable("127.0.0.1:1")
    bpy.ops.mesh.primitive_plane_add()
    yield module
    checkout.disable()


def point_at(checkout, target):
    bpy.context.preferences.addons[checkout.MODULE].preferences.target = target


@pytest.fixture
def connected(addon, checkout, server):
    """The add-on, connected to the server, with the small model chosen at 64 px."""
    point_at(checkout, server.address)
    assert bpy.ops.assetgen.connect() == {"FINISHED"}
    choose("tiny")
    return addon


def choose(model, size_px=64, **parameters):
    settings = bpy.context.scene.assetgen
    settings.model = model
    settings.form.width_px = settings.form.height_px = size_px
    for name, value in parameters.items():
        setattr(settings.form, f"param_{name}", value)
    return settings


@pytest.fixture
def saved(connected, tmp_path):
    """The same in a .blend of its own folder."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    return tmp_path


def refused(operator, lines=2):
    """What an operator reports as an error: what is wrong, and in a second line what to do."""
    with pytest.raises(RuntimeError) as caught:
        operator()
    said = str(caught.value)
    assert said.startswith("Error: ")
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == lines, said
    return said


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".blend"}


def active():
    return bpy.context.object.active_material


def source(socket):
    (link,) = socket.links
    return link.from_node


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


def textures(material):
    return [node for node in material.node_tree.nodes if node.type == "TEX_IMAGE"]


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


def cancel_when(running, addon):
    def wait_and_cancel():
        while not running(addon.operators.running):
            time.sleep(0.005)
        addon.operators.running.cancel()

    thread = threading.Thread(target=wait_and_cancel)
    thread.start()
    return thread


def test_cancel_in_the_middle_frees_the_server(addon, checkout, models, tmp_path):
    with start(models) as own:
        point_at(checkout, own.address)
        bpy.ops.assetgen.connect()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
        choose("slow", 1024)
        thread = cancel_when(lambda job: job is not None and job.stage == "generating", addon)
        assert bpy.ops.assetgen.generate() == {"CANCELLED"}
        thread.join()
        assert addon.operators.running is None
        assert contents(tmp_path) == {}
        assert len(bpy.data.materials) == 0
        choose("tiny", 64)
        assert bpy.ops.assetgen.generate() == {"FINISHED"}
        own.process.terminate()
        own.process.wait()
        log = own.errors()
    assert '"code": "CANCELLED"' in log
    assert "draining: 0 calls under way" in log


def test_a_server_killed_midway_is_told_and_leaves_no_file(addon, checkout, models, tmp_path):
    with start(models) as own:
        point_at(checkout, own.address)
        bpy.ops.assetgen.connect()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
        choose("slow", 1024)

        def kill():
            while (job := addon.operators.running) is None or job.stage != "generating":
                time.sleep(0.005)
            own.process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        said = refused(bpy.ops.assetgen.generate)
        thread.join()
        assert own.address in said
        assert "assetgen serve" in said
        assert contents(tmp_path) == {}
        assert len(bpy.data.materials) == 0
        assert "assetgen serve" in refused(bpy.ops.assetgen.connect)
        assert addon.forms.server is None
        assert "assetgen serve" in addon.forms.problem.hint


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1"])
def test_an_absent_server_is_told_with_the_command_to_start_one(addon, checkout, target):
    point_at(checkout, target)
    said = refused(bpy.ops.assetgen.connect)
    assert target in said
    assert "assetgen serve" in said
    assert "no model is chosen" in refused(bpy.ops.assetgen.generate)


def test_other_machines_need_online_access(addon, checkout):
    point_at(checkout, "no-such-host.invalid:50051")
    assert "offline" in refused(bpy.ops.assetgen.connect)
    bpy.context.preferences.system.use_online_access = True
    try:
        said = refused(bpy.ops.assetgen.connect)
    finally:
        bpy.context.preferences.system.use_online_access = False
    assert "no-such-host.invalid" in said


@pytest.mark.parametrize("target", ["", "localhost", "http://localhost:50051", "a b:1"])
def test_addresses_that_are_none_are_told(addon, checkout, target):
    point_at(checkout, target)
    bpy.context.preferences.system.use_online_access = True
    try:
        assert "preferences" in refused(bpy.ops.assetgen.connect)
    finally:
        bpy.context.preferences.system.use_online_access = False


@contextmanager
def server_that_says(pb2, asset_pb2, *events):
    """A real gRPC server whose every stream is ``events``."""
    answer = [pb2.GenerateResponse(**event).SerializeToString() for event in events]
    handler = grpc.unary_stream_rpc_method_handler(lambda _request, _context: iter(answer))
    generic = grpc.method_handlers_generic_handler("assetgen.v1.GenerationService", {"Generate": handler})
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def artifact(data=b"abcd", **changes):
    facts = {"role": "height", "name": "x_Height.png", "media_type": "image/png", "size_bytes": len(data)}
    return {"artifact": facts | {"sha256": hashlib.sha256(data).digest()} | changes}


STARTED, FINISHED, BYTES = {"started": {"seed": 1}}, {"finished": {}}, {"chunk": b"abcd"}
DAMAGED = {
    "other bytes": [STARTED, artifact(), BYTES, artifact(b"abce"), BYTES, FINISHED],
    "too many bytes": [STARTED, artifact(b"abc"), BYTES, FINISHED],
    "no end": [STARTED, artifact(), BYTES],
    "half a file": [STARTED, artifact(), {"chunk": b"ab"}, FINISHED],
    "a file cut by another": [STARTED, artifact(), artifact(), BYTES, FINISHED],
    "bytes of no file": [STARTED, BYTES, FINISHED],
    "nothing": [],
    "no file": [STARTED, FINISHED],
    "a huge file": [STARTED, artifact(size_bytes=2**40), BYTES, FINISHED],
    "a path": [STARTED, artifact(name="../x.png"), BYTES, FINISHED],
    "a script": [STARTED, artifact(name="x.py"), BYTES, FINISHED],
    "not a picture": [STARTED, artifact(media_type="text/plain"), BYTES, FINISHED],
}


@pytest.mark.parametrize("events", DAMAGED.values(), ids=DAMAGED)
def test_damaged_answers_are_told_and_leave_no_file(saved, connected, checkout, events):
    from bl_ext.checkout.assetgen_blender import client

    with server_that_says(client.generation_service_pb2, client.asset_pb2, *events) as target:
        point_at(checkout, target)
        refused(bpy.ops.assetgen.generate)
    assert contents(saved) == {}
    assert len(bpy.data.materials) == 0


def test_a_sound_answer_of_that_server_is_taken(connected, checkout):
    from bl_ext.checkout.assetgen_blender import client, job

    with server_that_says(client.generation_service_pb2, None, STARTED, artifact(), BYTES, FINISHED) as target:
        recipe = connected.forms.recipe_of(bpy.context.scene.assetgen)
        done = job.Job(lambda job: client.generate(target, recipe, "x", job))
        assert done.poll(60) or done.poll(60)
    assert [(file.role, file.data) for file in done.result] == [("height", b"abcd")]


def test_a_folder_that_cannot_be_written_is_told(saved, checkout):
    (saved / "taken").write_text("a file")
    preferences = bpy.context.preferences.addons[checkout.MODULE].preferences
    preferences.folder = "//taken"
    assert "taken" in refused(bpy.ops.assetgen.generate)
    assert set(contents(saved)) == {"taken"}


def test_a_second_job_waits_its_turn(connected):
    connected.operators.running = connected.operators.Job(lambda job: job.cancelled.wait())
    assert "busy" in refused(bpy.ops.assetgen.generate)
    job = connected.operators.running
    bpy.ops.assetgen.cancel()
    while not job.poll(1.0):
        pass
    connected.operators.running = None
    assert bpy.ops.assetgen.generate() == {"FINISHED"}


class Event:
    def __init__(self, type, value="NOTHING"):
        self.type, self.value = type, value


def pressed(addon, presses):
    """Run Generate as its button does, with Blender's own window, timer and status line, but events made here."""

    class Button(addon.operators.Making):
        recipe_of = addon.operators.ASSETGEN_OT_generate.recipe_of
        said: list = []  # noqa: RUF012

        def report(self, kind, text):
            self.said.append((kind, text))

    button, context = Button(), bpy.context
    assert button._start(context)
    button.timer = context.window_manager.event_timer_add(0.1, window=context.window)
    assert button.modal(context, Event("MOUSEMOVE")) == {"PASS_THROUGH"}  # Blender stays usable
    for press in presses:
        assert button.modal(context, press) == {"RUNNING_MODAL"}
    while (answer := button.modal(context, Event("TIMER"))) == {"PASS_THROUGH"}:
        time.sleep(0.01)
    assert addon.operators.running is None
    return answer, button.said


def test_the_button_works_while_blender_goes_on(connected):
    assert pressed(connected, []) == ({"FINISHED"}, [])
    assert active().name == "Clay 1"


def test_escape_cancels(connected):
    choose("slow", 1024)
    assert pressed(connected, [Event("ESC", "PRESS")]) == ({"CANCELLED"}, [({"WARNING"}, "assetgen: cancelled")])
    assert active() is None


class Layout:
    """Stands for Blender's layouts, which exist only in a window; checks calls against their real signatures."""

    def __init__(self, seen):
        self.seen = seen

    def __getattr__(self, name):
        parameters = bpy.types.UILayout.bl_rna.functions[name].parameters

        def call(*arguments, **options):
            assert set(options) <= set(parameters.keys()), (name, options)
            if "icon" in options:
                assert options["icon"] in parameters["icon"].enum_items
            if name == "prop":
                assert arguments[1] in arguments[0].bl_rna.properties
            if name == "operator":
                assert hasattr(bpy.types, arguments[0].replace("assetgen.", "ASSETGEN_OT_"))
            self.seen.append((name, options.get("text") or (arguments[-1] if arguments else "")))
            return Layout(self.seen)

        return call


def drawn(addon):
    seen = []

    class Panel:
        layout = Layout(seen)

    addon.panel.ASSETGEN_PT_panel.draw(Panel, bpy.context)
    return [text for _, text in seen]


def test_the_panel_draws_what_is_true(addon, checkout, server):
    assert "Not connected to 127.0.0.1:1" in drawn(addon)
    assert {"assetgen serve", "assetgen.connect"} <= set(drawn(addon))
    refused(bpy.ops.assetgen.connect)
    assert any("no assetgen server answers" in text for text in drawn(addon))
    point_at(checkout, server.address)
    bpy.ops.assetgen.connect()
    choose("tiny")
    connected = drawn(addon)
    assert any(server.address in text for text in connected)
    assert {"model", "param_class", "param_relief", "seed", "width_px", "assetgen.generate"} <= set(connected)
    assert "assetgen.vary" not in connected
    bpy.ops.assetgen.generate()
    assert {"Clay 1", "assetgen.regenerate", "assetgen.vary"} <= set(drawn(addon))
    addon.operators.running = addon.operators.Job(lambda job: job.cancelled.wait())
    assert "assetgen.cancel" in drawn(addon)
    addon.operators.running.cancel()


INSTALL = """
import sys, bpy
bpy.ops.extensions.package_install_files(filepath=sys.argv[1], repo="user_default", enable_on_install=True)
assert "bl_ext.user_default.assetgen" in bpy.context.preferences.addons, "not enabled"
bpy.context.preferences.addons["bl_ext.user_default.assetgen"].preferences.target = sys.argv[2]
assert bpy.ops.assetgen.connect() == {"FINISHED"}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the archive is built for Linux here")
def test_the_archive_installs_with_its_wheels(server, tmp_path):
    command = [sys.executable, str(ROOT / "plugins/blender/build.py"), "zip", "--platform", "linux-x64"]
    command += ["-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"ARCHIVE NOT TESTED: no wheels without a network: {done.stderr[-300:]}")
    (archive,) = tmp_path.glob("*.zip")
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    command = [sys.executable, "-c", INSTALL, str(archive), server.address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheels = {path.name for path in (tmp_path / "user/extensions/.local/lib/python3.11/site-packages").iterdir()}
    assert {"grpc", "google"} <= wheels


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
