"""Sessions side by side: a student takes its teacher's inputs, and is held to its own reference."""

import time
import types
from dataclasses import replace

import numpy as np
import pytest

from assetgen import measure
from assetgen.deploy_pictures import NORMALS
from assetgen.errors import ConfigInvalid
from assetgen.manifest import InputSpec
from assetgen.measure import Candidate, beside, compare, reference, reference_beside, take_times
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.trial import trial_inputs
from tests.helpers.style_package import style_manifest, write_style_package
from tests.helpers.tiny_package import tiny_feeds, tiny_manifest, write_tiny_package


@pytest.fixture
def package(tmp_path):
    write_tiny_package(tmp_path / "tiny")
    return verify_package(tmp_path / "tiny")


@pytest.fixture
def candidate(package):
    return Candidate("cpu", package, "cpu", open_session(package, "cpu", 1))


class Shifted:
    """Another network: ONNX Runtime's answers and a little."""

    splits, device, reason = False, "cpu", ""

    def __init__(self, package, shift, fails_at_px=0):
        self.exact, self.shift, self.fails_at_px = open_session(package, "cpu", 1), np.float32(shift), fails_at_px
        self.backend = "shifted/cpu/fp32/x"

    def run(self, inputs, *, half=False, owner=None):
        made = {name: values + self.shift for name, values in self.exact.run(inputs).items()}
        if made["base_color"].shape[2] == self.fails_at_px:
            raise MemoryError("too large")
        return made


def test_rolling_is_by_cells_of_the_coarsest_input():
    feeds = tiny_feeds()
    found = measure.rolled(tiny_manifest(), feeds, (1, 2))
    assert np.array_equal(found["grid"], np.roll(feeds["grid"], (1, 2), (2, 3)))
    assert np.array_equal(found["noise_0"], np.roll(feeds["noise_0"], (2, 4), (2, 3)))
    assert found["z"] is feeds["z"]


def test_batches_hold_different_pictures():
    found = measure.batch_of(tiny_manifest(), 64, 3)
    assert {name: values.shape for name, values in found.items()} == {
        name: values.shape for name, values in tiny_feeds(batch=3).items()
    }
    assert not np.array_equal(found["z"][0], found["z"][1])


