"""The core behind every front end: admission, order, cancel, deadlines, draining, models; no gRPC, no torch.

``Service.generate`` turns a request into events; ``calls.py`` says how a call is carried out.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from assetgen.alarm import Alarm
from assetgen.callers import PLAIN_TERMS, Allowances, Caller, Terms
from assetgen.calls import ASSETS_UNDER_WAY, Call, Order
from assetgen.describe import ModelInfo
from assetgen.errors import (
    AssetgenError,
    DeadlineTooShort,
    Draining,
    InternalError,
    ModelDigestMismatch,
    ModelNotFound,
    PackageInvalid,
    QueueFull,
    QuotaExceeded,
    RuntimeMissing,
    Superseded,
    WorkerLost,
)
from assetgen.kinds import KINDS, Plan
from assetgen.kinds.plan import MAX_COUNT, shown
from assetgen.package import VerifiedPackage
from assetgen.store import is_bundled
from assetgen.threads import Pool
from assetgen.types import Event, Request
from assetgen.worker import Worker

log = logging.getLogger(__name__)

# A call that was stopped and does not end within this time waits for a reader who does not read.
OVERDUE_S = 2.0
# A queue that is as long as deadlines allow by estimate lets everybody come a moment too late.
QUEUE_MARGIN = 1.2
PREVIEW_NAME = "preview.png"


@dataclass(frozen=True)
class Limits:
    """What a service accepts; nothing is unlimited.

    Attributes:
        max_calls: calls accepted at once, waiting ones included.
        max_held_px: pixels of all assets under way at once; a call alone is always accepted.
        max_picture_bytes: of the pictures that came with the calls under way, as they came; one alone always is, too.
        call_cap_s: deadline of calls that set none, and the longest that counts.
        drain_s: how long calls under way may still take when the server stops.
    """

    max_calls: int = 64
    max_held_px: int = 64 * 2**20
    max_picture_bytes: int = 256 * 2**20
    max_count: int = MAX_COUNT
    call_cap_s: float = 600.0
    drain_s: float = 30.0


class Service:
    """Makes assets from verified packages on one worker.

    Args:
        packages: model id to package; ids from outside are only ever keys of it.
        worker: the device's pipeline.
        limits: what to accept.

    Raises:
        PackageInvalid: a package is of a kind, or declares a parameter, that this version does not know.
    """

    def __init__(self, packages: Mapping[str, VerifiedPackage], worker: Worker, limits: Limits = Limits()) -> None:
        self.packages: dict[str, VerifiedPackage] = {}
        self._infos: dict[str, ModelInfo] = {}
        self.worker = worker
        self.limits = limits
        self._lock = threading.RLock()
        self._calls: set[Call] = set()
        self._views: dict[tuple[str, str], Call] = {}
        self._idle = threading.Condition(self._lock)
        self._draining = False
        self._allowances = Allowances()
        self.replace(packages)
        self._pool = Pool(ASSETS_UNDER_WAY * limits.max_calls, "assetgen-asset")
        self._alarm = Alarm(self.expire)

    @property
    def calls_under_way(self) -> int:
        """Accepted calls that have not ended."""
        return len(self._calls)

    @property
    def held_px(self) -> int:
        """Pixels of all assets under way."""
        return sum(call.held_px for call in self._under_way())

    @property
    def device(self) -> str:
        """Where models run, such as ``cpu``."""
        return self.worker.device

    @property
    def problem(self) -> str:
        """Why no asset can be made now; empty if some can."""
        return self.worker.problem

    def models(self) -> list[ModelInfo]:
        """All models, ordered by id."""
        return list(self._infos.values())

    def model(self, model_id: str) -> ModelInfo:
        """One model; raises ModelNotFound."""
        return self._infos[self._package(model_id).manifest.id]

    def preload(self) -> None:
        """Open every model's session, so that no call has to wait for it.

        Raises:
            PackageInvalid: one fails, or does not give the same finite numbers every time.
        """
        self._open(self.packages)

    def replace(self, packages: Mapping[str, VerifiedPackage], preload: bool = False) -> None:
        """Serve these packages from now on; calls under way end on those they began with.

        One that comes with the product and needs an extra that is not installed is left out, and the log says so.

        Args:
            preload: open the new ones first.

        Raises:
            PackageInvalid: one of them cannot be served, or opened; then nothing has changed.
            RuntimeMissing: one that was asked for needs an extra.
        """
        packages = dict(packages)
        for package in list(packages.values()):
            if package.manifest.kind not in KINDS:
                raise PackageInvalid(
                    f"model {package.manifest.id!r} is of kind {package.manifest.kind!r}; "
                    f"this version knows {', '.join(KINDS)}",
                    hint="install a newer assetgen, or remove the package",
                )
            try:
                KINDS[package.manifest.kind].check(package)
            except RuntimeMissing as error:
                if not is_bundled(package.folder):
                    raise
                log.warning("model %s is left out: %s; %s", package.manifest.id, error.message, error.hint)
                del packages[package.manifest.id]
        infos = {model_id: _describe(package) for model_id, package in sorted(packages.items())}
        if preload:
            try:
                self._open(packages)
            except AssetgenError:  # those that were opened are not served
                self._retire(packages, self.packages)
                raise
        with self._lock:
            before = self.packages
            self._infos, self.packages = infos, dict(sorted(packages.items()))
        self._retire(before, packages)

    def generate(
        self, request: Request, deadline_s: float | None = None, terms: Terms = PLAIN_TERMS
    ) -> Iterator[Event]:
        """Make what ``request`` asks for; closing the iterator stops the work.

        Args:
            request: checked here, whole, before anything is allocated.
            deadline_s: seconds left; ``None`` means the service's own cap.
            terms: how it is treated beside others.

        Raises:
            AssetgenError: see the table of errors in the contract.
        """
        call = self.admit(request, deadline_s, terms)
        try:
            yield from call.events()
        finally:
            call.release()

    def admit(self, request: Request, deadline_s: float | None = None, terms: Terms = PLAIN_TERMS) -> Call:
        """Accept ``request`` or say why not, as ``generate`` does; the caller must release the call."""
        if self._draining:
            raise Draining("the server is shutting down", hint="try again when it is back", retry_after_s=5.0)
        package = self._package(request.model_id)
        if request.model_digest and request.model_digest.lower() != package.digest:
            raise ModelDigestMismatch(
                f"model_digest: the request pins {shown(request.model_digest)}, "
                f"but model {package.manifest.id!r} is {package.digest}",
                field="model_digest",
                hint="drop the digest, or serve the package it names",
                metadata={"requested": shown(request.model_digest), "served": package.digest},
            )
        if request.seed is None:
            request = replace(request, seed=secrets.randbits(32))
        plan: Plan = KINDS[package.manifest.kind].resolve(package.manifest, request)
        cap_s = self.limits.call_cap_s
        order = Order(package, request, plan, terms, cap_s if deadline_s is None else min(deadline_s, cap_s))
        call = Call(
            order, self.worker, crowded=lambda: len(self._calls) > 1, run=self._pool.submit, leave=self._release
        )
        with self._lock:
            if self.packages.get(request.model_id) is not package:  # it was replaced in between
                return self.admit(request, deadline_s, terms)
            view = terms.caller.name, terms.supersede_key
            older = self._views.get(view) if terms.supersede_key else None
            self._check_load(call, [other for other in self._calls if other is not older and not other.superseded])
            self._allowances.spend(terms.caller, plan.count * call.asset_px, call.admitted_s)
            if terms.supersede_key:
                self._views[view] = call
            if older is not None:
                older.superseded = True
            self._calls.add(call)
            self.worker.sessions.pin(package.digest)
        if older is not None:
            older.stop(Superseded("a newer request of the same view took this one's place"))
        self._alarm.set(call.expires_s)
        return call

    def drain(self) -> None:
        """Accept no more calls; those under way go on."""
        self._draining = True

    def wait_until_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until no call is under way; returns whether that came true in time."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._calls, timeout_s)

    def cancel_all(self) -> None:
        """Stop every call under way, as when time for draining is up."""
        for call in self._under_way():
            call.stop(Draining("the server stopped before the call ended", retry_after_s=5.0))

    def close(self) -> None:
        """Stop the threads and the worker; what is under way ends first."""
        self._pool.shutdown()
        self._alarm.close()
        self.worker.close()

    def expire(self, now_s: float) -> float:
        """Stop the calls whose time is up, and give up those that do not end then; returns when to look again."""
        again_s = math.inf
        for call in self._under_way():
            if call.expires_s > now_s:
                again_s = min(again_s, call.expires_s)
            elif call.expires_s + OVERDUE_S > now_s:
                call.stop(DeadlineTooShort(f"the call did not end within its deadline of {call.deadline_s:.3g} s"))
                again_s = min(again_s, call.expires_s + OVERDUE_S)
            else:
                call.give_up()
        return again_s

    def _open(self, packages: Mapping[str, VerifiedPackage]) -> None:
        """Open the sessions of all; a fault of one is told as what it is to who serves it: that it must go."""
        for package in packages.values():
            refused, without = f"model {package.manifest.id!r} cannot be served", f"remove {package.folder}"
            try:
                self.worker.session(package)
            except InternalError as error:
                raise PackageInvalid(
                    f"{refused}: {error.message}",
                    hint="; ".join(filter(None, [error.hint.rstrip("."), f"{without}, or choose another device"])),
                ) from error
            except WorkerLost as error:
                raise WorkerLost(
                    f"{refused}: {error.message}", hint=f"try again; if it comes again, {without}"
                ) from error
            except MemoryError as error:
                raise QueueFull(
                    f"{refused}: not enough memory to open it", hint=f"free some, or {without}; or open it when needed"
                ) from error

    def _retire(self, packages: Mapping[str, VerifiedPackage], kept: Mapping[str, VerifiedPackage]) -> None:
        """Close the sessions of those packages that are not among ``kept``, when nobody uses them any more."""
        for digest in {gone.digest for gone in packages.values()} - {package.digest for package in kept.values()}:
            self.worker.sessions.retire(digest)

    def _under_way(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def _release(self, call: Call) -> None:
        with self._idle:
            if call in self._calls:
                self._calls.remove(call)
                self.worker.sessions.unpin(call.package.digest)
            view = call.terms.caller.name, call.terms.supersede_key
            if self._views.get(view) is call:
                del self._views[view]
            if not self._calls:
                self._idle.notify_all()

    def _package(self, model_id: str) -> VerifiedPackage:
        package = self.packages.get(model_id)
        if package is None:
            raise ModelNotFound(
                f"model_id: no model {shown(model_id)} is served",
                field="model_id",
                hint=f"models served: {', '.join(self.packages) or 'none'}",
                metadata={"model_id": shown(model_id)},
            )
        return package

    def _check_load(self, call: Call, others: list[Call]) -> None:
        """Refuse what cannot be done in time beside ``others``, or is too much now."""
        self._check_deadline(call, others)
        _check_caller(call.terms.caller, others)
        held_px = sum(other.held_px for other in others)
        too_many = len(others) >= self.limits.max_calls
        if call.picture_bytes:
            self._check_pictures(call, others, held_px)
        if too_many or (held_px and held_px + call.held_px > self.limits.max_held_px):
            retry_after_s = self._retry_after_s(call, held_px)
            raise QueueFull(
                f"the queue is full: {len(others)} calls with {held_px / 2**20:.1f} Mpx under way; "
                f"the limits are {self.limits.max_calls} calls and {self.limits.max_held_px / 2**20:.1f} Mpx",
                hint=f"try again in {retry_after_s:.1f} s",
                retry_after_s=retry_after_s,
                metadata={"calls": str(len(others)), "held_px": str(held_px)},
            )

    def _check_pictures(self, call: Call, others: list[Call], held_px: int) -> None:
        held_bytes, max_bytes = sum(other.picture_bytes for other in others), self.limits.max_picture_bytes
        if held_bytes and held_bytes + call.picture_bytes > max_bytes:
            retry_after_s = self._retry_after_s(call, held_px)
            raise QueueFull(
                f"the calls under way have pictures of {held_bytes / 2**20:.0f} MiB, this one has "
                f"{call.picture_bytes / 2**20:.0f}; the limit is {max_bytes >> 20} MiB",
                hint=f"try again in {retry_after_s:.1f} s, or send smaller pictures",
                retry_after_s=retry_after_s,
                metadata={"picture_bytes": str(held_bytes)},
            )

    def _retry_after_s(self, call: Call, held_px: int) -> float:
        return min(max(held_px * self._speeds[1].get(call.package.digest, 0.0), 0.5), 30.0)

    def _check_deadline(self, call: Call, others: list[Call]) -> None:
        """Fair shares: beside others of its priority a call waits for as much work of each as it has itself."""
        best_s, own_s = (call.left_px * speed.get(call.package.digest, 0.0) for speed in self._speeds)
        ahead_s, now_s, priority, usual = 0.0, call.admitted_s, call.terms.priority, self._speeds[1]
        for other in others:
            work_s = other.least_left_s(usual.get(other.package.digest, 0.0), now_s)
            if other.terms.priority < priority:
                ahead_s += work_s
            elif other.terms.priority == priority:
                ahead_s += min(work_s, own_s)
        if not ahead_s:
            own_s = best_s
        if call.deadline_s <= (own_s + ahead_s) * (QUEUE_MARGIN if ahead_s else 1.0) or call.deadline_s <= 0:
            beside = f", {ahead_s:.3g} s of it beside others," if ahead_s else ""
            raise DeadlineTooShort(
                f"the deadline of {call.deadline_s:.3g} s is too short; this takes {own_s + ahead_s:.3g} s or more"
                f"{beside} here",
                hint="allow more time, or ask for fewer or smaller assets",
                metadata={"deadline_s": f"{call.deadline_s:.3g}", "estimate_s": f"{own_s + ahead_s:.3g}"},
            )

    @property
    def _speeds(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        """Seconds a pixel by digest: the best, and the usual."""
        return self.worker.seconds_per_px, self.worker.usual_seconds_per_px


def _check_caller(caller: Caller, others: list[Call]) -> None:
    under_way = sum(other.terms.caller.name == caller.name for other in others) if caller.max_calls else 0
    if caller.max_calls and under_way >= caller.max_calls:
        raise QuotaExceeded(
            f"this token may have {caller.max_calls} calls under way; it has {under_way}",
            hint="wait for one to end, or ask the operator for more",
            retry_after_s=1.0,
            metadata={"max_calls": str(caller.max_calls)},
        )


def _describe(package: VerifiedPackage) -> ModelInfo:
    manifest = package.manifest
    has_preview = any(entry.path == PREVIEW_NAME for entry in manifest.files)
    return ModelInfo(
        id=manifest.id,
        display_name=manifest.display_name,
        description=manifest.description,
        kind=manifest.kind,
        version=manifest.version,
        digest=package.digest,
        license=manifest.license,
        class_labels=tuple(known.label for known in manifest.classes),
        maps=KINDS[manifest.kind].made_maps(manifest),
        parameters=manifest.parameters,
        size=manifest.size,
        preview_png=package.read(PREVIEW_NAME) if has_preview else b"",
    )
