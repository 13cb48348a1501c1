"""A trained detail network for classes that it never saw, each treated as one that it knows; torch.

Few have map sets. Who has pictures only borrows the shipped detail network, and says which of its classes each is like.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.training.checkpoint import Checkpoint


def borrowed(detail: Checkpoint, classes: Sequence[str], like: Mapping[str, str]) -> Checkpoint:
    """The checkpoint of a detail network, for ``classes`` in this order.

    Args:
        like: the class of the network that a class is like; a class of the same name needs none.

    Raises:
        ConfigInvalid: ``like`` names a class that is not there.
        CheckpointInvalid: a class has no counterpart.
    """
    known = list(detail.facts["classes"])
    for name, other in like.items():
        for given, allowed, whose in ((name, classes, "texture"), (other, known, "detail")):
            if given not in allowed:
                raise ConfigInvalid(
                    f"--like {name}={other}: the {whose} run does not know {given!r}",
                    hint=f"it knows {', '.join(allowed)}",
                )
    if missing := [name for name in classes if like.get(name, name) not in known]:
        example = " ".join(f"--like {name}=CLASS" for name in missing)
        raise CheckpointInvalid(
            f"the texture run knows {', '.join(classes)}; the detail run does not know {', '.join(missing)}",
            hint=f"say which of its classes each is like: {example}, of {', '.join(known)}",
        )
    chosen = [known.index(like.get(name, name)) for name in classes]
    if chosen == list(range(len(known))) and not like:
        return detail
    recipe = {**detail.recipe, "classes": list(classes)}
    for key in ("metal_classes", "jointed_classes"):
        recipe[key] = [name for name in classes if like.get(name, name) in detail.recipe[key]]
    relief = {name: detail.facts["relief_px"][like.get(name, name)] for name in classes}
    facts = {**detail.facts, "classes": list(classes), "relief_px": relief, "classes_like": dict(like)}
    tensors = {name: _of_classes(name, tensor, chosen) for name, tensor in detail.tensors.items()}
    return replace(detail, tensors=tensors, facts=facts, recipe=recipe)


def _of_classes(name: str, tensor: Tensor, chosen: Sequence[int]) -> Tensor:
    """The entries of the chosen classes, if the tensor has one for each class; names as in ``DetailNetwork``."""
    key = name.partition(".")[2]
    if key == "embed.weight":  # scaled by the number of its inputs when it runs
        return tensor[:, chosen] * math.sqrt(len(chosen) / tensor.shape[1])
    by_class = ("brightness", "metal", "jointed", "noise_strength.0", "noise_strength.1")
    return tensor[chosen] if key in by_class else tensor
