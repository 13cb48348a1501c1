"""Blender with the add-on in it, connected or not; bpy is imported when a test asks for it."""

import importlib
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def words():
    """tests.helpers.blender, which needs bpy."""
    return importlib.import_module("tests.helpers.blender")


@pytest.fixture(scope="session")
def models(words, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    subprocess.run([words.SERVER_PYTHON, "-c", words.WRITE_MODELS, str(folder)], cwd=words.ROOT, check=True)
    return folder


@pytest.fixture(scope="session")
def server(words, models):
    with words.start(models) as running:
        yield running


@pytest.fixture(scope="session")
def checkout(words):
    sys.path.insert(0, str(words.ADDON_FOLDER))
    return importlib.import_module("checkout")


@pytest.fixture
def addon(words, checkout):
    """The add-on, enabled in a new file that has one plane."""
    words.bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    module = checkout.enable("127.0.0.1:1")
    words.bpy.ops.mesh.primitive_plane_add()
    yield module
    checkout.disable()


@pytest.fixture
def connected(words, addon, checkout, server):
    """The add-on, connected to the server, with the small model chosen at 64 px."""
    words.point_at(checkout, server.address)
    assert words.bpy.ops.assetgen.connect() == {"FINISHED"}
    words.choose("tiny")
    return addon


@pytest.fixture
def saved(words, connected, tmp_path):
    """The same in a .blend of its own folder."""
    words.bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    return tmp_path
