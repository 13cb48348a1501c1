"""Mutated inputs without end: `python -m tests.load.fuzz TARGET --inputs 1000000`; an error not of ours stops it.

Targets are the functions that bytes from outside reach first. Inputs are sound ones, changed at random; the seed and
the number of an input give it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
from PIL import ExifTags, Image

from assetgen import wire, wire_jobs
from assetgen.describe import JobInfo, JobState
from assetgen.errors import AssetgenError, ImageInvalid, PolicyViolated, TransferDamaged
from assetgen.kinds import KINDS
from assetgen.manifest import FileEntry, Manifest
from assetgen.package import manifest_from_bytes, manifest_to_bytes
from assetgen.policy import broken_rule
from assetgen.postprocess.decode import decode_image, decode_picture, picture_size
from assetgen.receive import Files
from assetgen.runtime.weave import woven
from assetgen.server.exchange import parsed
from assetgen.server.protocols import PROTOCOLS, request_message
from assetgen.status import error_from_status, status_from_error
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import Artifact, ColorSpace, Finished, PixelFormat, Request, Started
from assetgen.v1 import generation_service_pb2, job_service_pb2
from tests.helpers.picture_files import chunk, interlaced_png, saved, with_notes
from tests.helpers.tiny_package import tiny_manifest, tiny_model

SLOW_S = 2.0
Target = tuple[list[bytes], Callable[[bytes], object]]
_TOKENS = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff\x0f",
    b"9" * 40,
    b"[" * 100,
    b'{"a":',
    b"1e999",
    b"NaN",
    b"../",
    b"\\u0000",
]


def request_target(manifest: Manifest) -> Target:
    """A message of gRPC: parsed, turned into a request, checked against a model."""
    request = Request(manifest.id, seed=7, count=2, width_px=256, parameters={"class": "rock", "truncation": 0.5})
    message = wire.request_to_message(request)
    message.inline_bytes, message.priority, message.supersede_key = 2**20, 1, "view"

    def work(data: bytes) -> object:
        message = parsed(generation_service_pb2.GenerateRequest, data)
        wire.priority_from_message(message), wire.supersede_key_from_message(message)
        wire.delivery_from_message(message.delivery)
        request = wire.request_from_message(message)
        if request.seed is None:
            raise AssetgenError("the service would draw one")
        return KINDS[manifest.kind].resolve(manifest, request)

    return [message.SerializeToString()], work


def http_target(manifest: Manifest) -> Target:
    """A body of Connect or gRPC-Web, the first byte choosing which."""
    protocols = list(PROTOCOLS.values())
    (message,), _ = request_target(manifest)
    text = json.dumps({"modelId": manifest.id, "seed": 7, "parameters": {"class": {"stringValue": "rock"}}}).encode()
    seeds = []
    for number, protocol in enumerate(protocols):
        body = text if protocol.json else message
        seeds.append(bytes([number]) + (b"\0" + len(body).to_bytes(4, "big") + body if protocol.streams else body))

    def work(data: bytes) -> object:
        protocol = protocols[data[0] % len(protocols)] if data else protocols[0]
        encoding = "gzip" if data[:1] > b"\x80" else "identity"
        return request_message(protocol, data[1:], generation_service_pb2.GenerateRequest, encoding)

    return seeds, work


def manifest_target(_: Manifest) -> Target:
    """The manifest of a package, a short one: a long one takes 5 ms to read."""
    names = ("LICENSE", "MODEL_CARD.md", "generator.onnx", "preview.png")
    sound = replace(tiny_manifest(), files=tuple(FileEntry(name, 1000, "ab" * 32) for name in names))

    def work(data: bytes) -> object:
        try:
            return manifest_from_bytes(data)
        except ValueError as error:  # what its caller turns into PackageInvalid
            raise AssetgenError(str(error)) from error

    return [manifest_to_bytes(sound)], work


def graph_target(_: Manifest) -> Target:
    """The graph of a package that is not ours: checked, and put as the processor runs it faster if it may be served.

    As in use, in a process of its own: onnx's native code ends it at some graphs, which refuses them.
    """
    manifest = tiny_manifest()

    def work(data: bytes) -> None:
        if broken := broken_rule(data, manifest):
            raise PolicyViolated(broken)
        woven(data)

    return [tiny_model().SerializeToString()], Apart(work)


class EndedError(AssetgenError):
    """The process has ended."""


class Apart:
    """Does ``work`` in a child process, another one when it has ended; raises EndedError, or what ``work`` raises."""

    def __init__(self, work: Callable[[bytes], None]) -> None:
        self._work, self._processes = work, multiprocessing.get_context("fork")
        self._child: multiprocessing.process.BaseProcess | None = None

    def __call__(self, data: bytes) -> object:
        """Send ``data`` to the child, and wait for its answer."""
        if self._child is None:
            self._here, there = self._processes.Pipe()
            self._child = self._processes.Process(target=self._serve, args=(there,), daemon=True)
            self._child.start()
            there.close()
        self._here.send_bytes(data)
        try:
            error = self._here.recv()
        except EOFError:
            self._child.join()
            ended, self._child = self._child.exitcode, None
            raise EndedError(f"the process has ended with status {ended}") from None
        if error is not None:
            raise error
        return None

    def _serve(self, line: Connection) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native code says as it ends
        while True:
            try:
                self._work(line.recv_bytes())
                line.send(None)
            except EOFError:
                return
            except Exception as error:  # noqa: BLE001 -- it is raised on the other side
                line.send(error)


def picture_target(_: Manifest) -> Target:
    """A picture in a request, and one that a match is asked for."""
    noise = Image.effect_noise((24, 16), 60)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    seeds = [saved(noise.convert("RGB"), kind, exif=turned) for kind in ("PNG", "JPEG", "WEBP")]
    seeds += [
        saved(noise.convert("P"), "PNG", transparency=0),
        saved(noise.convert("RGB"), "JPEG", progressive=True),
        saved(noise.convert("RGBA"), "WEBP"),
        interlaced_png(np.asarray(noise.convert("RGB"))),
        with_notes(saved(noise, "PNG"), chunk(b"gAMA", (100_000).to_bytes(4, "big"))),
    ]

    def work(data: bytes) -> object:
        with suppress(ImageInvalid):  # it takes no transparent ones
            decode_image(data, 64)
        width_px, height_px = picture_size(data, 1, 64)
        picture = decode_picture(data, 1, 64)
        assert picture.color.shape == (height_px, width_px, 3)
        return picture

    return seeds, work


def status_target(_: Manifest) -> Target:
    """What a client reads of an error."""
    from google.protobuf.message import DecodeError
    from google.rpc import status_pb2

    sound = status_from_error(AssetgenError("what: was wrong", hint="do", field="count", retry_after_s=1.0))

    def work(data: bytes) -> object:
        try:
            return error_from_status(status_pb2.Status.FromString(data))
        except DecodeError as error:
            raise AssetgenError("no status") from error

    return [sound.SerializeToString()], work


def job_target(_: Manifest) -> Target:
    """What a client reads of a job, and takes from shared memory by the names in it."""
    picture = (PixelFormat.RGB8, ColorSpace.SRGB, 8, 8)
    file = Artifact(0, "base_color", "a.png", "image/png", *picture, b"pixels", "ab" * 32)
    started, error = Started(7, "cd" * 32, "none"), AssetgenError("what: was wrong", hint="do", metadata={"a": "b"})
    job = JobInfo("x", 3, JobState.FAILED, "encoding", 0.5, started, (file,), Finished(0.5, 1.0), error, 60.0)
    message = wire_jobs.job_to_message(job)
    message.artifacts[0].shared = f"assetgen-{'0' * 32}/{'ab' * 32}-{'0' * 16}"

    def work(data: bytes) -> object:
        found = parsed(job_service_pb2.Job, data)
        for artifact in found.artifacts:
            try:
                Files().open(artifact)
            except TransferDamaged:
                continue
        return wire_jobs.job_from_message(found)

    return [message.SerializeToString()], work


TARGETS: dict[str, Callable[[Manifest], Target]] = {
    "request": request_target,
    "http": http_target,
    "graph": graph_target,
    "job": job_target,
    "manifest": manifest_target,
    "picture": picture_target,
    "status": status_target,
}


def mutated(chance: random.Random, data: bytes) -> bytes:
    """``data`` with one to eight changes: bytes flipped, cut, doubled, swapped or put in."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 | 1 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 2 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 3:
                del changed[at : at + chance.choice((1, 2, 8, 64))]
            case 4:
                changed[at:at] = changed[at : at + chance.choice((1, 4, 32))]
            case 5:
                changed[at:at] = chance.choice(_TOKENS)
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[at : at + 4] = changed[other : other + 4]
    return bytes(changed)


