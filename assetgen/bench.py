"""``assetgen bench``: what a call costs above the graph, pixels, memory, files and the start, measured in one run."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from assetgen import __version__
from assetgen.client import Client
from assetgen.errors import ConfigInvalid, OutputUnwritable
from assetgen.kinds import example_inputs
from assetgen.kinds.windows import run_in_windows
from assetgen.launch import ServerProcess
from assetgen.measure import peak_bytes
from assetgen.package import VerifiedPackage
from assetgen.postprocess import encode
from assetgen.processor import usable_cores
from assetgen.runtime import Session, open_session, precision_of
from assetgen.runtime.ort import CPU_PROVIDER, import_onnxruntime
from assetgen.server.bare import bare_server
from assetgen.store import bundled_models_folder, open_store
from assetgen.types import ColorSpace, Encoding, FloatArray, MapKind, OutputSpec, ParameterValue, PixelFormat, Request

SMALL_PX, WHOLE_PX, LARGE_PX, HUGE_PX, FILE_PX = 256, 512, 2048, 4096, 1024
CLIENTS = 16
ROUNDS = 5
PARTS = ("server", "material", "pixels", "memory", "encode", "start")
STARTS = 3
# How long the threads of a plain session may still spin after a run.
SPIN_S = 0.03
# Steps of it never meet: no two calls with a moved slider are the same.
GOLDEN_SHARE = 0.618034
ONE_MAP = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)

Say = Callable[[str], None]
Figures = dict[str, Any]


def run(
    folders: Sequence[Path],
    model_id: str,
    device: str,
    threads: int | None,
    only: tuple[str, ...],
    seconds: float,
    json_path: Path | None,
    say: Say,
) -> int:
    """Measure, say a table, and write JSON where ``json_path`` says."""
    if strange := [name for name in only if name not in PARTS]:
        raise ConfigInvalid(f"--only {strange[0]}: there is no such part; parts are {', '.join(PARTS)}")
    folders = list(folders) or [bundled_models_folder()]
    package = _package(folders, model_id)
    arguments = ["--device", device, "--log", "error", *(f"--models={folder}" for folder in folders)]
    arguments += [] if threads is None else ["--threads", str(threads)]
    session = open_session(package, device, threads)
    measure: dict[str, Callable[[], Figures]] = {
        "server": lambda: _server(package, session, arguments, device, threads, seconds),
        "material": lambda: _material(package, session, arguments, seconds),
        "pixels": lambda: _pixels(package, session),
        "memory": lambda: _memory(package, folders, device, threads),
        "encode": lambda: _encode(package, session),
        "start": lambda: _start(arguments),
    }
    figures: Figures = {"machine": _machine(session), "model": {"id": package.manifest.id, "digest": package.digest}}
    say(f"{figures['machine']}\nmodel {package.manifest.id} {package.digest[:12]}")
    for part in only or PARTS:
        figures[part] = measure[part]()
        for name, value in figures[part].items():
            say(f"{part:8} {name:34} {_text(value)}")
    if json_path is not None:
        try:
            json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputUnwritable(f"{json_path} cannot be written: {error.strerror}", hint="choose another") from error
    return 0


def peak_memory(folders: Sequence[str], model_id: str, device: str, threads: int | None, edge_px: int) -> int:
    """Make one whole material in this process; returns the largest resident memory of the process in bytes."""
    from assetgen.local import open_local

    with open_local([Path(folder) for folder in folders], device, threads) as maker:
        for _ in maker.generate(Request(model_id, seed=0, width_px=edge_px, height_px=edge_px)):
            pass
    return peak_bytes()


def _server(
    package: VerifiedPackage,
    session: Session,
    arguments: Sequence[str],
    device: str,
    threads: int | None,
    seconds: float,
) -> Figures:
    """One raw RGB map at 256 px: the bare session call beside the whole way through a server on loopback.

    Raw calls, those of a bare gRPC server and ours, with a new seed and with a moved slider, alternate call by call, so
    that the machine's other load meets all alike; throughputs are of alternating rounds.
    """
    edge_px = _edge(package, SMALL_PX)
    slider = next(spec for spec in package.manifest.parameters if spec.type == "float")
    inputs = example_inputs(package, edge_px)
    with ServerProcess(arguments) as server, Client(server.address) as client:
        raw_ms: list[float] = []
        bare_ms: list[float] = []
        served_ms: list[float] = []
        moved_ms: list[float] = []
        with bare_server(package.folder, device, threads, edge_px) as call_bare:
            for seed in range(20):
                session.run(inputs)
                call_bare()
                _call(client, package, edge_px, seed)
            end_s = time.perf_counter() + seconds
            while time.perf_counter() < end_s:
                raw_ms.append(_timed_ms(lambda: session.run(inputs)))
                bare_ms.append(_timed_ms(call_bare))
                served_ms.append(_timed_ms(lambda: _call(client, package, edge_px, len(served_ms))))
                share = len(moved_ms) * GOLDEN_SHARE % 1.0
                moved = {slider.name: slider.minimum + share * (slider.maximum - slider.minimum)}
                moved_ms.append(_timed_ms(partial(_call, client, package, edge_px, 0, moved)))
        plain = _plain_above_raw(package, session, inputs, threads, seconds / ROUNDS)
        raw_rates: list[float] = []
        served_rates: list[float] = []
        for _ in range(ROUNDS):
            raw_rates.append(_raw_rate(session, inputs, seconds / ROUNDS))
            served_rates.append(_served_rate(server.address, package, edge_px, seconds / ROUNDS))
    above_raw = partial(_median_difference, raw_ms)
    overhead_ms = above_raw(served_ms)
    beside_plain = (
        {}
        if plain is None
        else {
            "plain_onnxruntime_above_raw_of_pairs_p50_ms": plain,
            "overhead_above_plain_onnxruntime_p50_ms": overhead_ms - plain,
        }
    )
    return {
        "edge_px": edge_px,
        "calls": len(raw_ms),
        "raw_p50_ms": statistics.median(raw_ms),
        "raw_p95_ms": _p95(raw_ms),
        "served_p50_ms": statistics.median(served_ms),
        "served_p95_ms": _p95(served_ms),
        "overhead_p50_ms": statistics.median(served_ms) - statistics.median(raw_ms),
        "overhead_of_pairs_p50_ms": overhead_ms,
        **beside_plain,
        "moved_slider_overhead_of_pairs_p50_ms": above_raw(moved_ms),
        "bare_grpc_overhead_of_pairs_p50_ms": above_raw(bare_ms),
        "raw_per_s": statistics.median(raw_rates),
        f"served_per_s_{CLIENTS}_clients": statistics.median(served_rates),
        "throughput_ratio": statistics.median(served_rates) / statistics.median(raw_rates),
    }


def _plain_above_raw(
    package: VerifiedPackage, session: Session, inputs: dict[str, FloatArray], threads: int | None, seconds: float
) -> float | None:
    """What ONNX Runtime, as it comes, takes for the same graph above our session; ``None`` if ours is another runtime.

    Ours has the graph rewritten and threads that hardly spin. A server's cost counts from ours, what its users wait for
    from what they would have without it.
    """
    if not session.backend.startswith("onnxruntime") or session.device != "cpu":
        return None
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    plain = ort.InferenceSession(package.read_graph(precision_of(session.backend)), options, providers=[CPU_PROVIDER])
    raw_ms: list[float] = []
    plain_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        session.run(inputs)  # not counted: it comes after a rest
        raw_ms.append(_timed_ms(lambda: session.run(inputs)))
        plain_ms.append(_timed_ms(lambda: plain.run(None, inputs)))
        time.sleep(SPIN_S)
    return _median_difference(raw_ms[1:], plain_ms[1:])


def _material(package: VerifiedPackage, session: Session, arguments: Sequence[str], seconds: float) -> Figures:
    """Whole materials at 512 px with new seeds, from the call to the last map, pixels and files, beside the graph.

    What is made of the graph's maps takes its time, too: the more the faster the device is.
    """
    edge_px = _edge(package, WHOLE_PX)
    inputs = example_inputs(package, edge_px)
    graph_ms: list[float] = []
    made_ms: dict[Encoding, list[float]] = {Encoding.RAW: [], Encoding.PNG: []}
    with ServerProcess(arguments) as server, Client(server.address) as client:
        for number in range(5):
            session.run(inputs)
            _call(client, package, edge_px, number, output=OutputSpec(encoding=Encoding.RAW))
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            graph_ms.append(_timed_ms(lambda: session.run(inputs)))
            for encoding, spent_ms in made_ms.items():
                output, seed = OutputSpec(encoding=encoding), 100 + len(graph_ms)
                spent_ms.append(_timed_ms(partial(_call, client, package, edge_px, seed, output=output)))
    return {
        "edge_px": edge_px,
        "calls": len(graph_ms),
        "graph_p50_ms": statistics.median(graph_ms),
        "pixels_p50_ms": statistics.median(made_ms[Encoding.RAW]),
        "files_p50_ms": statistics.median(made_ms[Encoding.PNG]),
    }


def _pixels(package: VerifiedPackage, session: Session) -> Figures:
    """Cost of a pixel in the graph, small beside large."""
    small_px, large_px = _edge(package, SMALL_PX), _edge(package, LARGE_PX)
    nanoseconds = {}
    for edge_px, repeats in ((small_px, 15), (large_px, 3)):
        inputs = example_inputs(package, edge_px)
        run_in_windows(session.run, package.manifest, inputs)
        spent_ms = statistics.median(
            _timed_ms(partial(run_in_windows, session.run, package.manifest, inputs)) for _ in range(repeats)
        )
        nanoseconds[edge_px] = spent_ms * 1e6 / edge_px**2
    return {
        f"ns_per_px_{small_px}": nanoseconds[small_px],
        f"ns_per_px_{large_px}": nanoseconds[large_px],
        "ratio": nanoseconds[large_px] / nanoseconds[small_px],
    }


def _memory(package: VerifiedPackage, folders: Sequence[Path], device: str, threads: int | None) -> Figures:
    """Peak of a fresh process that makes one whole material at the largest size."""
    edge_px = _edge(package, HUGE_PX)
    names = [str(folder) for folder in folders]
    call = f"peak_memory({names!r}, {package.manifest.id!r}, {device!r}, {threads!r}, {edge_px})"
    code = f"from assetgen.bench import peak_memory; print({call})"
    begun_s = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    spent_s = time.perf_counter() - begun_s
    return {"edge_px": edge_px, "peak_gb": int(answer.stdout) / 1e9, "process_s": spent_s}


def _encode(package: VerifiedPackage, session: Session) -> Figures:
    """Files of base colour at 1024 px."""
    edge_px = _edge(package, FILE_PX)
    outputs = session.run(example_inputs(package, edge_px))
    name = next(spec.name for spec in package.manifest.outputs if spec.map_kind == MapKind.BASE_COLOR)
    pixels = (outputs[name][0].transpose(1, 2, 0) * 255 + 0.5).astype(np.uint8)
    spent_ms, size_bytes = [], 0
    for _ in range(7):
        begun_s = time.perf_counter()
        data = encode.encode(pixels, PixelFormat.RGB8, Encoding.PNG, color_space=ColorSpace.SRGB)
        spent_ms.append((time.perf_counter() - begun_s) * 1e3)
        size_bytes = len(data)
    run_ms = _timed_ms(lambda: session.run(example_inputs(package, edge_px)))
    return {
        "edge_px": edge_px,
        "png_ms": statistics.median(spent_ms),
        "graph_ms": run_ms,
        "png_share_of_raw": size_bytes / pixels.nbytes,
    }


def _start(arguments: Sequence[str]) -> Figures:
    """From the start of the process to ready, and to the text of --help."""
    ready_s, help_s = [], []
    for _ in range(STARTS):
        with ServerProcess(arguments) as server:
            ready_s.append(server.ready_s)
        begun_s = time.perf_counter()
        subprocess.run([sys.executable, "-m", "assetgen", "--help"], check=True, stdout=subprocess.DEVNULL)
        help_s.append(time.perf_counter() - begun_s)
    return {"ready_s": statistics.median(ready_s), "help_s": statistics.median(help_s)}


def _package(folders: Sequence[Path], model_id: str) -> VerifiedPackage:
    """The model of materials to measure: of other kinds sizes and maps are not what these figures are about."""
    store = open_store(folders)
    found = [p for p in ([store[model_id]] if model_id else store.values()) if p.manifest.kind == "texture"]
    if len(found) != 1:
        raise ConfigInvalid(
            f"not one model for materials but {len(found)} among {model_id or ', '.join(store) or 'none'}",
            hint="choose one with --model",
        )
    return found[0]


def _edge(package: VerifiedPackage, wanted_px: int) -> int:
    """``wanted_px``, or the largest the model can make."""
    return min(wanted_px, package.manifest.size.max_px)


def _call(
    client: Client,
    package: VerifiedPackage,
    edge_px: int,
    seed: int,
    parameters: Mapping[str, ParameterValue] | None = None,
    output: OutputSpec = ONE_MAP,
) -> None:
    request = Request(
        package.manifest.id,
        seed=seed,
        width_px=edge_px,
        height_px=edge_px,
        parameters=parameters or {},
        output=output,
    )
    for _ in client.generate(request):
        pass


def _median_difference(base_ms: Sequence[float], given_ms: Sequence[float]) -> float:
    return statistics.median(given - base for base, given in zip(base_ms, given_ms, strict=True))


def _raw_rate(session: Session, inputs: dict[str, FloatArray], seconds: float) -> float:
    begun_s, calls = time.perf_counter(), 0
    while time.perf_counter() - begun_s < seconds:
        session.run(inputs)
        calls += 1
    return calls / (time.perf_counter() - begun_s)


def _served_rate(address: str, package: VerifiedPackage, edge_px: int, seconds: float) -> float:
    """Calls a second of 16 clients, each with a connection of its own."""
    done = [0] * CLIENTS
    ready = threading.Barrier(CLIENTS + 1)
    stop = threading.Event()

    def work(number: int) -> None:
        with Client(address) as client:
            _call(client, package, edge_px, number)
            ready.wait()
            while not stop.is_set():
                _call(client, package, edge_px, number)
                done[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    ready.wait()
    begun_s, before = time.perf_counter(), sum(done)
    stop.wait(seconds)
    calls, spent_s = sum(done) - before, time.perf_counter() - begun_s
    stop.set()
    for thread in threads:
        thread.join()
    return calls / spent_s


def _timed_ms(work: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    work()
    return (time.perf_counter() - begun_s) * 1e3


def _p95(values: Iterable[float]) -> float:
    return float(np.percentile(list(values), 95))


def _machine(session: Session) -> str:
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"assetgen {__version__}, Python {platform.python_version()}, {platform.platform()}, {_processor()}, "
        f"{usable_cores()} cores{load}; {session.device}, {session.backend}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
