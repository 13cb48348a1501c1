"""Pictures that come with requests: how much of them is held at once, and that each is held once."""

from __future__ import annotations

import sys

import pytest

from assetgen.errors import QueueFull
from assetgen.server.exchange import Exchange, Front
from assetgen.server.generation import generate
from assetgen.service import Limits, Service
from assetgen.types import Request
from assetgen.v1 import asset_pb2, generation_service_pb2
from assetgen.worker import Worker
from tests.helpers.serving import write_model
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package

PICTURE = saved(photo(64))


@pytest.fixture
def make(tmp_path):
    packages = {"tiny": write_model(tmp_path), "style": write_style_package(tmp_path, style_manifest())}
    services = []

    def service(**limits):
        services.append(Service(packages, Worker("cpu", 1), Limits(**limits)))
        return services[-1]

    yield service
    for made in services:
        made.close()


def styled(seed):
    return Request("style", seed, parameters={"image": PICTURE})


def test_pictures_of_calls_under_way_are_bounded_and_room_comes_back(make):
    service = make(max_picture_bytes=2 * len(PICTURE))
    calls = [service.admit(styled(1)), service.admit(styled(2))]
    with pytest.raises(QueueFull, match="the calls under way have pictures of 0 MiB") as caught:
        service.admit(styled(3))
    assert caught.value.retry_after_s > 0
    calls.append(service.admit(Request("tiny", 1, width_px=32, height_px=32)))  # it brings none
    calls.pop(0).release()
    calls.append(service.admit(styled(3)))
    for call in calls:
        call.release()


def test_a_picture_larger_than_all_may_be_is_taken_alone(make):
    service = make(max_picture_bytes=1)
    call = service.admit(styled(1))
    with pytest.raises(QueueFull):
        service.admit(styled(2))
    assert list(call.events())
    call.release()


def test_the_message_is_let_go_once_its_call_is_accepted(make):
    """Of a picture of 26 MiB there were three copies for as long as the call took."""
    image = {"image": asset_pb2.ParameterValue(bytes_value=PICTURE)}
    message = generation_service_pb2.GenerateRequest(model_id="style", seed=1, parameters=image)
    mine = sys.getrefcount(message)
    answers = generate(Front(make()), message, Exchange("Generate", "", ""))
    assert sys.getrefcount(message) > mine
    next(answers)
    assert sys.getrefcount(message) == mine
    assert list(answers)
