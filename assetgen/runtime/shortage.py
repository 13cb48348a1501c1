"""Tells a lack of memory from all else that a runtime may fail of; standard library only.

A run that was too large is no fault: the next one may fit, and nobody is to blame. No runtime has a kind of error of
its own for it; what they say are texts, found in their source and their libraries.
"""

from __future__ import annotations

import logging
import re

log = logging.getLogger(__name__)

_SAID = re.compile(
    r"""(?:
        (?:std::)?bad[ _]alloc  # C++ itself, as Microsoft and as others word it
        | failed\ to\ allocate\ (?:memory|[0-9]+\ bytes\ of\ memory)  # ONNX Runtime's arenas on all devices; OpenVINO
        | could\ not\ allocate\ memory  # oneDNN in OpenVINO
        | out\ of\ memory  # CUDA's own words for its failure 2
        | CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED
        | \bcu[a-z]\w+\ returned\ 2\b  # the same failure in our words, see `cuda_driver`
    )[^\n]{0,200}""",
    re.IGNORECASE | re.VERBOSE,
)
# ONNX Runtime names the node before it, and whoever made the graph named that.
_BEHIND_THE_NAME = "Status Message:"


def shortage(backend: str, error: BaseException) -> MemoryError | None:
    """What to raise in place of a runtime's error that tells of too little memory; ``None`` for any other error.

    Args:
        backend: what computes, for the log.
    """
    if isinstance(error, MemoryError):
        said = str(error)
    elif found := _SAID.search(str(error).rpartition(_BEHIND_THE_NAME)[2]):
        said = found.group()
    else:
        return None
    log.warning("%s: not enough memory for a run: %s", backend, said or "nothing more is known")
    return MemoryError(f"{backend}: not enough memory: {said}")
