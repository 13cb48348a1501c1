"""The sidebar of the 3D view, and the preferences."""

import textwrap
from typing import Any

import bpy
from bpy.props import StringProperty

from . import forms, operators
from .job import AddonError

LINE_CHARS = 44


class ASSETGEN_preferences(bpy.types.AddonPreferences):
    """Where the server is, and where files go."""

    bl_idname = __package__

    target: StringProperty(name="Server", description="host:port of the assetgen server", default="localhost:50051")
    folder: StringProperty(
        name="Textures", description="Folder for textures; // is the folder of the .blend", default="//assetgen"
    )

    def draw(self, _context: bpy.types.Context) -> None:
        self.layout.prop(self, "target")
        self.layout.prop(self, "folder")


class ASSETGEN_PT_panel(bpy.types.Panel):
    """Connection, form, and the recipe of the active material."""

    bl_label = "assetgen"
    bl_idname = "ASSETGEN_PT_panel"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "assetgen"

    def draw(self, context: bpy.types.Context) -> None:
        settings = context.scene.assetgen
        _draw_connection(self.layout, context)
        if operators.running is not None:
            job = operators.running
            self.layout.progress(factor=job.fraction, text=f"{job.stage} {job.fraction:.0%}")
            self.layout.operator("assetgen.cancel", icon="CANCEL")
            return
        if forms.server is not None:
            _draw_form(self.layout, settings)
        _draw_recipe(self.layout, context.object.active_material if context.object else None)


def _draw_connection(layout: Any, context: bpy.types.Context) -> None:
    box = layout.box()
    if forms.server is not None:
        row = box.row()
        row.label(text=f"{forms.server.target}: {forms.server.version} on {forms.server.device}", icon="CHECKMARK")
        row.operator("assetgen.connect", text="", icon="FILE_REFRESH")
        return
    target = context.preferences.addons[__package__].preferences.target
    message = str(forms.problem) if forms.problem else f"Not connected to {target}"
    lines = [part for line in message.splitlines() for part in textwrap.wrap(line, LINE_CHARS)]
    for number, line in enumerate(lines):
        box.label(text=line, icon="ERROR" if forms.problem and number == 0 else "NONE")
    row = box.row()
    row.label(text=operators.START_COMMAND, icon="CONSOLE")
    row.operator("assetgen.copy_command", text="", icon="COPYDOWN")
    box.operator("assetgen.connect", icon="LINKED")


def _draw_form(layout: Any, settings: Any) -> None:
    layout.prop(settings, "model")
    try:
        form = settings.form
    except AddonError as error:
        layout.label(text=error.message, icon="ERROR")
        return
    groups: dict[str, Any] = {}
    for spec in forms.server.models[settings.model].parameters:
        if spec.group not in groups:
            groups[spec.group] = layout.column(heading=spec.group)
            if spec.group:
                groups[spec.group].label(text=spec.group)
        if name := forms.field_of(spec):
            groups[spec.group].prop(form, name, slider=True)
    row = layout.row(align=True)
    row.prop(settings, "seed")
    row.operator("assetgen.dice", text="", icon="FILE_REFRESH")
    row = layout.row(align=True)
    row.prop(form, "width_px")
    row.prop(form, "height_px")
    layout.prop(settings, "use_displacement")
    layout.operator("assetgen.generate", icon="MATERIAL")


def _draw_recipe(layout: Any, material: bpy.types.Material | None) -> None:
    if material is None or forms.RECIPE not in material:
        return
    box = layout.box()
    box.label(text=material.name, icon="MATERIAL")
    row = box.row(align=True)
    row.operator("assetgen.regenerate")
    row.operator("assetgen.vary")


CLASSES = (ASSETGEN_preferences, ASSETGEN_PT_panel)
