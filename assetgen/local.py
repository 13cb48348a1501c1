"""The service core in the caller's own process, with the client's interface; imports service and below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from assetgen.attach import with_files
from assetgen.callers import Priority, Terms
from assetgen.describe import ModelInfo
from assetgen.service import Service
from assetgen.signature import Signers
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Event, Request
from assetgen.worker import Worker


def open_service(
    folders: Sequence[Path] = (), device: str = "auto", threads: int | None = None, signers: Sequence[Path] = ()
) -> Service:
    """A service over the packages in ``folders``, by default those that come with the product.

    Args:
        signers: public keys, see ``Signers``; packages that none has signed are refused. Without any, all are taken.
    """
    store = open_store(list(folders) or [bundled_models_folder()], Signers(signers) if signers else None)
    return Service(store, Worker(device, threads))


def open_local(
    folders: Sequence[Path] = (), device: str = "auto", threads: int | None = None, signers: Sequence[Path] = ()
) -> LocalMaker:
    """A maker over the packages in ``folders``; the arguments are those of ``open_service``."""
    return LocalMaker(open_service(folders, device, threads, signers))


class Maker(Protocol):
    """What makes assets: ``Client`` over the network, ``LocalMaker`` in this process."""

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""

    def generate(
        self, request: Request, deadline_s: float | None = None, *, priority: Priority = Priority.GENERATE
    ) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work."""

    def close(self) -> None:
        """Give back what the maker holds."""


class LocalMaker:
    """A service in this process; a context manager, usable from several threads."""

    def __init__(self, service: Service) -> None:
        self._service = service

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

    def generate(
        self, request: Request, deadline_s: float | None = None, *, priority: Priority = Priority.GENERATE
    ) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work."""
        return self._service.generate(with_files(request), deadline_s, Terms(priority=priority))

    def close(self) -> None:
        """Stop the service; what is under way ends first."""
        self._service.close()
