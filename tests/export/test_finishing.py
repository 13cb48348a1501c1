"""The graph of finishing that is shipped is the one that is made."""

from assetgen.policy import OPERATORS
from assetgen.runtime.finish import GRAPH
from export import finishing


def test_the_shipped_graph_is_made_again_byte_by_byte(tmp_path, capsys):
    path = tmp_path / "finish.onnx"
    assert finishing.main(["-o", str(path)]) == 0
    assert path.read_bytes() == GRAPH.read_bytes(), "run python -m export.finishing"
    assert str(path) in capsys.readouterr().err


def test_it_needs_no_operator_that_models_may_not_have():
    assert {node.op_type for node in finishing.finishing_graph().graph.node} <= OPERATORS
