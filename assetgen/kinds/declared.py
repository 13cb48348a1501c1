"""Whether the parameters that a model declares act, within what this version can do; imports manifest and package."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TypeAlias

from assetgen.errors import PackageInvalid
from assetgen.kinds.plan import shown
from assetgen.manifest import ParameterSpec
from assetgen.package import VerifiedPackage

# Name to type (float or int), smallest and largest value.
Numbers: TypeAlias = Mapping[str, tuple[str, float, float]]


def check_declared(
    package: VerifiedPackage,
    what: str,
    choices: Mapping[str, Collection[str]],
    numbers: Numbers,
    pictures: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> None:
    """Raise PackageInvalid for a parameter that would not act, or that allows more than this version does.

    Args:
        what: such as "sprite model", for the message.
        choices: name to values, of those that choose.
        pictures: name to media types, of those that are pictures.
        numbers: of the others; beside them every input of role ``slider`` takes a float of its name.
    """
    sliders = {spec.name for spec in package.manifest.inputs if spec.role == "slider"}
    if taken := sliders & (choices.keys() | numbers.keys()):
        raise PackageInvalid(f"{package.folder}: slider input {min(taken)!r} has the name of another parameter")
    for spec in package.manifest.parameters:
        if spec.type == "choice" and spec.name in choices:
            if unknown := set(spec.values) - set(choices[spec.name]):
                where = f"{package.folder}: parameter {spec.name!r}"
                raise PackageInvalid(f"{where} offers {shown(min(unknown))}, which is none")
        elif spec.type == "image" and spec.name in pictures:
            if unknown := set(spec.media_types) - set(pictures[spec.name]):
                where = f"{package.folder}: parameter {spec.name!r}"
                raise PackageInvalid(f"{where} offers {shown(min(unknown))}, which is not read here")
        elif spec.name in numbers:
            _check_number(spec, numbers, package)
        elif not (spec.type == "float" and spec.name in sliders):
            known = ", ".join([*pictures, *choices, *numbers, *sorted(sliders)])
            raise PackageInvalid(
                f"{package.folder}: parameter {spec.name!r} of type {spec.type!r} is not one that this {what} takes: "
                f"{known}",
                hint="install a newer assetgen, or remove the package",
            )


def _check_number(spec: ParameterSpec, numbers: Numbers, package: VerifiedPackage) -> None:
    kind, low, high = numbers[spec.name]
    if spec.type != kind or not low <= spec.minimum <= spec.maximum <= high:
        raise PackageInvalid(
            f"{package.folder}: parameter {spec.name!r} is a {spec.type} from {spec.minimum:g} to {spec.maximum:g}; "
            f"this version takes a {kind} from {low:g} to {high:g}",
            hint="install a newer assetgen, or remove the package",
        )
