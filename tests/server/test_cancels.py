"""Calls that their client gives up, at every message and before the first: nothing of them is left."""

import grpc
import pytest

from assetgen.launch import ServerProcess
from assetgen.v1 import asset_pb2, generation_service_pb2
from tests.helpers.figures import assert_no_call_is_left, figure
from tests.helpers.serving import write_model

SMALL = {"model_id": "tiny", "seed": 7, "width_px": 32, "height_px": 32}
MAPS = {"maps": [asset_pb2.MAP_KIND_BASE_COLOR, asset_pb2.MAP_KIND_HEIGHT], "encoding": asset_pb2.ENCODING_RAW}
MESSAGE = generation_service_pb2.GenerateRequest
REQUEST = MESSAGE(**SMALL | {"count": 3, "output": MAPS})
ASSET = ["progress", "progress", *["artifact", "chunk"] * 2]
ANSWER = ["started", *ASSET * 3, "finished"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    write_model(models)
    options = ["--models", str(models), "--device", "cpu", "--threads", "1", "--metrics-port", "0", "--max-calls", "1"]
    with ServerProcess(options) as running:
        yield running


@pytest.fixture(scope="module")
def generate(server):
    with grpc.insecure_channel(server.address) as channel:
        yield channel.unary_stream(
            "/assetgen.v1.GenerationService/Generate",
            request_serializer=MESSAGE.SerializeToString,
            response_deserializer=generation_service_pb2.GenerateResponse.FromString,
        )


def chunks(messages):
    return [message.chunk for message in messages if message.WhichOneof("event") == "chunk"]


@pytest.fixture(scope="module")
def golden(generate):
    messages = list(generate(REQUEST))
    assert [message.WhichOneof("event") for message in messages] == ANSWER
    return chunks(messages)


@pytest.mark.parametrize("read", range(len(ANSWER) + 1))
def test_a_call_cancelled_after_any_message_leaves_nothing(server, generate, golden, read):
    """Only one call may be under way: the next one is served, whole."""
    call = generate(REQUEST)
    seen = [next(call).WhichOneof("event") for _ in range(read)]
    call.cancel()
    assert seen == ANSWER[:read]
    assert_no_call_is_left(server)
    assert chunks(generate(REQUEST)) == golden


@pytest.mark.parametrize("count", [1, 3])
def test_a_deadline_of_a_millisecond_is_told_and_leaves_nothing(server, generate, golden, count):
    """It is known how long a run takes, for others have been: none begins."""
    asked = MESSAGE(**SMALL | {"count": count, "width_px": 256, "height_px": 256})
    runs = 'assetgen_stage_seconds_count{model="tiny",stage="graph"}'
    before = figure(server, runs)
    for _ in range(20):
        with pytest.raises(grpc.RpcError) as caught:
            list(generate(asked, timeout=0.001))
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert_no_call_is_left(server)
    assert figure(server, runs) == before
    assert chunks(generate(REQUEST)) == golden
