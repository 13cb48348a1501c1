"""Packages whose graph was changed and whose hashes are right again: what only a look into the graph can find."""

from __future__ import annotations

import onnx
from onnx import helper

from assetgen.package import VerifiedPackage, verify_package, write_manifest

NOT_A_NUMBER = ("Neg", "Log")  # of what lies between 0 and 1


def append(model: onnx.ModelProto, *op_types: str, domain: str = "") -> None:
    """Lead the first output through more operations, of one input each."""
    last = model.graph.output[0].name
    names = [f"appended_{number}" for number in range(len(op_types))]
    node = next(node for node in model.graph.node if last in node.output)
    node.output[:] = [names[0] if output == last else output for output in node.output]
    for op_type, before, after in zip(op_types, names, [*names[1:], last], strict=True):
        model.graph.node.append(helper.make_node(op_type, [before], [after], name=op_type, domain=domain or None))
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))


def with_operations(package: VerifiedPackage, *op_types: str, domain: str = "") -> VerifiedPackage:
    """The package, written anew in its place with a graph that ends with these operations."""
    path = package.folder / package.manifest.graph
    model = onnx.load(path)
    append(model, *op_types, domain=domain)
    onnx.save(model, path)
    write_manifest(package.folder, package.manifest)
    return verify_package(package.folder)
