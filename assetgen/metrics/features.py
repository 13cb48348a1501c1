"""The classifier as a measuring instrument: its file, checked, and what it says of pictures; torch and safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save

from assetgen import check, strictjson
from assetgen.errors import ConfigInvalid
from assetgen.metrics.pictures import ByteArray, tensor_of
from assetgen.metrics.tensor_files import load_tensors
from assetgen.models.classifier import Classifier, ClassifierConfig
from assetgen.types import FloatArray

FORMAT = 1
SHIPPED = Path(__file__).with_name("materials-classifier.safetensors")
BATCH = 128


@dataclass(frozen=True)
class Instrument:
    """A trained classifier and what must be known to use it.

    Attributes:
        classes: names in the order of the probabilities.
        crop_px: edge of the crops it was trained on; others are refused.
        scan_px: texel density of those crops: pixels across one scan.
        facts: data, licences, authors, accuracy and recipe, as they stand in the JSON file.
        sha256: hex digest of the tensors.
    """

    network: Classifier
    classes: tuple[str, ...]
    crop_px: int
    scan_px: int
    facts: Mapping[str, Any]
    sha256: str


def save_classifier(path: Path, network: Classifier, facts: Mapping[str, Any]) -> None:
    """Write ``path`` (tensors, in half precision) and a JSON file of the same name beside it.

    Args:
        facts: ``classes``, ``crop_px`` and ``scan_px`` at least.
    """
    tensors = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    partial = path.with_name(path.name + ".partial")
    data = save(tensors)
    partial.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    known = {"format": FORMAT, "tensors_sha256": digest, "config": asdict(network.config), **facts}
    text = json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def load_classifier(path: Path = SHIPPED) -> Instrument:
    """Read a classifier that ``save_classifier`` wrote, by default the one that comes with the product.

    Raises:
        ConfigInvalid: missing, altered, or not a classifier.
    """
    try:
        facts = strictjson.loads(path.with_suffix(".json").read_bytes())
        if facts["format"] != FORMAT:
            raise ConfigInvalid(f"{path} has format {facts['format']}; {FORMAT} is supported", hint="train it again")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != facts["tensors_sha256"]:
            raise ConfigInvalid(
                f"{path} was altered: its SHA-256 is {digest[:12]}…, not {facts['tensors_sha256'][:12]}…",
                hint="restore both files, or train again: assetgen eval classifier",
            )
        settings = {**facts["config"], "widths": tuple(facts["config"]["widths"])}
        network = Classifier(ClassifierConfig(**settings)).eval().requires_grad_(False)
        tensors = {name: value.float() for name, value in load_tensors(path).items()}
        absent = network.load_state_dict(tensors, strict=False)
        if absent.unexpected_keys or any(not key.endswith("num_batches_tracked") for key in absent.missing_keys):
            raise ConfigInvalid(f"the tensors of {path} do not fit its configuration", hint="train it again")
        classes = tuple(facts["classes"])
        if len(classes) != network.config.classes:
            raise ConfigInvalid(f"{path} names {len(classes)} classes but scores {network.config.classes}")
        return Instrument(network, classes, int(facts["crop_px"]), int(facts["scan_px"]), facts, digest)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        raise ConfigInvalid(
            f"{path} is not a classifier: {error}", hint="make one with: assetgen eval classifier"
        ) from error


def examine(instrument: Instrument, pictures: ByteArray) -> tuple[FloatArray, FloatArray]:
    """Features ``[n, d]`` and class probabilities ``[n, classes]`` of pictures ``[n, crop_px, crop_px, 3]``.

    Raises:
        ValueError: another size, at which the classifier says nothing of worth.
    """
    edge = instrument.crop_px
    check.shape(pictures, f"n {edge} {edge} 3", "pictures")
    features, chances = [], []
    with torch.no_grad():
        for start in range(0, len(pictures), BATCH):
            x = tensor_of(pictures[start : start + BATCH]).contiguous(memory_format=torch.channels_last)
            found = instrument.network.features(x)
            features.append(found.numpy())
            chances.append(instrument.network.score(found).softmax(dim=1).numpy())
    return np.concatenate(features), np.concatenate(chances)
