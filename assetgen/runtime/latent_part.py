"""Take what follows from the latent alone out of an OpenVINO graph, to compute it exactly; imports nothing.

A rounded style shifts the colour of a whole picture, where rounded pixels scatter around the right one. Measured on the
starter package in bf16: least PSNR of base colour 35 dB with a rounded style, 51 dB with an exact one, at equal speed.
"""

from __future__ import annotations

from collections.abc import Set
from types import ModuleType
from typing import Any


def cut_latent_part(openvino: ModuleType, model: Any, spatial: Set[str]) -> tuple[Any, Any] | None:
    """Cut a graph in two that one after the other compute what it does.

    Args:
        model: an ``openvino.Model``; it is left as it is.
        spatial: names of the inputs that are no part of the latent.

    Returns:
        The latent part, and the picture: it takes the outputs of the former as inputs ``cut_0``, ``cut_1`` ... in their
        order, beside those of the whole's inputs that it needs. ``None`` where there is nothing to cut.
    """
    model = model.clone()
    latent = _latent_nodes(model, spatial)
    outputs: dict[tuple[str, int], Any] = {}
    inputs: dict[tuple[str, int], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_name() in latent or node.get_type_name() == "Result":
            continue
        for port in node.inputs():
            source = port.get_source_output()
            key = source.get_node().get_name(), source.get_index()
            # Whole numbers are shapes, which the picture must know before it runs.
            if latent.get(key[0]) is not True or source.get_element_type() != openvino.Type.f32:
                continue
            if key not in inputs:
                outputs[key] = source
                inputs[key] = openvino.op.Parameter(openvino.Type.f32, source.get_partial_shape())
                inputs[key].output(0).get_tensor().set_names({f"cut_{len(inputs) - 1}"})
            port.replace_source_output(inputs[key].output(0))
    if not inputs:
        return None
    parameters = model.get_parameters()
    parts = (
        openvino.Model(list(outputs.values()), parameters, "latent"),
        openvino.Model(model.get_results(), [*parameters, *inputs.values()], "picture"),
    )
    return _without_idle_inputs(parts[0]), _without_idle_inputs(parts[1])


def _latent_nodes(model: Any, spatial: Set[str]) -> dict[str, bool]:
    """Names of the nodes that depend on the latent and on nothing spatial, constants apart; False for inputs."""
    latent: dict[str, bool] = {}
    others = set()
    for node in model.get_ordered_ops():
        name = node.get_name()
        sources = {port.get_source_output().get_node().get_name() for port in node.inputs()}
        if node.get_type_name() == "Parameter":
            if node.output(0).any_name in spatial:
                others.add(name)
            else:
                latent[name] = False
        elif sources & others:
            others.add(name)
        elif sources & latent.keys():
            latent[name] = True
    return latent


def _without_idle_inputs(part: Any) -> Any:
    part = part.clone()  # without the nodes of the other part
    for parameter in part.get_parameters():
        if not parameter.output(0).get_target_inputs():
            part.remove_parameter(parameter)
    return part
