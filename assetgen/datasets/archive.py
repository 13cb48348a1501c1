"""Training files are ZIPs that may come from anyone: nothing is unpacked beyond a bound; imports errors of ours.

Members are read into memory by name, never written to disk.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from PIL import Image

from assetgen.errors import DataInvalid

MAX_INDEX_BYTES: Final = 1 << 28  # an item takes about one kilobyte
# What libraries raise on damaged or hostile files; RuntimeError stands for deep nesting and for encrypted members too.
DAMAGED: Final = (
    OSError,
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    SyntaxError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
    Warning,  # an exception only where warnings are errors
)


@contextmanager
def opened(path: Path, what: str, hint: str) -> Iterator[zipfile.ZipFile]:
    """A training file to read from.

    Args:
        what: a name for such files, with its article.

    Raises:
        DataInvalid: it does not exist, or the block met what is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise DataInvalid(f"{path} does not exist", hint=hint) from error
    except DAMAGED as error:
        raise DataInvalid(f"{path} is not {what}, or damaged: {error!s:.200}", hint=hint) from error


def read_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    """The content of one member.

    Raises:
        ValueError: more than ``most_bytes``, or packed in an unusual way; and whatever else of ``DAMAGED``.
    """
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed by method {entry.compress_type}")
    with archive.open(entry) as member:
        data = member.read(most_bytes + 1) if entry.file_size <= most_bytes else b""
    if max(entry.file_size, len(data)) > most_bytes:
        raise ValueError(f"{name} has more than {most_bytes} bytes")
    return data


def read_items(archive: zipfile.ZipFile, name: str, schema: int, path: Path, hint: str) -> dict[str, Any]:
    """An index whose ``items`` are objects with a text ``class``. Facts in it are free, so any JSON may stand there.

    Raises:
        DataInvalid: of another schema.
        ValueError: no such index; and whatever else of ``DAMAGED``.
    """
    index = json.loads(read_member(archive, name, MAX_INDEX_BYTES))
    if index["schema"] != schema:
        raise DataInvalid(f"{path} has schema {index['schema']!r:.40}; {schema} is supported", hint=hint)
    items = index["items"]
    if not isinstance(items, list) or not all(isinstance(record["class"], str) for record in items):
        raise ValueError("items are no list of objects with a class")
    return dict(index)
