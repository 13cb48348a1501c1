"""Certificates for the server's ports, read again when they change; imports errors and grpc."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from assetgen.errors import ConfigInvalid

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class TlsFiles:
    """PEM files.

    Attributes:
        cert: the server's certificate, and those between it and its authority.
        key: of the certificate, without a passphrase.
        client_ca: authorities of clients; with it, only clients with a certificate of theirs may connect.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``; a name other than localhost counts as reached from elsewhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials for gRPC that follow their files: a new handshake meets the newest that are right.

    Raises:
        ConfigInvalid: a file is absent or no PEM, or the key is not that of the certificate.
    """
    latest = _Latest(files, _configuration)
    first, _ = latest.get()

    def fetch() -> Any:
        """The configuration if it has changed; called at each handshake."""
        found, renewed = latest.get()
        return found if renewed else None

    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=files.client_ca is not None)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The same for HTTP: each handshake goes on with the context of the newest files that are right."""
    latest = _Latest(files, _context)
    first, _ = latest.get()

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context, _ = latest.get()

    first.sni_callback = choose  # called whether or not the client names a server
    return first


class _Latest(Generic[T]):
    """What ``load`` made of the newest files that were right; usable from several threads."""

    def __init__(self, files: TlsFiles, load: Callable[[TlsFiles], T]) -> None:
        self._files, self._load = files, load
        self._state, self._loaded = _state(files), load(files)
        self._lock = threading.Lock()

    def get(self) -> tuple[T, bool]:
        """It, and whether this call renewed it."""
        with self._lock:
            if (found := _state(self._files)) == self._state:
                return self._loaded, False
            self._state = found
            try:
                self._loaded = self._load(self._files)
            except ConfigInvalid as error:
                log.error("%s; the certificate read before stays in use", error.message)
                return self._loaded, False
        log.info("%s: a new certificate is in use", self._files.cert)
        return self._loaded, True


def _state(files: TlsFiles) -> tuple[tuple[int, int], ...]:
    found = []
    for path in (files.cert, files.key, files.client_ca):
        if path is not None:
            try:
                known = path.stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((known.st_mtime_ns, known.st_ino))
    return tuple(found)


def _context(files: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
        # A session that is resumed skips the client's certificate, whose authority may have left since.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        if files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(files.client_ca)
    except (OSError, ssl.SSLError) as error:
        raise _wrong(files, error) from error
    return context


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Let OpenSSL judge first: gRPC says of a wrong file only that no port could be opened."""
    _context(files)
    try:
        pair = [(files.key.read_bytes(), files.cert.read_bytes())]
        authorities = files.client_ca.read_bytes() if files.client_ca else None
    except OSError as error:
        raise _wrong(files, error) from error
    return grpc.ssl_server_certificate_configuration(pair, authorities)


def _wrong(files: TlsFiles, error: OSError) -> ConfigInvalid:
    names = ", ".join(str(path) for path in (files.cert, files.key, files.client_ca) if path)
    return ConfigInvalid(
        f"TLS: {names}: {error.strerror or error}",
        hint="give PEM files that fit each other, the key without passphrase",
    )