def fuzz(name: str, inputs: int, seed: int = 0) -> Counter[str]:
    """Run a target; returns how often each kind of answer came.

    Raises:
        Exception: whatever is no AssetgenError, with the number of the input in a note.
        TimeoutError: an input took longer than ``SLOW_S``.
    """
    store = open_store([bundled_models_folder()])
    materials = next(each.manifest for each in store.values() if each.manifest.kind == "texture")
    seeds, work = TARGETS[name](materials)
    for sound in seeds:
        work(sound)
    answers: Counter[str] = Counter()
    for number in range(inputs):
        chance = random.Random(f"{name}/{seed}/{number}")
        data = mutated(chance, seeds[number % len(seeds)])
        begun_s = time.process_time()
        try:
            work(data)
            answers["accepted"] += 1
        except AssetgenError as error:
            answers[type(error).__name__] += 1
        except Exception as error:
            error.add_note(f"input {number} of target {name} with seed {seed}: {data[:200]!r}")
            raise
        if time.process_time() - begun_s > SLOW_S:
            raise TimeoutError(
                f"input {number} of target {name} with seed {seed} took more than {SLOW_S} s of processor"
            )
    return answers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    begun_s = time.monotonic()
    answers = fuzz(options.target, options.inputs, options.seed)
    print(f"{options.target}: {options.inputs} inputs in {time.monotonic() - begun_s:.0f} s: {dict(answers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
