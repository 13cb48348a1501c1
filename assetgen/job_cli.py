"""What `generate`, `generate --detach` and `job` print and do; imports job_client and save."""

from __future__ import annotations

import secrets
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from assetgen import job_client
from assetgen.callers import Priority
from assetgen.client import Client
from assetgen.patience import patiently
from assetgen.save import write_assets
from assetgen.types import Artifact, Event, Finished, Progress, Request, Started

Say = Callable[[str], object]


def teller(folder: Path, say: Say) -> Callable[[Event], None]:
    """Says what happens, for people; files are written into ``folder``."""

    def tell(event: Event) -> None:
        match event:
            case Started():
                say(f"seed {event.seed}  model {event.model_digest[:12]}  {event.backend}")
            case Progress() if sys.stderr.isatty():
                sys.stderr.write(f"\r{event.fraction:4.0%} {event.stage:12}")
                sys.stderr.flush()
            case Artifact():
                size = f"{event.width_px} x {event.height_px}  " if event.width_px else ""
                say(f"{folder / event.name}  {size}{len(event.data)} bytes")
            case Finished():
                say(f"done in {event.work_s:.2f} s, waited {event.queue_s:.2f} s")

    return tell


def detach(
    client: Client, request: Request, priority: Priority, folder: Path, say: Say, patience_s: float = 0.0
) -> None:
    """Begin a job and say how to have its files; a seed is drawn if the request leaves it open.

    A server that is full or away is asked again for ``patience_s``, with the same id, so that nothing is made twice.
    """
    seeded = replace(request, seed=secrets.randbits(32) if request.seed is None else request.seed)
    job_id = str(uuid.uuid4())
    job = patiently(lambda: job_client.submit(client, seeded, job_id, priority), patience_s)
    say(f"job {job.id}  seed {seeded.seed}")
    say(f"fetch its files: assetgen job {job.id} --server {client.target} -o {folder}")


def fetch(client: Client, job_id: str, folder: Path, say: Say) -> None:
    """Wait for a job and write its files."""
    write_assets(job_client.events(client, job_id), folder, teller(folder, say))


def show(client: Client, job_id: str, say: Say, *, cancel: bool) -> None:
    """Say how a job is, after it was stopped if ``cancel``."""
    job = job_client.cancel(client, job_id) if cancel else job_client.get(client, job_id)
    told = job.error.message if job.error else job.stage
    say(f"{job.state}  {job.fraction:.0%}  {len(job.artifacts)} files  {told}".rstrip())
