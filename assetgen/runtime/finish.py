"""The finishing of maps by ONNX Runtime on a device, from where the graph left them; imports postprocess and numpy.

On a GPU a material of 512 px is there after some 4 ms, and the processor takes many times as long for normals,
occlusion and rounding, besides copying six floats a pixel in place of eleven bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assetgen.manifest import Manifest
from assetgen.postprocess import finishing, pbr, profiles
from assetgen.postprocess.finishing import SOURCES, STRANGE, Terms
from assetgen.types import FloatArray, MapKind, NormalConvention

# Behind a map's name, that of the output; the bare name is the input's.
PIXELS = "_pixels"
# With what is made of height, and without: 44 nodes in place of 155, and a preview of base colour needs no more.
GRAPHS = {True: Path(__file__).with_name("finish.onnx"), False: Path(__file__).with_name("finish_flat.onnx")}
RELIEF = frozenset({MapKind.NORMAL, MapKind.AMBIENT_OCCLUSION})
# Occlusion looks so far; a smaller torus goes round more than once.
LEAST_PX = max(pbr.OCCLUSION_RADII_PX)
# A device may round another way where a value lies between two codes.
LARGEST_STEP, SHARE_OFF = 1, 0.01
_CHECK_PX = (48, 80)


def can_finish(manifest: Manifest) -> bool:
    """Whether the model makes just the maps that the graph is for."""
    made = {output.map_kind: output.channels for output in manifest.outputs}
    return (
        manifest.kind == "texture"
        and made == {str(kind): n for kind, n in SOURCES.items()}
        and (manifest.size.min_px >= LEAST_PX)
    )


@dataclass(frozen=True)
class _Loaded:
    """A session of a graph of finishing, and the names of its ports."""

    session: Any
    inputs: frozenset[str]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, session: Any) -> _Loaded:
        """Asked once: each call for the ports makes them anew."""
        inputs, outputs = session.get_inputs(), session.get_outputs()
        return cls(session, frozenset(port.name for port in inputs), tuple(port.name for port in outputs))


class Finisher:
    """The graphs of finishing, loaded beside a model's.

    Args:
        load: makes an ``onnxruntime.InferenceSession`` of a graph.
        memory: kind and number of the device that maps lie on, such as ``("cuda", 0)``.
        names: of the model's outputs, by map.
    """

    def __init__(
        self, load: Callable[[bytes], Any], ort: ModuleType, memory: tuple[str, int], names: Mapping[MapKind, str]
    ) -> None:
        self._ort, self._memory, self._names = ort, memory, names
        self._graphs = {relief: _Loaded.of(load(path.read_bytes())) for relief, path in GRAPHS.items()}

    def run(self, maps: Mapping[str, Any], terms: Terms) -> dict[str, NDArray[Any]]:
        """Pixels of the maps that are wanted; see ``postprocess.finishing``.

        Args:
            maps: the model's outputs by name, as ``OrtValue`` on the device.
        """
        graph = self._graphs[not RELIEF.isdisjoint(terms.wanted)]
        binding = graph.session.io_binding()
        for kind, name in self._names.items():
            binding.bind_ortvalue_input(kind.value, maps[name])
        numbers = terms.numbers()
        arrays = {name: np.array([numbers[name]], dtype=np.float32) for name in numbers if name in graph.inputs}
        for name, array in arrays.items():
            binding.bind_cpu_input(name, array)
        for name in graph.outputs:
            binding.bind_output(name, *self._memory)
        graph.session.run_with_iobinding(binding)
        made = dict(zip(graph.outputs, binding.get_outputs(), strict=True))
        wanted = {kind.value: made[kind + PIXELS] for kind in MapKind if kind in terms.wanted}
        return {name: owned(value.numpy()) for name, value in {STRANGE: made[STRANGE], **wanted}.items()}

    def differs(self) -> str:
        """How its pixels differ from those of the processor more than rounding may; nothing if they do not."""
        rng = np.random.default_rng(0)
        maps = {
            name: rng.random((1, SOURCES[kind], *_CHECK_PX), dtype=np.float32) for kind, name in self._names.items()
        }
        values = {name: self._ort.OrtValue.ortvalue_from_numpy(array, *self._memory) for name, array in maps.items()}
        floats = {kind: maps[name][0].transpose(1, 2, 0) for kind, name in self._names.items()}
        for wanted in (frozenset(MapKind), frozenset(MapKind) - RELIEF):
            terms = Terms(relief_px=5.0, y_down=True, roughness_shift=0.25, metal=True, wanted=wanted)
            given = finishing.material(self.run(values, terms)).maps
            for kind, expected in finished(floats, terms).items():
                steps = np.abs(given[kind].astype(np.int32) - expected.astype(np.int32))
                if steps.max() > LARGEST_STEP or np.mean(steps > 0) > SHARE_OFF:
                    return f"{kind}: {np.mean(steps > 0):.1%} of the pixels differ, by {steps.max()} at most"
        return ""


def finished(maps: Mapping[MapKind, FloatArray], terms: Terms) -> dict[MapKind, NDArray[Any]]:
    """The same by the processor: pixels by map."""
    convention = NormalConvention.Y_DOWN if terms.y_down else NormalConvention.Y_UP
    material = finishing.finished(maps, terms)
    return {kind: profiles.quantized(kind, values, convention) for kind, values in material.maps.items()}


def open_finisher(
    load: Callable[[bytes], Any], ort: ModuleType, memory: tuple[str, int], manifest: Manifest
) -> tuple[Finisher | None, str]:
    """A finisher whose pixels were compared with those of the processor, or why there is none.

    Args:
        load: makes a session of a graph, on that device alone.
    """
    if not can_finish(manifest):
        return None, ""
    try:
        finisher = Finisher(load, ort, memory, _names(manifest))
        found = finisher.differs()
    except Exception as error:  # noqa: BLE001 -- whatever a device cannot do, the processor can
        found = str(error)
    return (None, f"; maps are finished on the processor: {found:.200}") if found else (finisher, "")


def owned(values: NDArray[Any]) -> NDArray[Any]:
    """The array itself, or a copy where it shows memory that the next run writes."""
    return values if values.flags.owndata else values.copy()


def _names(manifest: Manifest) -> dict[MapKind, str]:
    return {MapKind(output.map_kind): output.name for output in manifest.outputs}
