"""What a kind makes of a request, and checking the parts that all kinds share; imports manifest, types and errors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any, Protocol

from assetgen.errors import FieldInvalid
from assetgen.manifest import Manifest, ParameterSpec, SizeSpec
from assetgen.package import VerifiedPackage
from assetgen.types import Artifact, FloatArray, MapKind, ParameterValue, Request

MAX_COUNT = 64
MAX_SEED = 2**32 - 1


class Plan(Protocol):
    """A checked request: all that the service needs to know of one."""

    @property
    def seed(self) -> int:
        """Seed in use."""

    @property
    def first_index(self) -> int:
        """Index of the first asset."""

    @property
    def count(self) -> int:
        """Number of assets, 1 to MAX_COUNT."""

    @property
    def width_px(self) -> int:
        """Width of what is computed: that of the maps, and at most what lies around them."""

    @property
    def height_px(self) -> int:
        """Height of what is computed, likewise."""


class Kind(Protocol):
    """Two pure functions around a graph, and the check before them; a module of this package."""

    def check(self, package: VerifiedPackage) -> None:
        """Raise PackageInvalid if the model asks for something that this version cannot do."""

    def made_maps(self, manifest: Manifest) -> tuple[MapKind, ...]:
        """Maps the model makes, in the order of MapKind; empty for kinds that make none."""

    def resolve(self, manifest: Manifest, request: Request) -> Any:
        """Check the request against the model, and fill in what it leaves open."""

    def prepare(self, manifest: Manifest, plan: Any, index: int) -> dict[str, FloatArray]:
        """Make the graph's inputs for asset ``index``, batch dimension 1."""

    def finish(
        self, manifest: Manifest, plan: Any, index: int, outputs: Mapping[str, FloatArray]
    ) -> Iterator[Artifact]:
        """Turn the graph's outputs for asset ``index`` into files."""


def shown(value: object) -> str:
    """What was given, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_integer(value: object, low: int, high: int, field: str) -> int:
    """``value`` as an int from ``low`` to ``high``; raises FieldInvalid naming ``field``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise FieldInvalid(
            f"{field}: {shown(value)} is not allowed; use a whole number from {low} to {high}",
            field=field,
            metadata={"value": shown(value), "min": str(low), "max": str(high)},
        )
    return int(value)


def check_indices(request: Request) -> tuple[int, int]:
    """First index and count; the indices must stay below 2**32."""
    count = check_integer(request.count, 0, MAX_COUNT, "count") or 1
    first_index = check_integer(request.first_index, 0, MAX_SEED, "first_index")
    if first_index + count > MAX_SEED + 1:
        raise FieldInvalid(
            f"first_index: {first_index} with count {count} goes beyond the last index {MAX_SEED}",
            field="first_index",
            hint=f"use a first_index of at most {MAX_SEED + 1 - count}",
            metadata={"value": str(first_index), "count": str(count), "max": str(MAX_SEED + 1 - count)},
        )
    return first_index, count


def check_edge(edge_px: object, size: SizeSpec, model_id: str, field: str) -> int:
    """An edge that the model can make; 0 is the model's own."""
    if isinstance(edge_px, Integral) and not isinstance(edge_px, bool):
        edge = int(edge_px)
        if edge == 0:
            return size.default_px
        if size.min_px <= edge <= size.max_px and edge % size.stride_px == 0:
            return edge
    allowed = f"multiples of {size.stride_px} from {size.min_px} to {size.max_px}"
    metadata = {"value": shown(edge_px), "model": model_id, "stride": str(size.stride_px)}
    raise FieldInvalid(
        f"{field}: {shown(edge_px)} is not allowed; use {allowed}, or 0 for {size.default_px} (model {model_id!r})",
        field=field,
        metadata=metadata | {"min": str(size.min_px), "max": str(size.max_px)},
    )


def check_parameters(
    specs: tuple[ParameterSpec, ...], given: Mapping[str, ParameterValue], model_id: str
) -> dict[str, ParameterValue]:
    """Values for every parameter the model declares, its defaults where ``given`` has none."""
    known = {spec.name: spec for spec in specs}
    for name in given:
        if name not in known:
            field = f"parameters[{name if len(name) <= 80 else name[:77] + '...'}]"
            raise FieldInvalid(
                f"{field}: model {model_id!r} has no such parameter; it has {', '.join(known) or 'none'}",
                field=field,
                metadata={"parameter": shown(name), "model": model_id},
            )
    values: dict[str, ParameterValue] = {}
    for spec in specs:
        if spec.name in given:
            values[spec.name] = _check_value(spec, given[spec.name])
        elif spec.required or spec.default is None:
            field = f"parameters[{spec.name}]"
            raise FieldInvalid(f"{field}: model {model_id!r} needs it; {_allowed(spec)}", field=field)
        else:
            values[spec.name] = spec.default
    return values


def _check_value(spec: ParameterSpec, value: ParameterValue) -> ParameterValue:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if spec.type == "float" and number and math.isfinite(value) and spec.minimum <= value <= spec.maximum:  # type: ignore[arg-type, operator]
        return float(value)  # type: ignore[arg-type]
    if spec.type == "int" and number and isinstance(value, Integral) and spec.minimum <= int(value) <= spec.maximum:
        return int(value)
    if spec.type == "choice" and isinstance(value, str) and value in spec.values:
        return value
    if spec.type == "image" and isinstance(value, bytes):
        return value
    field = f"parameters[{spec.name}]"
    raise FieldInvalid(
        f"{field}: {shown(value)} is not allowed; {_allowed(spec)}",
        field=field,
        metadata={"value": shown(value), "parameter": spec.name},
    )


def _allowed(spec: ParameterSpec) -> str:
    if spec.type == "float":
        return f"use a number from {spec.minimum:g} to {spec.maximum:g}"
    if spec.type == "int":
        return f"use a whole number from {int(spec.minimum)} to {int(spec.maximum)}"
    if spec.type == "choice":
        return f"use one of {', '.join(spec.values)}"
    return f"use an encoded picture: {', '.join(spec.media_types)}"
