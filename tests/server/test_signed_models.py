"""A real server that serves signed packages only: at its start, and when its folder of models changes."""

from __future__ import annotations

import shutil

import pytest

from assetgen.client import Client
from assetgen.errors import AssetgenError
from assetgen.launch import ServerProcess
from assetgen.package import SIGNATURE_NAME
from assetgen.signature import make_keys, sign_package
from assetgen.types import Request
from tests.helpers.serving import files, write_model
from tests.server.test_watch import until

SMALL = Request("tiny", seed=7, width_px=32, height_px=32)


@pytest.fixture
def key(tmp_path):
    make_keys(tmp_path / "studio.key")
    return tmp_path / "studio.key"


def arguments(models, *keys):
    required = [part for key in keys for part in ("--require-signature", f"{key}.pub")]
    return ["--models", str(models), *required, "--device", "cpu", "--threads", "1", "--watch-s", "0.05"]


def test_only_signed_packages_are_served_and_no_other_takes_their_place(tmp_path, key):
    models = tmp_path / "models"
    first = write_model(models)
    sign_package(first.folder, key)
    with ServerProcess(arguments(models, key)) as server, Client(server.address) as client:
        digests = lambda: {model.id: model.digest for model in client.models()}  # noqa: E731
        before = files(client.generate(SMALL))
        second = write_model(tmp_path / "aside", channels=12)
        shutil.copy(first.folder / SIGNATURE_NAME, second.folder)  # the studio's, of the package that it is to replace
        shutil.rmtree(first.folder)
        second.folder.rename(first.folder)
        until(lambda: "the models served before stay" in server.errors(), True)
        assert "not by a key that counts, for these files" in server.errors()
        assert digests() == {"tiny": first.digest}
        assert files(client.generate(SMALL)) == before

        sign_package(first.folder, key)
        until(digests, {"tiny": second.digest})
        assert files(client.generate(SMALL)) != before
        assert "Traceback" not in server.errors()


def test_a_server_does_not_start_with_what_is_not_signed(tmp_path, key):
    models = tmp_path / "models"
    folder = write_model(models).folder
    with pytest.raises(AssetgenError, match=r"not signed, model\.sig is missing"):
        ServerProcess(arguments(models, key)).__enter__()
    make_keys(tmp_path / "stranger.key")
    sign_package(folder, tmp_path / "stranger.key")
    with pytest.raises(AssetgenError, match="not by a key that counts"):
        ServerProcess(arguments(models, key)).__enter__()
    with ServerProcess(arguments(models, key, tmp_path / "stranger.key")) as server, Client(server.address) as client:
        assert [model.id for model in client.models()] == ["tiny"]