def test_the_picture_shown_is_that_with_most_contrast(candidate):
    found = reference(candidate, 64, 3)
    contrast = [float(made["base_color"].std()) for made in found.outputs]
    assert contrast[found.shown] == max(contrast)
    compare([candidate], found)
    shown = candidate.pictures
    assert np.array_equal(shown["base_color"], found.outputs[found.shown]["base_color"][0])
    assert shown[NORMALS].shape == (3, 64, 64)
    assert np.allclose(np.linalg.norm(shown[NORMALS] * 2 - 1, axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(("tiles", "verdict"), [(True, "holds"), (False, "broken")])
def test_what_leaves_tiles_tiles_is_held_to_it(tmp_path, tiles, verdict):
    """A model that repaints pictures wraps as one of materials does; angles are told of neither height nor normals."""
    package = write_style_package(tmp_path, style_manifest())
    exact = open_session(package, "cpu", 1)

    class Bordered:
        splits, device, reason, backend = False, "cpu", "", "bordered/cpu/fp32/x"

        def run(self, inputs, *, half=False, owner=None):
            made = exact.run(inputs)
            made["base_color"][:, :, 0] *= np.float32(tiles)
            return made

    candidate = Candidate("bordered", package, "", Bordered())
    compare([candidate], reference(candidate, 64, 2))
    assert candidate.figures["verdict"] == verdict
    assert [line.startswith("rolled: base_color") for line in candidate.figures["broken"]] == [True] * (not tiles)
    assert candidate.figures["seam"].keys() == {"base_color"}
    assert "normal_degrees" not in candidate.figures["differences"]


def test_memory_that_a_run_gives_back_counts():
    with measure.PeakGrowth() as peak:
        taken = np.ones(1 << 28, np.uint8)
        time.sleep(0.2)
        del taken
    assert 0.8 * 2**28 < peak.size_bytes < 3 * 2**28
    assert measure.PeakGrowth.size_bytes == 0


def test_a_student_is_held_to_itself_and_compared_with_its_teacher(candidate, package):
    student = Candidate("cpu of student", package, "cpu", Shifted(package, 0.1))
    found = reference(candidate, 64, 2)
    compare([candidate], found)
    compare([student], reference_beside(student, found), found)
    assert student.figures["verdict"] == "holds"
    assert student.figures["differences"]["psnr_db"]["base_color"] == measure._LARGEST_DB
    assert student.figures["beside"]["psnr_db"]["base_color"] == pytest.approx(20.0, abs=0.1)
    assert "beside" not in candidate.figures


def test_a_student_may_lack_its_teachers_sliders_and_nothing_else():
    """A manifest alone decides, before anything is run."""
    plain = tiny_manifest()
    slider = InputSpec("warmth", "slider", ("n", 1))
    teacher = replace(plain, inputs=(*plain.inputs, slider))
    feeds = trial_inputs(teacher, 64, 5)
    assert beside(teacher, plain, feeds, 64).keys() == tiny_feeds().keys()
    assert np.array_equal(beside(teacher, plain, feeds, 64)["z"], feeds["z"])
    two = {name: np.repeat(values, 2, axis=0) for name, values in trial_inputs(plain, 64, 5).items()}
    assert np.array_equal(beside(plain, teacher, two, 64)["warmth"], np.zeros((2, 1)))
    for change, told in (
        ({"inputs": plain.inputs[1:]}, "z is not"),
        ({"outputs": plain.outputs[:1]}, "makes base_color"),
        ({"classes": ()}, "their classes differ"),
        ({"kind": "sprite"}, "is a sprite"),
    ):
        with pytest.raises(ConfigInvalid, match=told) as error:
            beside(plain, replace(plain, id="other", **change), feeds, 64)
        assert "student" in error.value.hint


def test_what_cannot_do_a_size_says_so_and_the_rest_is_timed(candidate, package):
    other = Candidate("other", package, "", Shifted(package, 0.0, fails_at_px=64))
    take_times([candidate, other], 64, 2, 0.01, lambda _line: None)
    assert other.figures["latency_ms"]["64 px x 2"] == {"failed": "too large"}
    timed = candidate.figures["latency_ms"]["64 px x 2"]
    assert 0 < timed["least"] <= timed["p50"] <= timed["p95"]
    assert timed["rounds"] >= measure.LEAST_SLOW_ROUNDS


@pytest.mark.parametrize(("free_gb", "fits"), [(5.0, True), (4.5, False)])
def test_what_would_not_fit_into_memory_is_left_out_and_says_so(candidate, monkeypatch, free_gb, fits):
    """It grew by 2 GB at 128 px x 2: twice the pixels take 4 GB more, and 1 GiB is left to others, which is 1.07 GB."""
    free = int(free_gb * 1e9) + (1 << 26)
    monkeypatch.setattr(measure.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=free))
    candidate.grown = (2 * 128**2, int(1.96e9))
    take_times([candidate], 128, 4, 0.01, lambda _line: None)
    found = candidate.figures["latency_ms"]["128 px x 4"]
    assert ("p50" in found) == fits
    if not fits:
        assert found == {"failed": "left out: it would take 3.9 GB more, and 4.6 are free"}
        take_times([candidate], 128, 2, 0.01, lambda _line: None)
        assert "p50" in candidate.figures["latency_ms"]["128 px x 2"], "what it has run before fits"


def test_without_the_reference_there_is_nothing_to_compare_with(candidate, package):
    first = Candidate("cpu", package, "", Shifted(package, 0.0, fails_at_px=64))
    candidate.name = "other"
    take_times([first, candidate], 64, 1, 0.01, lambda _line: None)
    assert candidate.figures["latency_ms"]["64 px x 1"] == {"failed": "not compared, for cpu was not timed"}


def test_a_candidate_that_was_not_opened_does_not_run(package):
    with pytest.raises(RuntimeError, match="cuda was not opened"):
        _ = Candidate("cuda", package).running
