"""The models of the tests of this folder: one of four channels, and one that takes long enough to be stopped."""

from __future__ import annotations

import pytest

from assetgen.package import VerifiedPackage, verify_package
from tests.helpers.tiny_package import write_tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> VerifiedPackage:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_package(folder)
    return verify_package(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> VerifiedPackage:
    folder = tmp_path_factory.mktemp("models") / "wide"
    write_tiny_package(folder, channels=32)
    return verify_package(folder)
