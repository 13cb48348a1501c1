"""The graph behind Triton Inference Server: a model for its Python backend, as ``1/model.py`` of a model repository.

With numpy 2 that backend, as the wheel nvidia-pytriton has it, answers with outputs of no bytes: its pybind11 is older
(python_backend, pull request 384).
"""

from __future__ import annotations

import os
import sys

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    """One instance, one call at a time."""

    def initialize(self, args):
        """Load the graph."""
        if not np.__version__.startswith("1."):
            raise RuntimeError(f"numpy {np.__version__}: this backend needs one below 2")
        sys.path += os.environ["PYTHONPATH"].split(":")  # the Python within the backend does not heed it
        from graph import Graph

        self.graph = Graph()

    def execute(self, requests):
        """The pixels as they are."""
        return [backend.InferenceResponse([backend.Tensor("pixels", self.graph.array())]) for _ in requests]
