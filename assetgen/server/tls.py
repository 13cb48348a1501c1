"""Certificates for the server's port, read again when they change; imports errors and grpc."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from assetgen.errors import ConfigInvalid

log = logging.getLogger(__name__)


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
    """Credentials that follow their files: a new handshake meets the newest that are right.

    Raises:
        ConfigInvalid: a file is absent or no PEM, or the key is not that of the certificate.
    """
    latest = _load(files)
    state, lock = _state(files), threading.Lock()

    def fetch() -> Any:
        """The configuration if it has changed; called at each handshake."""
        nonlocal state
        with lock:
            if (found := _state(files)) == state:
                return None
            state = found
            try:
                renewed = _load(files)
            except ConfigInvalid as error:
                log.error("%s; the certificate read before stays in use", error.message)
                return None
        log.info("%s: a new certificate is in use", files.cert)
        return renewed

    return grpc.dynamic_ssl_server_credentials(latest, fetch, require_client_authentication=files.client_ca is not None)


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


def _load(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Let OpenSSL judge first: gRPC says of a wrong file only that no port could be opened."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
        pair = [(files.key.read_bytes(), files.cert.read_bytes())]
        authorities = files.client_ca.read_bytes() if files.client_ca else None
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(str(path) for path in (files.cert, files.key, files.client_ca) if path)
        raise ConfigInvalid(
            f"TLS: {names}: {error.strerror or error}",
            hint="give PEM files that fit each other, the key without passphrase",
        ) from error
    return grpc.ssl_server_certificate_configuration(pair, authorities)
