"""A device that finishes maps itself makes the files that the processor makes, here and in a process of its own."""

from dataclasses import replace

import numpy as np
import pytest

from assetgen.package import verify_package, write_manifest
from assetgen.postprocess import pbr
from assetgen.postprocess.profiles import PROFILES
from assetgen.process.supervisor import DeviceProcess
from assetgen.service import Service
from assetgen.types import Artifact, Encoding, MapKind, NormalConvention, OutputSpec, PixelFormat, Request
from assetgen.worker import Worker
from tests.helpers import finishing_device
from tests.helpers.serving import write_model

OUTPUTS = [
    *(OutputSpec(profile=profile) for profile in PROFILES),
    *(OutputSpec(profile=profile, encoding=Encoding.RAW) for profile in ("plain", "unreal", "unity-hdrp")),
    OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW),
    OutputSpec(normal_convention=NormalConvention.Y_DOWN),
]
PARAMETERS = {"relief": 2.5, "roughness_shift": -0.3}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plain(package):
    service = Service({"tiny": package}, Worker("cpu", 1))
    yield service
    service.close()


@pytest.fixture(scope="module", params=["here", "in a process"])
def finishing(request, package):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "here":
            patch.setattr("assetgen.sessions.open_session", finishing_device.open_model)
            worker = Worker("cpu", 1)
        else:
            process = DeviceProcess("cpu", 1, program=finishing_device.PROGRAM)
            worker = Worker("cpu", 1, process=process)
        service = Service({"tiny": package}, worker)
        service.preload()  # it compares itself with the processor
        yield service
        service.close()


def made(service, **changes):
    request = Request(**{"model_id": "tiny", "seed": 7, "width_px": 64, "height_px": 32} | changes)
    return [event for event in service.generate(request) if isinstance(event, Artifact)]


def refuse(*_):
    raise AssertionError("the processor was asked")


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
@pytest.mark.parametrize("parameters", [{}, PARAMETERS], ids=["plain", "changed"])
def test_files_are_those_of_the_processor(plain, finishing, output, parameters, monkeypatch):
    expected = made(plain, output=output, parameters=parameters)
    for name in ("normal_from_height", "ambient_occlusion_from_height"):
        monkeypatch.setattr(pbr, name, refuse)
    given = made(finishing, output=output, parameters=parameters)
    assert [artifact.name for artifact in given] == [artifact.name for artifact in expected]
    for one, other in zip(given, expected, strict=True):
        assert replace(one, data=b"") == replace(other, data=b"")
        if output.encoding is Encoding.RAW:
            kind = np.uint16 if one.pixel_format is PixelFormat.R16 else np.uint8
            steps = np.frombuffer(one.data, kind).astype(int) - np.frombuffer(other.data, kind)
            assert np.abs(steps).max() <= 1
            assert np.mean(steps != 0) < 0.01


def test_the_same_request_gives_the_same_bytes(finishing):
    first, second = (made(finishing, count=2) for _ in range(2))
    assert [artifact.sha256 for artifact in first] == [artifact.sha256 for artifact in second]


def test_what_is_made_in_windows_is_finished_by_the_processor(tmp_path, monkeypatch, package, plain):
    write_model(tmp_path)
    size = replace(package.manifest.size, window_px=96, halo_px=16)
    write_manifest(tmp_path / "tiny", replace(package.manifest, size=size))
    monkeypatch.setattr("assetgen.sessions.open_session", finishing_device.open_model)
    service = Service({"tiny": verify_package(tmp_path / "tiny")}, Worker("cpu", 1))
    service.preload()
    asked = []
    whole = pbr.normal_from_height
    monkeypatch.setattr(pbr, "normal_from_height", lambda *values: asked.append(1) or whole(*values))
    output = OutputSpec(encoding=Encoding.RAW)
    given = made(service, width_px=192, height_px=128, output=output)
    service.close()
    assert asked
    assert {artifact.role for artifact in given} == set(MapKind)
