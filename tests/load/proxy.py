"""A TCP proxy with faults: latency, little bandwidth, a cut after so many bytes, silence; standard library only."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass

READ_BYTES = 16 * 1024


@dataclass(frozen=True)
class Faults:
    """What goes wrong on the way from the server to the client; a hole on both ways.

    Attributes:
        latency_s: each read waits so long.
        bytes_per_s: at most so many; 0 sets no limit.
        cut_after_bytes: then the connection ends; ``None`` never.
        reset: it ends by RST instead of FIN.
        hole: nothing is relayed any more, and no end of a connection either: as if a cable had been pulled.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    cut_after_bytes: int | None = None
    reset: bool = False
    hole: bool = False


class Proxy:
    """Relays to ``target`` on a thread of its own; a context manager. ``faults`` may be changed meanwhile."""

    def __init__(self, target: str, faults: Faults = Faults()) -> None:
        self.faults = faults
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.address = ""

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        up = asyncio.create_task(self._upstream(reader, up_writer))
        try:
            with suppress(ConnectionError):  # the client left
                await self._downstream(up_reader, writer)
        finally:
            up.cancel()
            up_writer.transport.abort()
            writer.transport.abort()
            await asyncio.gather(up, return_exceptions=True)
            self._tasks.discard(task)

    async def _upstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._read(reader):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(READ_BYTES)
        if self.faults.hole:
            await self._end.wait()
        return data

    async def _downstream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while data := await self._read(reader):
            faults = self.faults
            if faults.latency_s:
                await asyncio.sleep(faults.latency_s)
            if faults.bytes_per_s:
                await asyncio.sleep(len(data) / faults.bytes_per_s)
            if faults.cut_after_bytes is not None and sent + len(data) > faults.cut_after_bytes:
                writer.write(data[: faults.cut_after_bytes - sent])
                if faults.reset:
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    await writer.drain()
                    writer.close()
                return
            writer.write(data)
            await writer.drain()
            sent += len(data)
