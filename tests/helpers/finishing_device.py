"""A device that finishes maps itself, its memory being the processor's: all of the way to a GPU but the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assetgen.package import VerifiedPackage
from assetgen.process import child
from assetgen.runtime import ort
from assetgen.runtime.bound import BoundSession
from assetgen.runtime.finish import open_finisher

PROGRAM = "from tests.helpers.finishing_device import main; main({arguments})"
MEMORY = ("cpu", 0)


def load(graph: bytes, package: VerifiedPackage) -> Any:
    """A session of ONNX Runtime on one thread."""
    module = ort.import_onnxruntime()
    options = ort.session_options(module)
    options.intra_op_num_threads = 1
    return ort.load_graph(module, graph, options, [ort.CPU_PROVIDER], package)


def open_model(package: VerifiedPackage, _device: str = "", _threads: int | None = None) -> BoundSession:
    """A session that finishes."""
    module = ort.import_onnxruntime()
    finisher, unfinished = open_finisher(lambda data: load(data, package), module, MEMORY, package.manifest)
    assert finisher is not None, unfinished
    session = load(package.read_graph(), package)
    return BoundSession(
        session, module, MEMORY, "bound/cpu/fp32/x", "cpu", "asked for", captures=False, finisher=finisher
    )


def main(parent: int, level: int, control: int, lanes: Sequence[int]) -> None:
    """As ``child.main``."""
    child.main(parent, level, control, lanes, open_model=open_model)
