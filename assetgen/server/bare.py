"""The least that a gRPC server in Python can cost, for the bench to measure ours against; a process of its own.

It runs a graph on fixed inputs and answers with as many fixed bytes as an RGB picture has: no request, no files, no
order, no errors.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc

from assetgen.kinds import example_inputs
from assetgen.package import verify_package
from assetgen.runtime import open_session


@contextmanager
def bare_server(folder: Path, device: str, threads: int | None, edge_px: int) -> Iterator[Callable[[], object]]:
    """Start a process that serves the package in ``folder``; what is yielded calls it once."""
    call = f"serve({str(folder)!r}, {device!r}, {threads!r}, {edge_px})"
    command = [sys.executable, "-c", f"from assetgen.server.bare import serve; {call}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None  # noqa: S101 -- it was asked for
            with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
                run: Callable[..., bytes] = channel.unary_unary("/bare/Run")
                yield lambda: run(b"")
        finally:
            process.kill()


def serve(folder: str, device: str, threads: int | None, edge_px: int) -> None:
    """Write the port to standard output, and serve until the process is ended."""
    package = verify_package(Path(folder), allow_hard_links=True)
    session, inputs, pixels = (
        open_session(package, device, threads),
        example_inputs(package, edge_px),
        bytes(edge_px * edge_px * 3),
    )

    def answer(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        session.run(inputs)
        return pixels

    server = grpc.server(ThreadPoolExecutor(1))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"Run": handler}),))
    sys.stdout.write(f"{server.add_insecure_port('127.0.0.1:0')}\n")
    sys.stdout.flush()
    server.start()
    server.wait_for_termination()
