"""What a server tells of itself, its models and jobs, as plain dataclasses; imports manifest, errors and types."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from assetgen.errors import AssetgenError
from assetgen.manifest import ParameterSpec, SizeSpec
from assetgen.types import Artifact, ColorSpace, Finished, MapKind, NormalConvention, Started


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
        shared_folder: of files in shared memory, see ``handover``; empty without one.
    """

    version: str
    min_client_version: str
    device: str
    max_count: int
    max_edge_px: int
    max_request_bytes: int
    profiles: tuple[ProfileInfo, ...]
    http_port: int = 0
    shared_folder: str = ""


class JobState(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class JobInfo:
    """A request that is carried out whether its client is there or not, as it was at one moment.

    Attributes:
        revision: grows with each change.
        stage, fraction: as ``Progress``; 1 only when it has succeeded.
        started: once it is known.
        artifacts: the files that are done; on the client's side without their bytes.
        finished: when it has succeeded.
        error: when it has failed or was cancelled.
        expires_in_s: until the server may forget it; 0 while it has not ended.
    """

    id: str
    revision: int
    state: JobState
    stage: str = ""
    fraction: float = 0.0
    started: Started | None = None
    artifacts: tuple[Artifact, ...] = ()
    finished: Finished | None = None
    error: AssetgenError | None = None
    expires_in_s: float = 0.0
