"""The graph behind Triton's Python backend, as 1/model.py of a model repository."""

from __future__ import annotations

import triton_python_backend_utils as backend  # comes with the server
from graph import Graph


class TritonPythonModel:
    """One instance, one call at a time."""

    def initialize(self, args):
        """Load the graph in the backend's process."""
        self.graph = Graph()

    def execute(self, requests):
        """The pixels as they are."""
        return [
            backend.InferenceResponse(output_tensors=[backend.Tensor("pixels", self.graph.array())]) for _ in requests
        ]
