"""Signatures of packages: making one, and refusing what no known key has signed; imports package, manifest and errors.

A signature is the file ``model.sig`` in the package: the OpenSSF's Model Signing format 1.0, with a key of an elliptic
curve and no network. It names every other file with its SHA-256. The package's digest is the same with and without.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assetgen.errors import ConfigInvalid, OutputUnwritable, PackageInvalid, RuntimeMissing
from assetgen.manifest import MANIFEST_NAME
from assetgen.package import SIGNATURE_NAME, VerifiedPackage, verify_package, write_atomically

if TYPE_CHECKING:
    from model_signing.hashing import Config
    from model_signing.verifying import Config as Verifier

_CURVES = "P-256, P-384 or P-521"


class Signers:
    """The public keys that count, read once.

    Args:
        paths: PEM files, each with a public key of the curve P-256, P-384 or P-521; at least one.

    Raises:
        ConfigInvalid: a file cannot be read or holds no such key.
        RuntimeMissing: the packages of the extra `signing` are not installed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._verifiers = [_verifier(path) for path in paths]

    def check(self, package: VerifiedPackage) -> None:
        """Raise PackageInvalid unless one of the keys has signed just the files that were verified."""
        signature = package.folder / SIGNATURE_NAME
        if not signature.exists():
            raise PackageInvalid(
                f"{package.folder}: not signed, {SIGNATURE_NAME} is missing; only signed packages are to be used",
                hint="Sign it, if it is yours: `assetgen sign FOLDER --key KEY`; else ask its maker.",
            )
        verified = _verified(package)  # not the folder as it may be now, but what was read from it counts
        reasons: dict[str, None] = {}
        for verifier in self._verifiers:
            try:
                verifier.set_hashing_config(verified).verify(package.folder, signature)
            except Exception as error:  # noqa: BLE001 -- whatever it stumbles over in strange bytes: it is not signed
                reasons[_why(error)] = None
            else:
                return
        raise PackageInvalid(
            f"{signature}: not by a key that counts, for these files: {'; '.join(reasons):.200}",
            hint="The package was altered after it was signed, or somebody else signed it; ask its maker.",
        )


def sign_package(folder: Path, key: Path, password: str = "") -> None:
    """Verify a package and sign it; a former signature is replaced.

    Args:
        folder: the package.
        key: PEM file with a private key of the curve P-256, P-384 or P-521.
        password: of the key; empty for none.

    Raises:
        PackageInvalid: the package is damaged.
        ConfigInvalid: the key cannot be read.
        OutputUnwritable: the signature cannot be written; the former one is untouched.
        RuntimeMissing: the packages of the extra `signing` are not installed.
    """
    package = verify_package(folder)
    signer = _library("signing").Config().set_hashing_config(_verified(package))
    load = functools.partial(signer.use_elliptic_key_signer, private_key=key, password=password.encode() or None)
    _loaded(load, key, "a private key that can sign, or not with this password")
    try:
        with tempfile.TemporaryDirectory() as place:
            written = Path(place) / SIGNATURE_NAME
            signer.sign(package.folder, written)
            write_atomically(package.folder / SIGNATURE_NAME, written.read_bytes())
    except OSError as error:
        raise OutputUnwritable(
            f"{package.folder / SIGNATURE_NAME}: cannot be written: {error.strerror or error}",
            hint="Check free space and permissions; a former signature is untouched.",
        ) from error


def make_keys(private: Path, password: str = "") -> Path:
    """Make a pair of keys of the curve P-256; nothing is overwritten.

    Args:
        private: where the private key goes, for its owner only to read.
        password: encrypts the private key; empty for none.

    Returns:
        Where the public key lies: the same name with ``.pub`` after it.

    Raises:
        OutputUnwritable: a file is there or cannot be written.
        RuntimeMissing: the packages of the extra `signing` are not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise _missing("cryptography") from error
    key = ec.generate_private_key(ec.SECP256R1())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    known = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = private.with_name(private.name + ".pub")
    for path in (private, public):
        if path.exists():
            raise OutputUnwritable(f"{path}: is there already", hint="choose another name; no key is overwritten")
    try:
        private.touch(0o600, exist_ok=False)
        private.write_bytes(key.private_bytes(pem, form, locked))
        public.write_bytes(known)
    except OSError as error:
        raise OutputUnwritable(
            f"{private}: the keys cannot be written: {error.strerror or error}", hint="choose another place"
        ) from error
    return public


def _verifier(path: Path) -> Verifier:
    load = functools.partial(_library("verifying").Config().use_elliptic_key_verifier, public_key=path)
    verifier: Verifier = _loaded(load, path, "a public key that can be used")
    return verifier


def _loaded(load: Callable[[], Any], path: Path, wanted: str) -> Any:
    """What ``load`` makes of a key; raises ConfigInvalid, which names its file."""
    try:
        return load()
    except OSError as error:
        raise ConfigInvalid(f"{path}: the key cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigInvalid(
            f"{path}: not {wanted}: {_why(error)}",
            hint=f"a PEM file with a key of the curve {_CURVES} is wanted; `assetgen sign --new-key FILE` makes a pair",
        ) from error


def _verified(package: VerifiedPackage) -> Config:
    """Stands where the library would read the folder again: gives the digests of what was verified."""
    from model_signing._hashing.hashing import Digest  # what new_item takes; no public module names it
    from model_signing.hashing import Config
    from model_signing.manifest import Manifest, SerializationType

    kind = SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE_NAME]}
    )
    digests = {entry.path: entry.sha256 for entry in package.manifest.files} | {MANIFEST_NAME: package.digest}
    items = [kind.new_item(name, Digest("sha256", bytes.fromhex(digest))) for name, digest in sorted(digests.items())]

    class Verified(Config):
        def hash(self, *_: Any, **__: Any) -> Manifest:
            return Manifest(package.folder.name, items, kind)

    return Verified()  # type: ignore[no-untyped-call]  # of the library


def _why(error: Exception) -> str:
    """The library's reason without its details, which are dumps of objects."""
    return (
        "of another kind" if isinstance(error, AttributeError) else str(error).partition(":")[0] or type(error).__name__
    )


def _library(module: str) -> Any:
    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        raise _missing(error.name or "model_signing") from error


def _missing(name: str) -> RuntimeMissing:
    return RuntimeMissing(
        f"{name.partition('.')[0]} is not installed; signatures of packages need it",
        hint="run `uv sync --extra signing`, or `pip install 'assetgen[signing]'`",
    )
