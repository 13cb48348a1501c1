"""The add-on of this checkout in Blender as a Python module (`bpy`), for tests and scripts; needs bpy."""

from pathlib import Path
from types import ModuleType

import addon_utils
import bpy

MODULE = "bl_ext.checkout.assetgen_blender"


def enable(target: str) -> ModuleType:
    """Enable the add-on, as an extension of a repository that is this folder, and name the server it shall use."""
    repos = bpy.context.preferences.extensions.repos
    if "checkout" not in {repo.module for repo in repos}:
        repo = repos.new(name="Checkout", module="checkout", source="USER")
        repo.use_custom_directory, repo.custom_directory = True, str(Path(__file__).resolve().parent)
    module = addon_utils.enable(MODULE, default_set=True)
    if module is None:
        raise RuntimeError("Blender could not enable the add-on; the reason is above")
    bpy.context.preferences.addons[MODULE].preferences.target = target
    return module


def disable() -> None:
    """Disable it again."""
    addon_utils.disable(MODULE, default_set=True)
