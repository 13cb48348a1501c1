"""Our types survive the wire, and hand-made messages are what protobuf would have made."""

import hashlib
from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from assetgen import errors, wire
from assetgen.errors import AssetgenError, FieldInvalid, TransferDamaged
from assetgen.status import error_from_status, status_from_error
from assetgen.types import (
    Artifact,
    ColorSpace,
    Encoding,
    Finished,
    MapKind,
    NormalConvention,
    OutputSpec,
    PixelFormat,
    Progress,
    Request,
    Started,
)
from assetgen.v1.generation_service_pb2 import GenerateRequest, GenerateResponse

UINT32 = st.integers(0, 2**32 - 1)


@given(st.binary(max_size=40_000))
def test_chunks_are_what_protobuf_makes(data):
    assert wire.chunk_message(memoryview(data)) == GenerateResponse(chunk=data).SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2**20])
def test_chunks_at_the_edges_of_lengths(size):
    assert GenerateResponse.FromString(wire.chunk_message(memoryview(bytes(size)))).chunk == bytes(size)


@given(
    st.builds(
        Request,
        model_id=st.text(),
        seed=st.none() | UINT32,
        count=UINT32,
        first_index=UINT32,
        width_px=UINT32,
        height_px=UINT32,
        parameters=st.dictionaries(
            st.text(),
            st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(),
        ),
        output=st.builds(
            OutputSpec,
            maps=st.lists(st.sampled_from(MapKind)).map(tuple),
            profile=st.text(min_size=1),
            normal_convention=st.none() | st.sampled_from(NormalConvention),
            encoding=st.sampled_from(Encoding),
            name=st.text(),
        ),
        model_digest=st.binary().map(bytes.hex),
    )
)
def test_requests_survive(request):
    data = wire.request_to_message(request).SerializeToString()
    assert wire.request_from_message(GenerateRequest.FromString(data)) == request


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error_of_ours(data):
    try:
        message = GenerateRequest.FromString(data)
    except DecodeError:  # the server answers those as a whole
        return
    with suppress(FieldInvalid):
        wire.request_from_message(message)


@pytest.mark.parametrize(
    "event", [Started(2**32 - 1, "ab" * 32, "x"), Progress("encoding", 0.25), Finished(0.5, 12.25)]
)
def test_events_survive(event):
    (data,) = wire.event_to_messages(event)
    assert wire.event_from_message(GenerateResponse.FromString(data)) == event


def picture(data):
    facts = {"pixel_format": PixelFormat.R8, "color_space": ColorSpace.LINEAR, "width_px": len(data), "height_px": 1}
    return Artifact(
        index=3, role="height", name="x.raw", media_type="image/x", data=data, known_sha256="ab" * 32, **facts
    )


@given(st.lists(st.binary(min_size=1, max_size=20_000), max_size=3))
def test_whole_answers_are_what_protobuf_makes(contents):
    events = [Started(7, "cd" * 32, "x"), *map(picture, contents), Finished(0.5, 0.25)]
    data = wire.whole_message(events[0], events[1:-1], events[-1])
    message = GenerateResponse.FromString(data)
    assert len(data) == message.ByteSize()
    read = list(wire.events_from_whole(message.whole))
    assert read == events
    # No hash travels: who wants one computes it of the bytes that came.
    assert not any(artifact.sha256 for artifact in message.whole.artifacts)
    assert [each.sha256 for each in read[1:-1]] == [hashlib.sha256(data).hexdigest() for data in contents]


@pytest.mark.parametrize("spoil", [lambda whole: whole.contents.append(b"x"), lambda whole: whole.contents.pop()])
def test_whole_answers_with_other_files_than_announced_are_damaged(spoil):
    data = wire.whole_message(Started(7, "cd" * 32, "x"), [picture(b"abc")], Finished(0.5, 0.25))
    whole = GenerateResponse.FromString(data).whole
    spoil(whole)
    with pytest.raises(TransferDamaged):
        list(wire.events_from_whole(whole))
    whole = GenerateResponse.FromString(data).whole
    whole.contents[0] = b"abcd"
    with pytest.raises(TransferDamaged):
        list(wire.events_from_whole(whole))


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AssetgenError)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not AssetgenError], ids=lambda kind: kind.reason)
def test_errors_survive(kind):
    sent = kind("what: was wrong", hint="do this", field="count", retry_after_s=1.5, metadata={"value": "3"})
    status = status_from_error(sent)
    received = error_from_status(status)
    assert type(received) is kind
    assert (received.message, received.hint, received.field) == (sent.message, sent.hint, sent.field)
    assert received.metadata == sent.metadata
    carries_time = kind.status in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    assert received.retry_after_s == (1.5 if carries_time else None)


def test_statuses_stay_far_below_the_limit_of_metadata():
    long = "\U0001f600" * 10_000
    status = status_from_error(FieldInvalid(long, hint=long, field=long, metadata={"value": long, "other": long}))
    assert len(status.SerializeToString()) * 4 // 3 + 3 * len(status.message.encode()) < 12_000
