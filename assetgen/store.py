"""The models that can be asked for: id to verified package, a dict built once; imports package, foreign and signature.

A client's text is only ever a key of that dict, never part of a path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from assetgen.errors import ModelNotFound, PackageInvalid
from assetgen.foreign import check_graphs
from assetgen.manifest import MANIFEST_NAME
from assetgen.package import VerifiedPackage, verify_package
from assetgen.signature import Signers


class Store(Mapping[str, VerifiedPackage]):
    """Verified packages by model id, in the order of their ids; never changes once built."""

    def __init__(self, packages: Mapping[str, VerifiedPackage]) -> None:
        self._packages = dict(sorted(packages.items()))

    def __getitem__(self, model_id: str) -> VerifiedPackage:
        """The package of a model; raises ModelNotFound, which names the models there are."""
        try:
            return self._packages[model_id]
        except KeyError:
            raise ModelNotFound(
                f"model {model_id!r:.80} is not served; served are {', '.join(self._packages) or 'none'}",
                hint="List the models with `assetgen models`.",
                field="model_id",
                metadata={"model_id": model_id[:80]},
            ) from None

    def get(self, model_id: str, default: Any = None) -> Any:
        """The package of a model, or ``default``."""
        return self._packages.get(model_id, default)

    def __contains__(self, model_id: object) -> bool:
        return model_id in self._packages

    def __iter__(self) -> Iterator[str]:
        return iter(self._packages)

    def __len__(self) -> int:
        return len(self._packages)


def bundled_models_folder() -> Path:
    """The folder of the packages that come with the product, one sub-folder each."""
    return Path(__file__).resolve().parent / "packages"


def is_bundled(folder: Path) -> bool:
    """Whether ``folder`` is a package that comes with the product."""
    return folder.resolve().parent == bundled_models_folder()


def open_store(folders: Sequence[Path], signers: Signers | None = None) -> Store:
    """Verify every package in ``folders`` and make them available by id.

    Args:
        folders: each a package, or a folder whose sub-folders are packages; files beside those, and sub-folders whose
            names begin with a dot or two underscores, are left alone.
        signers: whose packages may be used beside those that come with the product; ``None``: anybody's.

    Raises:
        PackageInvalid: for a folder that is absent, a package that is invalid or not signed, or two with one id.
        PolicyViolated: for a package, not one of ours, whose graph holds what none may hold.
    """
    packages: dict[str, VerifiedPackage] = {}
    strange: list[VerifiedPackage] = []
    for folder in folders:
        for package_folder in package_folders(folder):
            # Installers such as uv link our own files from their cache; elsewhere a second name is a way in.
            bundled = is_bundled(package_folder)
            package = verify_package(package_folder, allow_hard_links=bundled)
            if not bundled:  # ours were checked when they were exported
                if signers:
                    signers.check(package)
                strange.append(package)
            other = packages.setdefault(package.manifest.id, package)
            if other.folder.resolve() != package.folder.resolve():
                raise PackageInvalid(
                    f"two packages have the id {package.manifest.id!r}: {other.folder} and {package.folder}",
                    hint="Remove one of them, or leave its folder out.",
                )
    check_graphs(strange)
    return Store(packages)


def package_folders(folder: Path) -> list[Path]:
    """What ``folder`` stands for: itself, or the packages in it; raises PackageInvalid if it cannot be read."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise PackageInvalid(
            f"{folder}: not a readable folder of models: {error.strerror or error}",
            hint="Give a package folder, or a folder whose sub-folders are packages.",
        ) from error
    if any(entry.name == MANIFEST_NAME for entry in entries):
        return [folder]
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith((".", "__"))]
