"""assetgen for Blender: tileable PBR materials from an assetgen server; licence GPL-3.0-or-later."""

import bpy

from . import forms, operators, panel

CLASSES = (forms.ASSETGEN_PG_settings, *operators.CLASSES, *panel.CLASSES)


def register() -> None:
    """Called by Blender when the add-on is enabled."""
    for known in CLASSES:
        bpy.utils.register_class(known)
    bpy.types.Scene.assetgen = bpy.props.PointerProperty(type=forms.ASSETGEN_PG_settings)


def unregister() -> None:
    """Called by Blender when the add-on is disabled; what it does is stopped."""
    if operators.running is not None:
        operators.running.cancel()
        operators.running = None
    forms.set_server(None)
    del bpy.types.Scene.assetgen
    for known in reversed(CLASSES):
        bpy.utils.unregister_class(known)
