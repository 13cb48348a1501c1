"""Registry of model kinds: what a request means for each, before and after the graph; imports the kinds only."""

from __future__ import annotations

from assetgen.kinds import texture
from assetgen.kinds.plan import Kind, Plan

KINDS: dict[str, Kind] = {"texture": texture}

__all__ = ["KINDS", "Kind", "Plan"]
