"""A graph as PyTorch writes it, made small without a change to what it computes; onnxscript and onnx_ir only.

PyTorch's own last step does the same and more: it takes a constant within 1e-8 of 0 for 0, and one within 1e-5 of 1 for
1, and drops the sum or product. The 1e-8 under every root of ours went that way, so a latent of zeros gave NaN.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

# Those that say the same in fewer nodes; none compares a number with a tolerance.
_RULES = (
    rules.cast_cast_rule,
    rules.collapse_slice2_rule,
    rules.collapse_slice_rule,
    rules.flatten_to_reshape_rule,
    rules.materialize_reshape_shape_rule,
    rules.max_max_rule,
    rules.max_min_rule,
    rules.min_max_rule,
    rules.min_min_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.slice_split_rule,
    rules.squeeze_reshape_1d_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)
_ROUNDS = 2  # what was folded lets rules match, and what they leave can be folded


def simplify(model: ir.Model) -> None:
    """Fold constants, join nodes and drop what nothing needs, in place."""
    passes.InlinePass()(model)
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model)
        rewriter.RewriteRuleSet(_RULES).apply_to_model(model)
        passes.RemoveUnusedNodesPass()(model)
    for tidy in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        tidy(model)
