"""The service grpc.health.v1, open to all and therefore bounded; imports places, grpc and grpc_health's messages.

That package's own servicer sends to its watchers in turn and under one lock: a watcher that reads nothing would hold up
those who ask and the server that drains. Here each waits on its own thread, and there are few.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from assetgen.server.places import Places

SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL = ""
MAX_WATCHERS = 16
_Response = health_pb2.HealthCheckResponse


class Health:
    """How the services of a server are: none serves until it is said that it does.

    One watcher too many takes the place of the oldest.

    Args:
        services: their names.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._states = dict.fromkeys(services, _Response.NOT_SERVING)
        self._changed = threading.Condition()
        self._watchers: Places[grpc.ServicerContext] = Places(MAX_WATCHERS)
        self._ending = False

    def tell(self, services: Iterable[str], *, serving: bool) -> None:
        """Say how services are from now on; after ``end`` nothing changes any more."""
        with self._changed:
            if not self._ending:
                state = _Response.SERVING if serving else _Response.NOT_SERVING
                self._states |= dict.fromkeys(services, state)
                self._changed.notify_all()

    def end(self) -> None:
        """Say that no service serves, for good."""
        with self._changed:
            self._states = dict.fromkeys(self._states, _Response.NOT_SERVING)
            self._ending = True
            self._changed.notify_all()

    def handler(self) -> grpc.GenericRpcHandler:
        """Answers the service's methods."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    def _check(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        state = self._states.get(_asked(data, context))
        if state is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _answer(state)

    def _watch(self, data: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        """How a service is, now and whenever that changes."""
        name, told = _asked(data, context), None
        if (oldest := self._watchers.enter(context)) is not None:
            oldest.cancel()
        context.add_callback(self._look_again)  # not called if the watcher is gone, which is seen then
        try:
            while True:
                with self._changed:
                    if not context.is_active():  # asked under the lock: who ends from here on wakes this wait
                        return
                    state = self._states.get(name, _Response.SERVICE_UNKNOWN)
                    if state == told:
                        self._changed.wait()
                        continue
                told = state
                yield _answer(state)
        finally:
            self._watchers.leave(context)

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _asked(data: bytes, context: grpc.ServicerContext) -> str:
    """The name of a service; "" stands for the server as a whole."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(data).service)
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no grpc.health.v1.HealthCheckRequest")
    raise AssertionError("abort raises")


def _answer(state: int) -> bytes:
    return bytes(_Response(status=state).SerializeToString())
