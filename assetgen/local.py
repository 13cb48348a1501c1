"""The service core in the caller's own process, with the client's interface; imports service, worker and store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from assetgen.describe import ModelInfo
from assetgen.service import Service
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Event, Request
from assetgen.worker import Worker

T = TypeVar("T")


def open_service(folders: Sequence[Path] = (), device: str = "auto", threads: int | None = None) -> Service:
    """A service over the packages in ``folders``, by default those that come with the product."""
    store = open_store(list(folders) or [bundled_models_folder()])
    return Service(store, Worker(device, threads))


def open_local(folders: Sequence[Path] = (), device: str = "auto", threads: int | None = None) -> LocalMaker:
    """A maker over the packages in ``folders``, by default those that come with the product."""
    return LocalMaker(open_service(folders, device, threads))


class Maker(Protocol):
    """What makes assets: ``Client`` over the network, ``LocalMaker`` in this process."""

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""

    def generate(self, request: Request, deadline_s: float | None = None) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work."""

    def close(self) -> None:
        """Give back what the maker holds."""


class LocalMaker:
    """A service in this process for callers without asyncio; a context manager."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="assetgen-local", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""
        return self._service.models()

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""
        return self._service.model(model_id)

    def generate(self, request: Request, deadline_s: float | None = None) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work."""
        events = self._service.generate(request, deadline_s)
        step: asyncio.Task[Event | None] | None = None

        async def advance() -> Event | None:
            nonlocal step
            step = asyncio.current_task()
            return await anext(events, None)

        async def stop() -> None:
            if step is not None and not step.done():  # the caller was interrupted while it waited
                step.cancel()
                await asyncio.wait([step])
            await events.aclose()

        try:
            while (event := self._wait(advance())) is not None:
                yield event
        finally:
            self._wait(stop())

    def close(self) -> None:
        """Stop the loop and the worker; what is queued ends first."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._service.worker.close()
        self._loop.close()

    def _wait(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()
