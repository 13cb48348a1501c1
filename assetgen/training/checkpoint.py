"""Checkpoints: tensors in safetensors, everything else in JSON; never a pickle. Needs torch and safetensors."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn, optim

from assetgen import strictjson
from assetgen.errors import CheckpointInvalid, OutputUnwritable
from assetgen.metrics.tensor_files import load_tensors

FORMAT = 1


@dataclass(frozen=True)
class Progress:
    """Where a run stands; with the tensors, all that resuming needs, since batches depend on (seed, step) only.

    Attributes:
        step: steps taken; pictures: reals shown to the discriminator.
        augment: augmentation probability.
        sign_sum, sign_count: the running sum that moves it.
        elapsed_s: training time of all sittings.
        penalty_scale, rate_scale: what the watchdog has made of the recipe's penalties and learning rates.
        rewinds: how often it has gone back to an earlier checkpoint.
    """

    step: int = 0
    pictures: int = 0
    augment: float = 0.0
    sign_sum: float = 0.0
    sign_count: int = 0
    elapsed_s: float = 0.0
    penalty_scale: float = 1.0
    rate_scale: float = 1.0
    rewinds: int = 0


def save(
    folder: Path,
    recipe: Mapping[str, Any],
    progress: Progress,
    facts: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, optim.Adam],
) -> None:
    """Write a checkpoint folder, replacing an older one only when the new one is complete.

    Args:
        facts: classes, data digest and licences: what export needs to know.

    Raises:
        OutputUnwritable, OSError: the disk is full, for example; the older checkpoint stands.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in module.state_dict().items()})
    for name, optimiser in optimisers.items():
        for number, state in optimiser.state_dict()["state"].items():
            tensors.update({f"{name}.{number}.{key}": value.contiguous() for key, value in state.items()})
    try:
        save_file(tensors, partial / "tensors.safetensors")
    except safetensors.SafetensorError as error:  # a full disk, too
        raise OutputUnwritable(f"{partial} cannot be written: {error}", hint="check space and rights") from error
    digest = hashlib.sha256((partial / "tensors.safetensors").read_bytes()).hexdigest()
    state = {
        "format": FORMAT,
        "recipe": dict(recipe),
        "progress": asdict(progress),
        "facts": dict(facts),
        "tensors_sha256": digest,
    }
    (partial / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True), encoding="utf-8")
    if folder.exists():
        # The old one steps aside first, so that one complete checkpoint exists at every moment.
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        partial.replace(folder)
        shutil.rmtree(old)
    else:
        partial.replace(folder)


def keep(folder: Path, copy: Path) -> None:
    """Keep a second copy of a checkpoint folder, replacing an older one."""
    partial = copy.with_name(copy.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    shutil.rmtree(copy, ignore_errors=True)
    partial.replace(copy)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    recipe: dict[str, Any]
    progress: Progress
    facts: dict[str, Any]
    tensors: dict[str, Tensor]


def load(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder.

    Raises:
        CheckpointInvalid: missing, altered, of another format, or with values that are not finite.
    """
    if not folder.exists() and folder.with_name(folder.name + ".old").exists():
        folder = folder.with_name(folder.name + ".old")
    try:
        state = strictjson.loads((folder / "state.json").read_bytes())
        if state["format"] != FORMAT:
            raise CheckpointInvalid(f"{folder} has format {state['format']}; {FORMAT} is supported")
        path = folder / "tensors.safetensors"
        if hashlib.sha256(path.read_bytes()).hexdigest() != state["tensors_sha256"]:
            raise CheckpointInvalid(f"{path} was altered", hint="restore it from a backup, or resume another run")
        return Checkpoint(
            recipe=dict(state["recipe"]),
            progress=strictjson.build(Progress, state["progress"], "progress"),
            facts=dict(state["facts"]),
            tensors=load_tensors(path),
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointInvalid(
            f"{folder} is not a checkpoint: {error}", hint="give the run folder that assetgen train made"
        ) from error


def module_tensors(checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
    """The tensors saved as ``name``."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in checkpoint.tensors.items() if key.startswith(prefix)}


def restore_module(module: nn.Module, checkpoint: Checkpoint, name: str) -> None:
    """Copy the tensors saved as ``name`` into ``module``."""
    try:
        module.load_state_dict(module_tensors(checkpoint, name))
    except RuntimeError as error:
        raise CheckpointInvalid(f"tensors of {name} do not fit the recipe: {error}") from error


def restore_optimiser(optimiser: optim.Adam, checkpoint: Checkpoint, name: str) -> None:
    """Copy the Adam state saved as ``name`` into ``optimiser``.

    Averages lie in memory as their weights do: fused Adam goes through both end to end, whatever their strides say.

    Raises:
        CheckpointInvalid: what was saved is of other weights.
    """
    prefix = f"{name}."
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in checkpoint.tensors.items():
        if key.startswith(prefix):
            number, _, field = key.removeprefix(prefix).partition(".")
            if not number.isdecimal() or int(number) >= len(weights):
                raise CheckpointInvalid(
                    f"tensor {key!r:.80} does not fit the recipe: {name} has {len(weights)} weights"
                )
            weight = weights[int(number)]
            laid = torch.empty_like(weight, device="cpu").copy_(value) if value.shape == weight.shape else value
            state.setdefault(int(number), {})[field] = laid
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
