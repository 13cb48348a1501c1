"""What travels through the product: requests, events and assets; frozen dataclasses over numpy, nothing of ours.

Ranges are contract. Network tensors are ``[N, C, H, W] float32``; maps in ``Material`` are ``[H, W, C] float32``;
``uint8`` and ``uint16`` exist only in encoded artifacts, and where a device made pixels of maps itself.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
ParameterValue: TypeAlias = float | int | str | bytes | Path


class MapKind(StrEnum):
    """The maps of a material, by the names the contract and the package manifest use."""

    BASE_COLOR = "base_color"
    NORMAL = "normal"
    ROUGHNESS = "roughness"
    METALLIC = "metallic"
    AMBIENT_OCCLUSION = "ambient_occlusion"
    HEIGHT = "height"


class NormalConvention(StrEnum):
    """Direction of the green channel: up in OpenGL, Unity, Godot and Blender; down in DirectX and Unreal."""

    Y_UP = "y_up"
    Y_DOWN = "y_down"


class Encoding(StrEnum):
    """How artifacts are delivered: PNG files, or rows of raw pixels."""

    PNG = "png"
    RAW = "raw"


class ColorSpace(StrEnum):
    """How an engine must read a file: colours are sRGB, data maps linear."""

    SRGB = "srgb"
    LINEAR = "linear"


class PixelFormat(StrEnum):
    """Layout of one pixel, channels interleaved; 16-bit values are little-endian in raw artifacts."""

    R8 = "r8"
    RGB8 = "rgb8"
    RGBA8 = "rgba8"
    R16 = "r16"


@dataclass(frozen=True)
class OutputSpec:
    """What the caller wants back.

    Attributes:
        maps: map kinds wanted; empty means all. Must be empty with a profile that packs maps.
        profile: engine profile id (``plain``, ``unreal``, ``unity-urp``, ``unity-hdrp``, ``godot``, ``blender``,
            ``gltf``).
        normal_convention: ``None`` means the profile's own.
        encoding: PNG files or raw pixels.
        name: base of the file names; empty means ``<class>_<seed>_<index>``.
    """

    maps: tuple[MapKind, ...] = ()
    profile: str = "plain"
    normal_convention: NormalConvention | None = None
    encoding: Encoding = Encoding.PNG
    name: str = ""


@dataclass(frozen=True)
class Request:
    """One call of Generate, checked nowhere yet.

    Attributes:
        model_id: id of a served model.
        seed: 0 to 2**32 - 1; ``None`` lets the maker draw one and report it.
        count: number of assets; 0 means 1.
        first_index: index of the first asset; asset i depends on (seed, i) only.
        width_px, height_px: size of the maps; 0 means the model's own.
        parameters: name to value, checked against the model's parameter specs; a Path stands for the bytes of its file,
            read by whoever sends the request.
        model_digest: hex SHA-256 of the manifest that must be served; empty means any.
    """

    model_id: str
    seed: int | None = None
    count: int = 0
    first_index: int = 0
    width_px: int = 0
    height_px: int = 0
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    output: OutputSpec = OutputSpec()
    model_digest: str = ""


@dataclass(frozen=True)
class Material:
    """The maps of one material.

    ``maps`` holds ``[H, W, C] float32`` in [0, 1]: base colour sRGB-coded with C 3, the others linear with C 1. The
    normal map (C 3) holds unit vectors in [-1, 1], Y up. Of a device that rounds maps itself they are pixels already:
    uint8, and uint16 for height.
    """

    maps: Mapping[MapKind, FloatArray]


@dataclass(frozen=True)
class Artifact:
    """One finished file or raw picture; a file that is no picture (JSON, GLB, OBJ) has neither pixels nor a size.

    Attributes:
        index: asset index within the request's seed.
        role: what the file is to an engine: a map kind's name, or a packed texture such as ``orm``.
        name: file name, never a path.
        media_type: ``image/png``, ``application/octet-stream`` for raw pixels, or that of another file, such as
            ``application/json`` or ``model/gltf-binary``.
        pixel_format, color_space: ``None`` for a file that is no picture, and only there.
        width_px, height_px: size of the picture; 0 for a file that is none.
        known_sha256: hex digest of ``data`` where it is known already.
    """

    index: int
    role: str
    name: str
    media_type: str
    pixel_format: PixelFormat | None
    color_space: ColorSpace | None
    width_px: int
    height_px: int
    data: bytes | memoryview
    known_sha256: str = field(default="", repr=False, compare=False)

    @functools.cached_property
    def sha256(self) -> str:
        """Hex digest of ``data``; computed when it is first asked for, since small previews do without."""
        return self.known_sha256 or hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Started:
    """First event: what will be computed with. Equal ``backend`` strings promise equal bytes."""

    seed: int
    model_digest: str
    backend: str


@dataclass(frozen=True)
class Progress:
    """Stage for people (queued, generating, encoding) and fraction of the whole request in [0, 1], never falling."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class Finished:
    """Last event, with the seconds spent waiting and working."""

    queue_s: float
    work_s: float


Event: TypeAlias = Started | Progress | Artifact | Finished
