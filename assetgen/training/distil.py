"""A smaller student that paints what a trained teacher paints from the same inputs; torch only.

The pairs are free and exact, since all randomness is an input: same latent, layout and noise on both sides. The
adversarial game goes on beside it, so that the student keeps the grain that a plain distance would blur
(Li et al. 2020, GAN Compression).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Checkpoint
from assetgen.training.style_recipe import PAIR_METHODS

SCALES = 3
# Keys of a recipe that must agree, or student and teacher are not fed the same.
SHARED = ("scan_px", "crop_px", "latent", "grid_noise_channels", "layouts", "family", "conditioning", "wrap")


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean difference of pictures ``[n, 3, h, w]`` and of their slopes, at full, half and quarter size."""
    total = student.new_zeros(())
    for _ in range(SCALES):
        total = total + F.l1_loss(student, teacher)
        for axis in (2, 3):
            total = total + F.l1_loss(student.diff(dim=axis), teacher.diff(dim=axis))
        student, teacher = F.avg_pool2d(student, 2), F.avg_pool2d(teacher, 2)
    return total / SCALES


def read_teacher(run: Path, recipe: Mapping[str, Any], classes: tuple[str, ...]) -> Checkpoint:
    """The checkpoint of a run that can teach a student of ``recipe``: of its kind, or one look of a ``stargan``.

    Raises:
        CheckpointInvalid: no checkpoint.
        ConfigInvalid: what both are fed would differ.
    """
    saved = checkpoint.load(run / "checkpoint")
    method = saved.recipe.get("method")
    if method != recipe.get("method"):
        if method not in PAIR_METHODS or recipe.get("method") != "stargan":
            raise ConfigInvalid(f"method: the teacher was trained with {method}, not {recipe.get('method')}")
        if saved.recipe["target"] not in classes:
            raise ConfigInvalid(f"the teacher leads to {saved.recipe['target']}; the student to {', '.join(classes)}")
    elif tuple(saved.facts["classes"]) != classes:
        raise ConfigInvalid(f"the teacher knows {', '.join(saved.facts['classes'])}; the student {', '.join(classes)}")
    for key in SHARED:
        if _plain(saved.recipe.get(key)) != _plain(recipe.get(key)):
            raise ConfigInvalid(f"{key}: the teacher was trained with {saved.recipe.get(key)}, not {recipe.get(key)}")
    given, wanted = (len(widths) for widths in (recipe.get("widths", ()), saved.recipe.get("widths", ())))
    if given != wanted:
        raise ConfigInvalid(f"widths: {given} of them; the teacher has {wanted}, and so must the student")
    return saved


def taught(network: nn.Module, saved: Checkpoint, trained: str = "generator") -> nn.Module:
    """``network``, made by the teacher's recipe, as its averaged network, or ``trained`` if that was kept alone."""
    name = "average" if checkpoint.module_tensors(saved, "average") else trained
    checkpoint.restore_module(network, saved, name)
    return network.eval().requires_grad_(False)


def told(saved: Checkpoint) -> dict[str, Any]:
    """What provenance says of a teacher."""
    return {
        "kimg": saved.progress.pictures / 1000,
        "recipe": saved.recipe,
        "data_sha256": saved.facts.get("data_sha256"),
    }


def check_resumed(saved: Checkpoint, teachers: Sequence[Path]) -> None:
    """Raise CheckpointInvalid if a run of a student is to go on without its teachers."""
    if (before := len(saved.facts.get("distilled_from", ()))) != len(teachers):
        raise CheckpointInvalid(
            f"the run is that of a student of {before}, and {len(teachers)} are named",
            hint="name its teachers again, each with --distil",
        )


def _plain(value: Any) -> Any:
    """Tuples as lists and dataclasses as dicts, as they come back from JSON."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return value
