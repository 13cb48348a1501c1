"""The graph behind LitServe: `python litserve_server.py PORT`."""

from __future__ import annotations

import sys

import litserve
from fastapi import Response
from graph import Graph


class Api(litserve.LitAPI):
    """One worker, one call at a time."""

    def setup(self, device):
        """Load the graph in the worker."""
        self.graph = Graph()

    def decode_request(self, request):
        """Nothing is asked."""
        return 0

    def predict(self, x):
        """Run it."""
        return self.graph.pixels()

    def encode_response(self, output):
        """The pixels as they are."""
        return Response(content=output, media_type="application/octet-stream")


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
