"""What the buttons do; work runs on a thread, so `invoke` keeps Blender free, and `execute` waits, as scripts want."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy

from . import forms, material
from .job import AddonError, Cancelled, Job

START_COMMAND = "assetgen serve"
POLL_S = 0.1

running: Job | None = None


def _client(context: bpy.types.Context) -> tuple[Any, str]:
    """The client and the server's address; raises AddonError where gRPC is absent, or offline mode forbids it."""
    try:  # here and not above: gRPC takes a while to load, and Blender shall start without it
        from . import client
    except ImportError as error:
        raise AddonError(f"gRPC is missing: {error}", "install the zip that plugins/blender/build.py makes") from None
    target = context.preferences.addons[__package__].preferences.target.strip()
    if not bpy.app.online_access and not client.is_loopback(target):
        raise AddonError(f"Blender is set to be offline, and {target} is another machine", "allow online access first")
    return client, target


def _folder(context: bpy.types.Context) -> tuple[Path, bool]:
    """Where textures go, and whether to pack them, since that place does not last."""
    folder = context.preferences.addons[__package__].preferences.folder
    if folder.startswith("//") and not bpy.data.is_saved:
        return Path(bpy.app.tempdir) / "assetgen", True
    return Path(bpy.path.abspath(folder)), False


class Working:
    """An operator around a job: ``begin`` gives the work, ``end`` uses its result; both may raise AddonError."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        if not self._start(context):
            return {"CANCELLED"}
        try:
            while not self.job.poll(POLL_S):
                pass
        finally:
            self.job.cancel()  # Ctrl+C in a script; does nothing to a job that has ended
        return self._finish(context)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        if bpy.app.background:
            return self.execute(context)
        if not self._start(context):
            return {"CANCELLED"}
        self.timer = context.window_manager.event_timer_add(POLL_S, window=context.window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type == "ESC" and event.value == "PRESS":
            self.job.cancel()
            return {"RUNNING_MODAL"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"}
        ended = self.job.poll()
        context.workspace.status_text_set(f"assetgen: {self.job.stage} {self.job.fraction:.0%} (Esc cancels)")
        for area in context.screen.areas if context.screen else ():
            area.tag_redraw()
        if not ended:
            return {"PASS_THROUGH"}
        self._clear(context)
        return self._finish(context)

    def cancel(self, context: bpy.types.Context) -> None:
        global running  # noqa: PLW0603 -- one job at a time
        self.job.cancel()
        self._clear(context)
        running = None

    def _clear(self, context: bpy.types.Context) -> None:
        context.window_manager.event_timer_remove(self.timer)
        context.workspace.status_text_set(None)

    def _start(self, context: bpy.types.Context) -> bool:
        global running  # noqa: PLW0603 -- one job at a time
        try:
            if running is not None:
                raise AddonError("assetgen is busy", "wait, or cancel what it does")
            self.job = running = Job(self.begin(context))
        except AddonError as error:
            self.report({"ERROR"}, str(error))
            return False
        return True

    def _finish(self, context: bpy.types.Context) -> set[str]:
        global running  # noqa: PLW0603 -- one job at a time
        running = None
        try:
            if self.job.error is not None:
                raise self.job.error
            self.end(context, self.job.result)
        except Cancelled:
            self.report({"WARNING"}, "assetgen: cancelled")
            return {"CANCELLED"}
        except AddonError as error:
            self.failed(error)
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}

    def failed(self, error: AddonError) -> None:
        """Do what else an error asks for."""


class ASSETGEN_OT_connect(Working, bpy.types.Operator):
    """Ask the server what it can make."""

    bl_idname = "assetgen.connect"
    bl_label = "Connect"

    def begin(self, context: bpy.types.Context) -> Callable[[Job], Any]:
        client, target = _client(context)
        return lambda job: client.describe(target, job)

    def end(self, _context: bpy.types.Context, result: Any) -> None:
        forms.set_server(result)
        self.report({"INFO"}, f"assetgen {result.version} on {result.device}: {len(result.models)} models")

    def failed(self, error: AddonError) -> None:
        forms.set_server(None, error)


class Making(Working):
    """Generates from a recipe, writes the files and hands them to ``use``."""

    bl_options = {"UNDO"}

    def begin(self, context: bpy.types.Context) -> Callable[[Job], Any]:
        self.recipe = self.recipe_of(context)
        client, target = _client(context)
        folder, self.pack = _folder(context)
        self.object_name = context.object.name if context.object else ""
        _, name = forms.names_of(self.recipe)

        def work(job: Job) -> list[tuple[str, Path, bool]]:
            files = client.generate(target, self.recipe, name, job)
            paths = client.write(files, folder)
            return [(file.role, path, file.is_color) for file, path in zip(files, paths, strict=True)]

        return work

    def end(self, context: bpy.types.Context, result: list[tuple[str, Path, bool]]) -> None:
        self.use(context, material.load_images(result, self.pack))

    def use(self, context: bpy.types.Context, images: dict[str, bpy.types.Image]) -> None:
        """Build a new material and assign it."""
        name, _ = forms.names_of(self.recipe)
        made = material.build(name, self.recipe, images, context.scene.assetgen.use_displacement)
        if not material.assign(made, bpy.data.objects.get(self.object_name)):
            self.report({"INFO"}, f"no object is active that takes materials; {made.name} is in the file")


class ASSETGEN_OT_generate(Making, bpy.types.Operator):
    """Make a material and give it to the active object."""

    bl_idname = "assetgen.generate"
    bl_label = "Generate"

    def recipe_of(self, context: bpy.types.Context) -> dict[str, Any]:
        return forms.recipe_of(context.scene.assetgen)


class OfMaterial(Making):
    """Works on the recipe of the active material."""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        cls.poll_message_set("The active material was not made by assetgen")
        chosen = context.object.active_material if context.object else None
        return chosen is not None and forms.RECIPE in chosen

    def recipe_of(self, context: bpy.types.Context) -> dict[str, Any]:
        self.material_name = context.object.active_material.name
        return forms.read_recipe(context.object.active_material)


class ASSETGEN_OT_regenerate(OfMaterial, bpy.types.Operator):
    """Make the files of the active material again, from its recipe."""

    bl_idname = "assetgen.regenerate"
    bl_label = "Regenerate"

    def use(self, context: bpy.types.Context, images: dict[str, bpy.types.Image]) -> None:
        kept = bpy.data.materials.get(self.material_name)
        if kept is None or not material.refresh(kept, self.recipe, images):
            super().use(context, images)


class ASSETGEN_OT_vary(OfMaterial, bpy.types.Operator):
    """Make a new material that differs from the active one by its seed."""

    bl_idname = "assetgen.vary"
    bl_label = "Vary Seed"

    def recipe_of(self, context: bpy.types.Context) -> dict[str, Any]:
        return super().recipe_of(context) | {"seed": secrets.randbits(32)}


class ASSETGEN_OT_cancel(bpy.types.Operator):
    """Stop what assetgen does."""

    bl_idname = "assetgen.cancel"
    bl_label = "Cancel"

    def execute(self, _context: bpy.types.Context) -> set[str]:
        if running is not None:
            running.cancel()
        return {"FINISHED"}


class ASSETGEN_OT_dice(bpy.types.Operator):
    """Draw another seed."""

    bl_idname = "assetgen.dice"
    bl_label = "New Seed"
    bl_options = {"UNDO"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.scene.assetgen.seed = str(secrets.randbits(32))
        return {"FINISHED"}


class ASSETGEN_OT_copy_command(bpy.types.Operator):
    """Copy the command that starts a server."""

    bl_idname = "assetgen.copy_command"
    bl_label = "Copy Command"

    def execute(self, context: bpy.types.Context) -> set[str]:
        context.window_manager.clipboard = START_COMMAND
        return {"FINISHED"}


CLASSES = (
    ASSETGEN_OT_connect,
    ASSETGEN_OT_generate,
    ASSETGEN_OT_regenerate,
    ASSETGEN_OT_vary,
    ASSETGEN_OT_cancel,
    ASSETGEN_OT_dice,
    ASSETGEN_OT_copy_command,
)
