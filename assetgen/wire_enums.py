"""The enumerations of ``assetgen.v1`` beside ours, both ways; imports v1 and types."""

from __future__ import annotations

from assetgen.types import ColorSpace, MapKind, NormalConvention
from assetgen.v1 import asset_pb2

MAPS = {kind: asset_pb2.MapKind.Value(f"MAP_KIND_{kind.name}") for kind in MapKind}
CONVENTIONS = {kind: asset_pb2.NormalConvention.Value(f"NORMAL_CONVENTION_{kind.name}") for kind in NormalConvention}
SPACES = {kind: asset_pb2.ColorSpace.Value(f"COLOR_SPACE_{kind.name}") for kind in ColorSpace}
MAP_OF: dict[int, MapKind] = {number: kind for kind, number in MAPS.items()}
CONVENTION_OF: dict[int, NormalConvention] = {number: kind for kind, number in CONVENTIONS.items()}
SPACE_OF: dict[int, ColorSpace] = {number: kind for kind, number in SPACES.items()}
