"""Differences between maps: figures worked out by hand, and a tolerance that is kept or broken."""

import math
from dataclasses import replace

import numpy as np
import pytest

from assetgen.fidelity import LEAST_PSNR_DB, Comparison, broken_limits, limits, psnr_db
from assetgen.manifest import PrecisionSpec
from tests.helpers.tiny_package import OUTPUTS, tiny_manifest

INPUTS = {"class_weights": np.float32([[0.0, 1.0]])}  # steel: relief 4 px


def maps(**values):
    return {name: np.full((1, channels, 8, 8), values.get(name, 0.5), np.float32) for name, channels in OUTPUTS}


def compared(reference, given):
    comparison = Comparison(tiny_manifest())
    comparison.add(INPUTS, reference, given)
    return comparison.result()


@pytest.mark.parametrize(
    ("given", "wanted"), [(0.0, math.inf), (0.1, 20.0), (0.01, 40.0), (1.0, 0.0), (math.nan, -math.inf)]
)
def test_psnr_of_known_errors(given, wanted):
    assert psnr_db(np.zeros((1, 3, 2, 2), np.float32), np.full((1, 3, 2, 2), given)) == pytest.approx(wanted)


def test_equal_maps_have_no_difference():
    found = compared(maps(), maps())
    assert set(found.largest.values()) == set(found.mean.values()) == {0.0}
    assert set(found.psnr_db.values()) == {math.inf}
    assert (found.normal_degrees, found.largest_normal_degrees) == (0.0, 0.0)


def test_the_worst_picture_counts_and_the_mean_is_over_all():
    comparison = Comparison(tiny_manifest())
    comparison.add(INPUTS, maps(), maps(base_color=0.6))
    comparison.add(INPUTS, maps(), maps())
    found = comparison.result()
    assert found.largest["base_color"] == pytest.approx(0.1, abs=1e-6)
    assert found.mean["base_color"] == pytest.approx(0.05, abs=1e-6)
    assert found.psnr_db["base_color"] == pytest.approx(20, abs=1e-3)
    assert found.psnr_db["roughness"] == math.inf


def test_within_a_batch_the_worst_picture_counts():
    both = {name: np.concatenate([values, values]) for name, values in maps().items()}
    given = {name: values.copy() for name, values in both.items()}
    given["height"][1] += np.float32(0.1)
    comparison = Comparison(tiny_manifest())
    comparison.add({"class_weights": np.repeat(INPUTS["class_weights"], 2, axis=0)}, both, given)
    assert comparison.result().psnr_db["height"] == pytest.approx(20, abs=1e-3)


def test_normals_turn_by_the_angle_of_the_slope():
    """A ramp of one height over the relief of 4 px and 8 px of length has a slope of 4 / 8, flat ground none."""
    ramp = maps()
    ramp["height"][0, 0] = np.arange(8, dtype=np.float32)[None] / 8
    found = compared(maps(), ramp)
    inner, edge = math.degrees(math.atan(4 / 8)), math.degrees(math.atan(4 * 6 / 16))
    assert found.largest_normal_degrees == pytest.approx(edge, abs=0.01)  # at the seam the ramp falls back
    assert found.normal_degrees == pytest.approx((6 * inner + 2 * edge) / 8, abs=0.01)


def test_a_model_that_says_nothing_has_the_limits_of_all():
    asked = limits(tiny_manifest(), "bf16")
    assert set(asked.least_psnr_db.values()) == {LEAST_PSNR_DB["bf16"]}
    told = PrecisionSpec("", dict.fromkeys(dict(OUTPUTS), 60.0), 0.5)
    assert limits(replace(tiny_manifest(), precisions={"bf16": told}), "bf16") == told


def test_what_breaks_a_limit_is_named_with_both_numbers():
    found = compared(maps(), maps(base_color=0.52))
    (broken,) = broken_limits(tiny_manifest(), "fp16", found)
    assert broken == "base_color has 34.0 dB, at least 45 are asked for"
    assert broken_limits(tiny_manifest(), "fp16", compared(maps(), maps(base_color=0.502))) == []


def test_in_fp32_the_largest_difference_counts():
    assert broken_limits(tiny_manifest(), "fp32", compared(maps(), maps(height=0.50005))) == []
    (broken,) = broken_limits(tiny_manifest(), "fp32", compared(maps(), maps(height=0.501)))
    assert broken.startswith("height differs by 0.001")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_not_finite_breaks_every_limit(precision):
    assert any(
        "roughness" in line
        for line in broken_limits(tiny_manifest(), precision, compared(maps(), maps(roughness=math.nan)))
    )


def test_heights_that_are_not_finite_are_no_normals_and_fail_by_themselves():
    broken = broken_limits(tiny_manifest(), "bf16", compared(maps(), maps(height=math.nan)))
    assert any(line.startswith("height has -inf dB") for line in broken)
