"""Several processes that train one run, a device each, as PyTorch's own launcher starts them; torch only.

``torchrun --nproc-per-node 4 -m -- assetgen train texture ...``: every process draws its share of each batch, gradients
are averaged, the first process writes all files and decides when to stop. Without the launcher nothing here does
anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, distributed

from assetgen.errors import ConfigInvalid
from assetgen.training.recipe import AnyRecipe

RecipeType = TypeVar("RecipeType", bound=AnyRecipe)

SEED_STEP = 0x9E3779B1  # odd, so that seeds of processes are far apart


@contextmanager
def group(device: str) -> Iterator[str]:
    """Join the other processes, if there are any; yields the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    # Optimisers import it, and its functions keep the group there is at that moment as a default. With the group stay
    # its threads, and one that gives a tensor back while the interpreter ends aborts the process: so import it before.
    from torch.distributed.nn import functional  # noqa: F401

    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process; 0 writes."""
    return distributed.get_rank() if _grouped() else 0


def size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if _grouped() else 1


def share(recipe: RecipeType) -> RecipeType:
    """The recipe by which this process draws: its part of every batch, from random numbers of its own.

    Raises:
        ConfigInvalid: batches cannot be shared out evenly.
    """
    if size() == 1:
        return recipe
    if recipe.batch % (4 * size()):
        raise ConfigInvalid(
            f"batch: {recipe.batch} cannot be shared by {size()} processes", hint=f"use a multiple of {4 * size()}"
        )
    seed = (recipe.seed + rank() * SEED_STEP) % 2**32
    return replace(recipe, batch=recipe.batch // size(), seed=seed)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its mean over all processes, in one exchange."""
    if size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.all_reduce(flat)
    flat /= size()
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].reshape(tensor.shape))
        start += tensor.numel()


def agree(values: Sequence[float]) -> list[float]:
    """The numbers of the first process, in every process."""
    if size() == 1:
        return list(values)
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.broadcast(shared, src=0)
    numbers: list[float] = shared.tolist()
    return numbers


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()
