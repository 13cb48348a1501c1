"""The graphs of finishing that are shipped are those that are made."""

import pytest

from assetgen.policy import OPERATORS
from assetgen.runtime.finish import GRAPHS
from export import finishing


def test_the_shipped_graphs_are_made_again_byte_by_byte(tmp_path, capsys):
    assert finishing.main(["-o", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    for shipped in GRAPHS.values():
        path = tmp_path / shipped.name
        assert path.read_bytes() == shipped.read_bytes(), "run python -m export.finishing"
        assert str(path) in told


@pytest.mark.parametrize("relief", [True, False])
def test_they_need_no_operator_that_models_may_not_have(relief):
    assert {node.op_type for node in finishing.finishing_graph(relief=relief).graph.node} <= OPERATORS
