"""The graph behind Ray Serve: `python ray_server.py PORT`."""

from __future__ import annotations

import sys
import time

import ray
from graph import Graph
from ray import serve
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=1)
class Api:
    """One replica, one call at a time."""

    def __init__(self) -> None:
        self.graph = Graph()

    def __call__(self, request) -> Response:
        """The pixels as they are."""
        return Response(self.graph.pixels(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Api.bind(), route_prefix="/predict")
    while True:
        time.sleep(1)
