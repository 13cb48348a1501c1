"""The Blender add-on's button, panel and archive, in real Blender: `python plugins/blender/test.py`."""

import os
import subprocess
import sys
import time

import pytest

bpy = pytest.importorskip("bpy", reason="BLENDER NOT TESTED: run `python plugins/blender/test.py`")

from tests.helpers.blender import ROOT, active, choose, point_at, refused  # noqa: E402

pytestmark = pytest.mark.blender


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
