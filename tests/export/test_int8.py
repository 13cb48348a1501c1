"""Convolutions in int8: which are chosen, and that the judge decides."""

import math

import numpy as np
import pytest
from onnx import helper, numpy_helper

from export.int8 import Candidate, candidates, choose, multiplications, quantize
from export.probe import real_inputs
from tests.helpers.tiny_package import OUTPUTS, tiny_inputs, tiny_manifest, tiny_model

LEAST = {name: 38.0 for name, _ in OUTPUTS}


def silent(_line):
    pass


def test_the_least_damage_for_a_multiplication_comes_first():
    tried = [
        Candidate("dear", 100, {"a": 0.4, "b": 0.0}),
        Candidate("cheap", 100, {"a": 0.1, "b": 0.1}),
        Candidate("small", 1, {"a": 0.05, "b": 0.0}),
    ]
    assert choose(tried, {"a": 1.0, "b": 1.0}) == ["cheap", "dear", "small"]


def test_errors_add_up_to_what_is_allowed():
    tried = [Candidate(f"c{i}", 10, {"a": 0.3}) for i in range(5)]
    assert choose(tried, {"a": 1.0}) == ["c0", "c1", "c2"]
    assert choose([Candidate("broken", 10, {"a": math.nan})], {"a": 1.0}) == []


def test_multiplications_are_those_of_the_size():
    model = tiny_model()
    nodes = candidates(model)
    found = list(multiplications(model, tiny_inputs(), nodes, 64).values())
    # 3 x 3 over 10 to 8 channels at 4 x 4 cells, 16 to 8 at 8 x 8, 8 to 8 at 16 x 16; then 1 x 1 heads at 64 x 64 px.
    assert found == [9 * 10 * 8 * 16, 9 * 16 * 8 * 64, 9 * 8 * 8 * 256, *(8 * n * 4096 for n in (3, 1, 1, 1))]


def test_convolutions_of_volumes_are_left_alone():
    """A bias and scales of four dimensions would not fit them."""
    weights = numpy_helper.from_array(np.ones((2, 1, 3, 3, 3), np.float32), "solid")
    node = helper.make_node("Conv", ["x", "solid"], ["y"], pads=[1] * 6)
    graph = helper.make_graph([node], "g", [], [], [weights])
    assert candidates(helper.make_model(graph)) == []


@pytest.fixture(scope="module")
def calibration():
    return real_inputs(tiny_manifest(), 4, edge_px=32)


def test_the_judge_decides_and_is_shown_both(calibration):
    seen = []

    def holds(reference, given):
        seen.append((len(reference), len(given), set(given[0])))
        return len(seen) == 2

    made, chosen = quantize(tiny_model(), tiny_inputs(), calibration, dict.fromkeys(LEAST, 20.0), holds, silent)
    assert seen == [(4, 4, set(LEAST))] * 2
    operators = [node.op_type for node in made.graph.node]
    assert operators.count("DequantizeLinear") >= 2 * len(chosen) > 0


def test_nothing_is_made_of_what_never_holds(calibration):
    assert quantize(tiny_model(), tiny_inputs(), calibration, LEAST, lambda *_: False, silent) is None
    assert (
        quantize(tiny_model(), tiny_inputs(), calibration, dict.fromkeys(LEAST, 150.0), lambda *_: True, silent) is None
    )
