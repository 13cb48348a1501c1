"""What a wheel of assetgen holds, and what each extra asks for."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import assetgen

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
EXTRAS = {
    extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["project"]["optional-dependencies"].items()
}
# Below these, files from outside can do harm: faults that are known and mended.
FLOORS = {"pillow": "12.3", "onnx": "1.21", "torch": "2.10"}
SERVING_EXTRAS = ("server", "cpu", "cuda", "openvino", "otel", "tensorrt", "mesh")
ALLOWED_LICENCES = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU",
    "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
}  # fmt: skip
# What packages without a licence expression say instead: texts of `License`, ends of classifiers.
OTHER_NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# NVIDIA's own terms: whoever asks for the extras cuda or tensorrt takes them, and nobody else.
NVIDIA_OWN = re.compile(r"(nvidia|tensorrt)(-.+)?")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names in a wheel that was built without a network."""
    output_dir = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(output_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = output_dir.glob("*.whl")
    assert path.name == f"assetgen-{assetgen.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_assetgen_only(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert tops == {"assetgen", f"assetgen-{assetgen.__version__}.dist-info"}


def test_a_wheel_holds_every_file_of_the_package(wheel):
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "assetgen").rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name and not name.endswith(".DS_Store")}
    assert "assetgen/py.typed" in files
    assert files == {name for name in wheel if name.startswith("assetgen/")}


def test_a_wheel_holds_the_licence(wheel):
    assert {name.rpartition("/")[2] for name in wheel if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_extras_install_only_what_they_need():
    extras = PROJECT["project"]["optional-dependencies"]
    base = " ".join(PROJECT["project"]["dependencies"])
    assert not any(name in base for name in ("torch", "onnx", "scipy", "opencv"))
    assert any(line.startswith("onnxruntime>=") for line in extras["cpu"])
    assert any(line.startswith("onnxruntime-gpu[") for line in extras["cuda"])
    assert not any("torch" in line for extra in ("server", "cpu", "cuda") for line in extras[extra])
    assert {"extra": "cpu"} in PROJECT["tool"]["uv"]["conflicts"][0]
    assert {"extra": "cuda"} in PROJECT["tool"]["uv"]["conflicts"][0]


def test_floors_against_known_faults_stand_and_are_kept():
    asked = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    asked += [each for requirements in EXTRAS.values() for each in requirements]
    for name, floor in FLOORS.items():
        lowest = [_lowest(each) for each in asked if each.name == name]
        assert lowest, f"{name} is asked for nowhere"
        assert min(lowest) >= Version(floor), f"{name} may be older than {floor}"
        locked = [Version(package["version"]) for package in LOCK["package"] if package["name"] == name]
        assert locked, f"{name} is not locked"
        assert min(locked) >= Version(floor), f"uv.lock has {name} {min(locked)}, older than {floor}"


def test_the_lock_is_of_the_dependencies_that_the_project_asks_for():
    """What `uv lock --check` would say first, without a network."""
    (own,) = (package for package in LOCK["package"] if package["name"] == PROJECT["project"]["name"])
    assert {_of_lock(each) for each in own["metadata"]["requires-dist"]} == _asked_for(), "run `uv lock`"
    groups = own["metadata"]["requires-dev"]
    wanted = PROJECT["dependency-groups"]
    assert {name: {_of_lock(each) for each in lines} for name, lines in groups.items()} == {
        name: {_fact(Requirement(line)) for line in lines} for name, lines in wanted.items()
    }, "run `uv lock`"
    assert set(own["metadata"]["provides-extras"]) == set(EXTRAS), "run `uv lock`"
    assert SpecifierSet(LOCK["requires-python"]) == SpecifierSet(PROJECT["project"]["requires-python"])


def test_all_that_serves_is_under_a_licence_that_we_allow():
    met = _installed_of(SERVING_EXTRAS)
    assert {"grpcio", "numpy", "onnx", "pillow", "protobuf", "psutil"} <= met.keys()
    wrong = []
    for name, distribution in sorted(met.items()):
        names = _licences(distribution)
        if NVIDIA_OWN.fullmatch(name):
            continue
        if not names or not names <= ALLOWED_LICENCES:
            said = ", ".join(sorted(names - ALLOWED_LICENCES)) or "no licence at all"
            wrong.append(f"{name} {distribution.version}: {said}")
    assert not wrong, f"not in ALLOWED_LICENCES; read these licences, then allow them here or drop the package: {wrong}"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("License-Expression: MIT AND (0BSD OR GPL-3.0-only)", {"MIT", "0BSD", "GPL-3.0-only"}),
        ("License: 3-Clause BSD License", {"BSD-3-Clause"}),
        ("Classifier: License :: OSI Approved :: MIT License", {"MIT"}),
        ("License: Copyright (c) and much more\nClassifier: License :: OSI Approved :: BSD License", {"BSD-3-Clause"}),
        ("License: Proprietary", {"Proprietary"}),
        ("Name: x", set()),
    ],
)
def test_licences_are_read_wherever_they_stand(tmp_path, lines, expected):
    folder = tmp_path / "x-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{lines}\n", encoding="utf-8")
    assert _licences(importlib.metadata.Distribution.at(folder)) == expected


def _lowest(requirement):
    (floor,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return Version(floor)


def _fact(requirement, extra=""):
    """What a requirement asks for, in a form that can be compared with the lock's."""
    marker = str(requirement.marker or "").replace('python_version == "3.11"', 'python_full_version == "3.11.*"')
    name = canonicalize_name(requirement.name)
    return name, frozenset(requirement.extras), frozenset(map(str, requirement.specifier)), marker, extra


def _asked_for():
    """Extras that name others of ours stand for all that those ask for, as in the lock."""

    def expanded(extra):
        for each in EXTRAS[extra]:
            if each.name == PROJECT["project"]["name"]:
                for other in each.extras:
                    yield from expanded(other)
            else:
                yield each

    base = {_fact(Requirement(line)) for line in PROJECT["project"]["dependencies"]}
    return base | {_fact(each, extra) for extra in EXTRAS for each in expanded(extra)}


def _of_lock(entry):
    marker, extra = entry.get("marker", ""), ""
    if found := re.fullmatch(r"(?:(.*) and )?extra == '([^']*)'", marker):
        marker, extra = found.group(1) or "", found.group(2)
    requirement = Requirement(f"{entry['name']}{entry.get('specifier', '')}")
    requirement.extras = set(entry.get("extras", []))
    requirement.marker = Marker(marker) if marker else None
    return _fact(requirement, extra)


def _installed_of(extras):
    """Distributions by name that these extras bring, as far as they are installed here."""
    left = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    left += [each for extra in extras for each in EXTRAS[extra] if each.name != PROJECT["project"]["name"]]
    seen, found = set(), {}
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        wanted = {(name, extra) for extra in ("", *requirement.extras)} - seen
        if not wanted or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen |= wanted
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for _, extra in wanted):
                needed.marker = None
                left.append(needed)
    return found


def _licences(distribution):
    """Every licence that a distribution names, by its SPDX id where we know it."""
    said = distribution.metadata
    if expression := said.get("License-Expression"):
        return set(re.split(r"\s+(?:AND|OR)\s+|[()\s]+", expression)) - {"", "AND", "OR"}
    classified = {
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier", [])
        if line.startswith("License :: ") and not line.endswith(("OSI Approved", "DFSG approved"))
    }
    text = (said.get("License") or "").strip()
    return {OTHER_NAMES.get(name, name) for name in classified or {text} - {""}}


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {assetgen.__version__}" in text or "## Unreleased" in text
