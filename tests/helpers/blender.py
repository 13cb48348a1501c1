"""What the tests of the Blender add-on share: a server of another Python, and short words for the add-on; needs bpy."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import bpy
import pytest

from assetgen import launch  # stdlib only: this Python has no server

ROOT = Path(__file__).resolve().parents[2]
ADDON_FOLDER = ROOT / "plugins" / "blender"
SERVER_PYTHON = os.environ.get("ASSETGEN_SERVER_PYTHON", sys.executable)
WRITE_MODELS = """
import pathlib, sys
from tests.helpers.serving import write_model
write_model(pathlib.Path(sys.argv[1]))
write_model(pathlib.Path(sys.argv[1]), "slow", channels=96)
"""


def start(models):
    with patch.object(launch.sys, "executable", SERVER_PYTHON):
        return launch.ServerProcess(["--models", str(models), "--device", "cpu", "--threads", "1"])


def point_at(checkout, target):
    bpy.context.preferences.addons[checkout.MODULE].preferences.target = target


def choose(model, size_px=64, **parameters):
    settings = bpy.context.scene.assetgen
    settings.model = model
    settings.form.width_px = settings.form.height_px = size_px
    for name, value in parameters.items():
        setattr(settings.form, f"param_{name}", value)
    return settings


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


def textures(material):
    return [node for node in material.node_tree.nodes if node.type == "TEX_IMAGE"]
