"""Maps made into pixels by a graph: the same as by the processor, rolled as they are, and only where that was seen."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.errors import PackageInvalid
from assetgen.postprocess import finishing
from assetgen.postprocess.finishing import SOURCES, STRANGE, Terms
from assetgen.runtime import finish, ort
from assetgen.runtime.finish import Finisher, can_finish, finished, open_finisher
from assetgen.types import MapKind
from tests.helpers.finishing_device import MEMORY, load

ALL = frozenset(MapKind)
NAMES = {kind: kind.value for kind in SOURCES}
EDGES = st.integers(finish.LEAST_PX, 70)
FLAT = ALL - finish.RELIEF
TERMS = st.builds(
    Terms, relief_px=st.floats(0, 60, width=32), y_down=st.booleans(), roughness_shift=st.floats(-1, 1, width=32),
    metal=st.booleans(), wanted=st.sampled_from([ALL, FLAT]),
)  # fmt: skip


@pytest.fixture(scope="module")
def finisher(package):
    return Finisher(lambda data: load(data, package), ort.import_onnxruntime(), MEMORY, NAMES)


def maps_of(seed, height, width):
    rng = np.random.default_rng(seed)
    return {
        kind.value: rng.random((1, channels, height, width), dtype=np.float32) for kind, channels in SOURCES.items()
    }


def given_by(finisher, maps, terms):
    module = ort.import_onnxruntime()
    values = {name: module.OrtValue.ortvalue_from_numpy(array, *MEMORY) for name, array in maps.items()}
    return finisher.run(values, terms)


@given(st.integers(0, 99), EDGES, EDGES, TERMS)
@settings(deadline=None, max_examples=60)
def test_pixels_are_those_of_the_processor(finisher, seed, height, width, terms):
    maps = maps_of(seed, height, width)
    made = finishing.material(given_by(finisher, maps, terms)).maps
    expected = finished({kind: maps[kind.value][0].transpose(1, 2, 0) for kind in SOURCES}, terms)
    assert made.keys() == expected.keys() == terms.wanted
    for kind, pixels in expected.items():
        assert (made[kind].shape, made[kind].dtype) == (pixels.shape, pixels.dtype)
        steps = np.abs(made[kind].astype(int) - pixels.astype(int))
        assert steps.max() <= 1, kind
        assert np.mean(steps > 0) < 0.01, kind


@given(st.integers(0, 99), st.tuples(st.integers(-40, 40), st.integers(-40, 40)))
@settings(deadline=None, max_examples=20)
def test_rolled_maps_make_rolled_pixels(finisher, seed, shift):
    terms = Terms(9.0, y_down=False, roughness_shift=0.1, metal=True, wanted=ALL)
    maps = maps_of(seed, 48, 64)
    rolled = {name: np.roll(array, shift, (2, 3)) for name, array in maps.items()}
    made, moved = (finishing.material(given_by(finisher, x, terms)).maps for x in (maps, rolled))
    for kind, pixels in made.items():
        assert np.array_equal(moved[kind], np.roll(pixels, shift, (0, 1))), kind


@pytest.mark.parametrize("kind", MapKind)
def test_only_what_is_wanted_leaves_the_device(finisher, kind):
    terms = Terms(1.0, y_down=False, roughness_shift=0, metal=True, wanted=frozenset([kind]))
    assert given_by(finisher, maps_of(0, 32, 32), terms).keys() == {STRANGE, kind.value}


def test_what_is_made_of_height_is_computed_only_where_it_is_wanted(package):
    """Else a preview of base colour waits for occlusion (seen on a GPU: 198 a second in place of 265)."""
    watched = Finisher(lambda data: Watched(load(data, package)), ort.import_onnxruntime(), MEMORY, NAMES)
    for wanted, expected in (
        ({MapKind.BASE_COLOR}, ["flat"]),
        ({MapKind.BASE_COLOR, MapKind.HEIGHT}, ["flat"]),
        ({MapKind.NORMAL}, ["relief"]),
        ({MapKind.ROUGHNESS, MapKind.AMBIENT_OCCLUSION}, ["relief"]),
    ):
        Watched.ran.clear()
        terms = Terms(1.0, y_down=False, roughness_shift=0, metal=True, wanted=frozenset(wanted))
        given_by(watched, maps_of(0, 32, 32), terms)
        assert Watched.ran == expected, wanted


class Watched:
    """A session that notes which graph ran."""

    ran: ClassVar[list[str]] = []

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run_with_iobinding(self, binding):
        relief = any(port.name == "normal_pixels" for port in self._session.get_outputs())
        self.ran.append("relief" if relief else "flat")
        self._session.run_with_iobinding(binding)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-3, 1.001])
@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("wanted", [MapKind.NORMAL, MapKind.BASE_COLOR])
def test_what_is_no_map_is_refused_as_by_the_processor(finisher, kind, value, wanted):
    maps = maps_of(0, 32, 48)
    maps[kind.value][0, 0, 5, 7] = value
    terms = Terms(1.0, y_down=False, roughness_shift=0, metal=True, wanted=frozenset([wanted]))
    with pytest.raises(ValueError, match=r"1 values are not in \[0, 1\]"):
        finishing.material(given_by(finisher, maps, terms))


@given(TERMS, st.frozensets(st.sampled_from(MapKind)))
def test_terms_travel_as_one_array(terms, wanted):
    terms = replace(terms, wanted=wanted)
    assert finishing.terms_from(terms.array()) == terms


def test_a_device_that_computes_the_same_finishes(package):
    found, unfinished = open_finisher(
        lambda data: load(data, package), ort.import_onnxruntime(), MEMORY, package.manifest
    )
    assert found is not None
    assert unfinished == ""


def test_one_that_computes_otherwise_does_not_and_says_so(package, monkeypatch):
    monkeypatch.setattr(
        finish, "finished", lambda maps, terms: finished(maps, replace(terms, relief_px=terms.relief_px * 1.1))
    )
    found, unfinished = open_finisher(
        lambda data: load(data, package), ort.import_onnxruntime(), MEMORY, package.manifest
    )
    assert found is None
    assert "; maps are finished on the processor: normal: " in unfinished


def test_one_that_cannot_load_it_does_not_and_says_so(package):
    def refuse(_):
        raise PackageInvalid("no kernel for Reciprocal", hint="")

    found = open_finisher(refuse, ort.import_onnxruntime(), MEMORY, package.manifest)
    assert found == (None, "; maps are finished on the processor: no kernel for Reciprocal")


def test_models_that_make_other_maps_are_not_finished_there(package):
    manifest = package.manifest
    assert can_finish(manifest)
    fewer = replace(manifest, outputs=manifest.outputs[:-1])
    small = replace(manifest, size=replace(manifest.size, min_px=8))
    for other in (fewer, small, replace(manifest, kind="style")):
        assert not can_finish(other)
        assert open_finisher(lambda _: None, ort.import_onnxruntime(), MEMORY, other) == (None, "")
