"""The graph behind BentoML: `bentoml serve bentoml_service:Service --port PORT`."""

from __future__ import annotations

import bentoml
from graph import Graph
from starlette.responses import Response


@bentoml.service(workers=1, traffic={"timeout": 60})
class Service:
    """One worker, one call at a time."""

    def __init__(self) -> None:
        self.graph = Graph()

    @bentoml.api
    def predict(self, context: bentoml.Context) -> bytes:
        """The pixels as they are."""
        return self.graph.pixels()


__all__ = ["Response", "Service"]
