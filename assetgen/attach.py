"""Files that a request names, read into it, on the side of who asks; imports errors and types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from assetgen.errors import FieldInvalid
from assetgen.types import ParameterValue, Request

# Of one file: a server takes messages of 32 MiB.
MAX_FILE_BYTES = 31 * 2**20


def with_files(request: Request) -> Request:
    """The request with the bytes of a file in place of every Path among its parameters.

    Raises:
        FieldInvalid: a file cannot be read, or is larger than a server takes.
    """
    if not any(isinstance(value, Path) for value in request.parameters.values()):
        return request
    return replace(request, parameters={name: _read(name, value) for name, value in request.parameters.items()})


def _read(name: str, value: ParameterValue) -> ParameterValue:
    if not isinstance(value, Path):
        return value
    field = f"parameters[{name}]"
    try:
        with value.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise FieldInvalid(
            f"{field}: {value} cannot be read: {error.strerror or error}", field=field, hint="check the path"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise FieldInvalid(
            f"{field}: {value} has more than {MAX_FILE_BYTES >> 20} MiB, the most that can be sent",
            field=field,
            hint="save the picture smaller, or as JPEG",
        )
    return data
