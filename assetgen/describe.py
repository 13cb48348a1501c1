"""What a server tells of itself and its models, as plain dataclasses; imports manifest and types."""

from __future__ import annotations

from dataclasses import dataclass

from assetgen.manifest import ParameterSpec, SizeSpec
from assetgen.types import ColorSpace, MapKind, NormalConvention


@dataclass(frozen=True)
class ModelInfo:
    """One model, with all that a form needs.

    Attributes:
        digest: hex SHA-256 of the manifest.
        class_labels: labels of the parameter ``class``, in the order of its values.
        maps: maps the model makes.
        parameters: what a request may hold.
        preview_png: at most 256 x 256; may be empty.
    """

    id: str
    display_name: str
    description: str
    kind: str
    version: str
    digest: str
    license: str
    class_labels: tuple[str, ...]
    maps: tuple[MapKind, ...]
    parameters: tuple[ParameterSpec, ...]
    size: SizeSpec
    preview_png: bytes


@dataclass(frozen=True)
class TextureInfo:
    """One file of an engine profile.

    Attributes:
        file_name: with ``{name}`` for the asset's name.
        channels: what R, G, B, A hold: a map's name, ``smoothness``, ``one`` or ``zero``; one entry for a whole map.
    """

    role: str
    file_name: str
    color_space: ColorSpace
    channels: tuple[str, ...]


@dataclass(frozen=True)
class ProfileInfo:
    """Which files an engine gets for a material."""

    id: str
    display_name: str
    normal_convention: NormalConvention
    textures: tuple[TextureInfo, ...]


@dataclass(frozen=True)
class ServerInfo:
    """Version, limits, device and engine profiles of a server.

    Attributes:
        http_port: of Connect, gRPC-Web and files on HTTP/1.1; 0 without one.
    """

    version: str
    min_client_version: str
    device: str
    max_count: int
    max_edge_px: int
    max_request_bytes: int
    profiles: tuple[ProfileInfo, ...]
    http_port: int = 0
