"""Who may call, from a file of tokens that is read again when it changes; imports callers and errors.

The file is TOML, one table a token:

    [tokens.anna]
    sha256 = "9f86d081..."    # hex SHA-256 of the token; or token = "..." in plain text
    max_calls = 8             # under way at once; optional
    mpx_per_minute = 64       # 2**20 pixels asked for; optional

Tokens are long and random, so a plain hash keeps them; a password would need a slow one.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import stat
import threading
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assetgen.callers import Caller
from assetgen.errors import ConfigInvalid, TokenInvalid

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 1.0
MIN_TOKEN_LENGTH = 20
MAX_FILE_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KEYS = {"token", "sha256", "max_calls", "mpx_per_minute"}


class TokenTable:
    """Callers by token; usable from several threads.

    Args:
        path: read now, and again at most once a second if it has changed. A later version that is wrong is reported in
            the log, and the last right one stays.

    Raises:
        ConfigInvalid: the file is absent, readable by everybody although it holds plain tokens, or wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state = _state(path)
        self._callers = _read(path)
        self._look_again_s = time.monotonic() + LOOK_AGAIN_S

    def caller(self, authorization: str | None) -> Caller:
        """Who sent this ``authorization`` value, such as ``Bearer abc``; all tokens are compared, in constant time.

        Raises:
            TokenInvalid: nobody that the file knows.
        """
        self._refresh()
        scheme, _, token = (authorization or "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(known, given):
                found = caller
        if found is None or scheme.lower() != "bearer":
            said = "the call carries no token" if not authorization else "the server does not know this token"
            raise TokenInvalid(
                said, hint="send the metadata 'authorization: Bearer TOKEN'; ask the operator for a token"
            )
        return found

    def _refresh(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_again_s or not self._lock.acquire(blocking=False):
            return
        try:
            self._look_again_s = now_s + LOOK_AGAIN_S
            if (state := _state(self._path)) != self._state:
                self._state = state
                self._callers = _read(self._path)
                log.info("%s: %d tokens", self._path, len(self._callers))
        except ConfigInvalid as error:
            log.error("%s; the tokens read before stay valid", error.message)
        finally:
            self._lock.release()


def _state(path: Path) -> tuple[int, ...]:
    """What changes when the file does."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _read(path: Path) -> dict[str, Caller]:
    """Callers by hex SHA-256 of their token."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode
        document = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path}: the file of tokens cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{path}: no TOML: {error}", hint="see docs/serving.md") from error
    tables = document.get("tokens")
    if len(data) > MAX_FILE_BYTES or set(document) != {"tokens"} or not isinstance(tables, dict) or not tables:
        raise ConfigInvalid(f"{path}: write one table [tokens.NAME] a token, and nothing else, at most 1 MiB")
    callers: dict[str, Caller] = {}
    for name, table in tables.items():
        known = _hash_of(path, name, table)
        if known in callers:
            raise ConfigInvalid(f"{path}: {name} has the token of {callers[known].name}")
        callers[known] = Caller(
            name,
            max_calls=int(_limit(path, name, table, "max_calls", int)),
            mpx_per_minute=float(_limit(path, name, table, "mpx_per_minute", (int, float))),
        )
    if any("token" in table for table in tables.values()) and os.name == "posix" and mode & stat.S_IROTH:
        raise ConfigInvalid(
            f"{path}: holds tokens in plain text and everybody may read it", hint="chmod o-r, or use sha256"
        )
    return callers


def _hash_of(path: Path, name: str, table: Any) -> str:
    if not _NAME.fullmatch(name) or not isinstance(table, Mapping) or not set(table) <= _KEYS:
        raise ConfigInvalid(
            f"{path}: [tokens.{name[:64]}] is wrong; names are of A-Z, a-z, 0-9, '_', '.' and '-', "
            f"keys are {', '.join(sorted(_KEYS))}"
        )
    token, known = table.get("token"), table.get("sha256")
    if isinstance(known, str) and token is None and _HASH.fullmatch(known.lower()):
        return known.lower()
    if isinstance(token, str) and known is None and len(token) >= MIN_TOKEN_LENGTH:
        return hashlib.sha256(token.encode()).hexdigest()
    raise ConfigInvalid(
        f"{path}: [tokens.{name}] needs token, of {MIN_TOKEN_LENGTH} characters or more, or sha256, 64 hex digits",
        hint='python -c "import secrets; print(secrets.token_urlsafe(32))" makes a token',
    )


def _limit(path: Path, name: str, table: Mapping[str, Any], key: str, types: Any) -> float:
    value = table.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, types) or not 0 <= value <= 1e6 or (key in table and not value):
        raise ConfigInvalid(f"{path}: [tokens.{name}] {key}: {value!r:.40} is not allowed; use a number above 0")
    return float(value)
