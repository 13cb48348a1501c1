"""What tests of the serving side share: a tiny model with every parameter, and events drained to the end."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from assetgen.manifest import PATTERNS, ParameterSpec
from assetgen.package import VerifiedPackage, verify_package, write_manifest
from assetgen.types import Artifact, Event, Finished, Started
from tests.helpers.tiny_package import CLASSES, tiny_manifest, write_tiny_package

PARAMETERS = (
    ParameterSpec("class", "Material", "What to make.", "choice", default="clay", values=CLASSES),
    ParameterSpec("blend_class", "Second", "What to mix in.", "choice", default="none", values=("none", *CLASSES)),
    ParameterSpec("blend", "Blend", "How much.", "float", minimum=0.0, maximum=1.0, default=0.0),
    ParameterSpec("truncation", "Variety", "0 is typical.", "float", minimum=0.0, maximum=1.0, default=0.7),
    ParameterSpec("relief", "Relief", "Strength.", "float", minimum=0.0, maximum=4.0, default=1.0),
    ParameterSpec("roughness_shift", "Rough", "Added.", "float", minimum=-1.0, maximum=1.0, default=0.0),
    ParameterSpec("pattern", "Pattern", "Cells.", "choice", default="auto", values=("auto", *PATTERNS)),
    ParameterSpec("pattern_scale", "Scale", "Of cells.", "float", minimum=0.25, maximum=4.0, default=1.0),
    ParameterSpec("variation_seed", "Layout", "-1: own.", "int", minimum=-1, maximum=2**32 - 1, default=-1),
)


def write_model(folder: Path, id: str = "tiny", *, channels: int = 8, max_px: int = 1024) -> VerifiedPackage:
    """Write a valid package with every parameter of texture models into ``folder / id``."""
    write_tiny_package(folder / id, id, channels=channels, max_px=max_px)
    write_manifest(folder / id, replace(tiny_manifest(id, max_px), parameters=PARAMETERS))
    return verify_package(folder / id)


def files(events: Iterable[Event]) -> dict[tuple[int, str], str]:
    """(index, role) to hash of every file, from events that must begin and end as the contract says."""
    seen = list(events)
    assert isinstance(seen[0], Started)
    assert isinstance(seen[-1], Finished)
    return {(event.index, event.role): event.sha256 for event in seen if isinstance(event, Artifact)}


def whole_files(events: Iterable[Event]) -> dict[tuple[int, str], bytes]:
    """What ``files`` checks, and every file itself, its hash checked too."""
    seen = list(events)
    hashes = files(seen)
    made = {(event.index, event.role): bytes(event.data) for event in seen if isinstance(event, Artifact)}
    assert {key: hashlib.sha256(data).hexdigest() for key, data in made.items()} == hashes
    return made


def assert_same_files(given: Mapping[tuple[int, str], bytes], expected: Mapping[tuple[int, str], bytes]) -> None:
    """Fail with both files in full: a byte that differs once in a thousand runs must tell where it came from."""
    assert given.keys() == expected.keys()
    for key, data in given.items():
        coded = [base64.b64encode(file).decode() for file in (data, expected[key])]
        assert data == expected[key], f"{key}: got {coded[0]}, expected {coded[1]}"
