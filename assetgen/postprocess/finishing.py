"""Maps that a device turns into pixels itself, so that bytes leave it, not floats; imports types and pbr, numpy.

A session that can do so takes one more input, ``NAME``, and then gives pixels by the names of maps, in place of its
outputs: ``[1, C, H, W]`` with one channel, ``[1, H, W, 3]`` with three, rounded as ``profiles`` does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.postprocess import pbr
from assetgen.types import FloatArray, MapKind, Material

NAME = "finish"
# How many values of the network's maps are no numbers in [0, 1].
STRANGE = "strange"
SOURCES: Mapping[MapKind, int] = {
    MapKind.BASE_COLOR: 3,
    MapKind.ROUGHNESS: 1,
    MapKind.METALLIC: 1,
    MapKind.HEIGHT: 1,
}
"""The maps it is made from, with their channels."""


@dataclass(frozen=True)
class Terms:
    """How the maps of one material are finished; see ``kinds.texture.Plan``.

    Attributes:
        wanted: maps that shall leave the device.
    """

    relief_px: float
    y_down: bool = False
    roughness_shift: float = 0.0
    metal: bool = True
    wanted: Set[MapKind] = frozenset(MapKind)

    def numbers(self) -> dict[str, float]:
        """All but what is wanted, by the names of the graph's inputs."""
        green = -1.0 if self.y_down else 1.0
        shift, metal = self.roughness_shift, float(self.metal)
        return {"relief_px": self.relief_px, "green": green, "roughness_shift": shift, "metal": metal}

    def array(self) -> FloatArray:
        """As one input of a session: ``[4 + maps]``."""
        wanted = (kind in self.wanted for kind in MapKind)
        return np.array([*self.numbers().values(), *wanted], dtype=np.float32)


def terms_from(array: FloatArray) -> Terms:
    """What ``Terms.array`` made."""
    relief_px, green, roughness_shift, metal, *wanted = array.tolist()
    kinds = frozenset(kind for kind, flag in zip(MapKind, wanted, strict=True) if flag)
    return Terms(relief_px, green < 0, roughness_shift, bool(metal), kinds)


def given(maps: Mapping[MapKind, FloatArray], terms: Terms) -> dict[MapKind, FloatArray]:
    """The same by the processor, in floats: the maps that are wanted as the network gives them.

    Args:
        maps: those of ``SOURCES``, ``[H, W, C]`` in [0, 1]; more stay as they are.
    """
    made = {kind: values for kind, values in maps.items() if kind in terms.wanted}
    if terms.roughness_shift and MapKind.ROUGHNESS in made:
        made[MapKind.ROUGHNESS] = np.clip(made[MapKind.ROUGHNESS] + np.float32(terms.roughness_shift), 0, 1)
    if not terms.metal and MapKind.METALLIC in made:
        made[MapKind.METALLIC] = np.zeros_like(made[MapKind.METALLIC])
    return made


def derived(maps: Mapping[MapKind, FloatArray], terms: Terms) -> dict[MapKind, Callable[[], FloatArray]]:
    """What makes the wanted maps that the height implies, to be called when their turn comes: they take the longest."""
    makers = {MapKind.NORMAL: pbr.normal_from_height, MapKind.AMBIENT_OCCLUSION: pbr.ambient_occlusion_from_height}
    return {
        kind: functools.partial(make, maps[MapKind.HEIGHT], terms.relief_px)
        for kind, make in makers.items()
        if kind in terms.wanted
    }


def finished(maps: Mapping[MapKind, FloatArray], terms: Terms) -> Material:
    """All that is wanted: ``given`` and ``derived``."""
    made = given(maps, terms) | {kind: make() for kind, make in derived(maps, terms).items()}
    return Material({kind: made[kind] for kind in MapKind if kind in made})


def material(outputs: Mapping[str, NDArray[Any]]) -> Material:
    """The maps, pixels already, of what a session gave; raises ValueError if the network made what is no map."""
    if strange := int(outputs[STRANGE][0]):
        raise ValueError(f"maps: {strange} values are not in [0, 1]")
    given = {kind: outputs[kind.value][0] for kind in MapKind if kind.value in outputs}
    return Material({kind: x if x.shape[2] == 3 else x.transpose(1, 2, 0) for kind, x in given.items()})
