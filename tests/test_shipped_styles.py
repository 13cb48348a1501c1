"""What the product promises of the models that take a picture, checked on those that it ships."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assetgen.kinds import style
from assetgen.kinds.windows import run_in_windows
from assetgen.package import VerifiedPackage, verify_package
from assetgen.runtime import Session, open_session
from assetgen.store import bundled_models_folder
from assetgen.types import Encoding, MapKind, OutputSpec, Request
from tests.helpers.style_package import photo, saved

FOLDERS = sorted(
    path.parent
    for path in bundled_models_folder().glob("*/manifest.json")
    if json.loads(path.read_text("utf-8"))["kind"] == "style"
)
ROLL_LIMIT = 1e-4


@pytest.fixture(scope="module", params=FOLDERS, ids=[path.name for path in FOLDERS])
def package(request: pytest.FixtureRequest) -> VerifiedPackage:
    folder: Path = request.param
    return verify_package(folder, allow_hard_links=True)


@pytest.fixture(scope="module")
def session(package: VerifiedPackage) -> Session:
    return open_session(package, "cpu", threads=1)


def inputs(package: VerifiedPackage, pixels: np.ndarray, **parameters: object) -> dict[str, np.ndarray]:
    given = {"image": saved(pixels), "tiles": "yes", **parameters}
    plan = style.resolve(package.manifest, Request(package.manifest.id, 1, parameters=given))
    return style.prepare(package.manifest, plan, 0)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (256, 256)])
def test_a_tile_stays_a_tile(package: VerifiedPackage, session: Session, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    before, after = (session.run(inputs(package, x)) for x in (pixels, np.roll(pixels, (8, 20), axis=(0, 1))))
    for name, values in before.items():
        assert np.abs(np.roll(values, (8, 20), axis=(2, 3)) - after[name]).max() <= ROLL_LIMIT


def test_windows_give_what_the_whole_gives(package: VerifiedPackage, session: Session) -> None:
    size = package.manifest.size
    if not size.window_px:
        pytest.skip("it looks at the whole picture and has no windows")
    given = inputs(package, photo(160, 4 * size.halo_px + 80))
    windowed = replace(package.manifest, size=replace(size, window_px=4 * size.halo_px))
    whole, parts = session.run(given), run_in_windows(session.run, windowed, given)
    for name, values in whole.items():
        assert np.abs(values - parts[name]).max() <= 1e-5


def test_strength_0_gives_the_picture_back_and_1_does_not(package: VerifiedPackage, session: Session) -> None:
    names = {spec.name for spec in package.manifest.parameters}
    if "strength" not in names:
        pytest.skip("it makes maps and leaves colours alone")
    made = []
    for strength in (0.0, 1.0):
        given = {"image": saved(photo()), "tiles": "yes", "strength": strength, "palette": 0, "pixel_size": 1}
        request = Request(package.manifest.id, 1, parameters=given, output=OutputSpec(encoding=Encoding.RAW))
        plan = style.resolve(package.manifest, request)
        outputs = session.run(style.prepare(package.manifest, plan, 0))
        (file,) = style.finish(package.manifest, plan, 0, outputs)
        made.append(np.frombuffer(file.data, np.uint8).reshape(64, 64, 3))
    assert np.array_equal(made[0], photo())
    assert np.abs(made[1].astype(int) - photo()).mean() > 2


def test_every_look_is_another(package: VerifiedPackage, session: Session) -> None:
    looks = [known.name for known in package.manifest.classes]
    if len(looks) < 2:
        pytest.skip("it has one look")
    pictures = [next(iter(session.run(inputs(package, photo(), **{"class": look})).values())) for look in looks]
    differences = [np.abs(a - b).mean() for n, a in enumerate(pictures) for b in pictures[:n]]
    assert min(differences) > 1e-3


def test_a_photo_becomes_every_map_or_base_colour_alone(package: VerifiedPackage) -> None:
    assert style.made_maps(package.manifest) in ((MapKind.BASE_COLOR,), tuple(MapKind))
