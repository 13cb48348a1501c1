"""The graph behind MLServer: a runtime of its own kind, for `mlserver start FOLDER`."""

from __future__ import annotations

from graph import Graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Model(MLModel):
    """One process, one call at a time."""

    async def load(self) -> bool:
        """Load the graph."""
        self.graph = Graph()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The pixels as they are: with raw contents its gRPC port copies them once."""
        output = NumpyCodec.encode_output("pixels", self.graph.array())
        return InferenceResponse(model_name=self.name, outputs=[output])
