"""Training the classifier that judges generated textures: real crops only, balanced classes; needs torch."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from assetgen import latents
from assetgen.datasets import tiles
from assetgen.datasets.tiles import ByteArray
from assetgen.errors import ConfigInvalid, DataInvalid
from assetgen.metrics.features import examine, load_classifier, save_classifier
from assetgen.models.classifier import Classifier, ClassifierConfig
from assetgen.training.augment import augment
from assetgen.training.batches import Reals, grounded, real_batch, reals_from_items
from assetgen.training.precision import autocast, settled
from assetgen.training.recipe import PictureRecipe, TextureRecipe

# Streams of the counter-based generator, apart from those of batches.
CROP_STREAM = 1 << 56
CHECKS = 25


@dataclass(frozen=True)
class ClassifierRecipe:
    """Everything that decides the result, beside the data and the time.

    Attributes:
        crops: of ``crops.crop_px`` at ``crops.scan_px``, flipped, and turned where the class has no direction; batch
            size and seed are taken from here too. Pictures with alpha are shown on grey.
        augment: probability of each change of colour, and of a hole.
        smoothing: of the labels.
        validation_crops: fixed crops of each validation picture, by which the best state is chosen; 1 where all
            pictures are no larger than a crop.
    """

    crops: TextureRecipe | PictureRecipe
    widths: tuple[int, ...] = (32, 64, 96, 128)
    learning_rate: float = 0.0015
    weight_decay: float = 0.03
    augment: float = 0.2
    smoothing: float = 0.1
    validation_crops: int = 8


def balanced_crops(reals: Reals, label: int, count: int, edge_px: int, seed: int) -> ByteArray:
    """Crops ``[count, edge, edge, c]`` of one class: every picture equally often, places at random, neither flipped.

    Raises:
        DataInvalid: the class has no picture.
    """
    pictures = reals.pictures[label]
    if not pictures:
        raise DataInvalid(f"class {reals.classes[label]!r} has no picture to cut crops from")
    rng = latents.generator(seed, CROP_STREAM + label)
    crops = np.empty((count, edge_px, edge_px, pictures[0].shape[2]), dtype=np.uint8)
    order: list[int] = []
    for n in range(count):
        order = order or list(rng.permutation(len(pictures)))
        pixels = pictures[order.pop()]
        top = rng.integers(pixels.shape[0] - edge_px + 1)
        left = rng.integers(pixels.shape[1] - edge_px + 1)
        crops[n] = pixels[top : top + edge_px, left : left + edge_px]
    return crops


def train_classifier(
    data: Path,
    output: Path,
    minutes: float,
    *,
    classes: Sequence[str] = (),
    seed: int = 1,
    steps: int | None = None,
    recipe: ClassifierRecipe | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train on the training split, keep the state that is best on the validation split, write it to ``output``.

    Args:
        output: ``FILE.safetensors``; a JSON file with the same name says where it comes from.
        minutes: length of the training; the learning rate follows it.
        classes: those to tell apart; empty takes all of the data that have pictures in both splits.
        steps: length in steps instead, for a result that does not depend on the machine's speed.

    Returns:
        The facts written beside the tensors.

    Raises:
        ConfigInvalid: bad options. DataInvalid: a class without pictures in both splits, or fewer than two classes.
    """
    if output.suffix != ".safetensors":
        raise ConfigInvalid(f"--output {output}: the name must end in .safetensors")
    if not math.isfinite(minutes) or minutes <= 0:
        raise ConfigInvalid(f"--minutes {minutes} is not allowed; use more than 0")
    recipe = recipe or ClassifierRecipe(TextureRecipe(batch=32, seed=seed))
    precision = settled(recipe.crops.precision, "cpu")
    recipe = replace(recipe, crops=replace(recipe.crops, classes=tuple(classes), precision=precision))
    items = tiles.load(data, classes=classes, min_contrast=recipe.crops.min_contrast, alpha=recipe.crops.alpha)
    train, validation = (grounded(reals_from_items(items, recipe.crops, split)) for split in ("train", "validation"))
    train, validation = _usable(train, validation, bool(classes), data)
    network = Classifier(ClassifierConfig(len(train.classes), recipe.widths))
    edge = recipe.crops.crop_px
    larger = any(max(pixels.shape[:2]) > edge for pictures in validation.pictures for pixels in pictures)
    count = recipe.validation_crops if larger else 1
    held = [
        balanced_crops(validation, label, count * len(pictures), edge, seed)
        for label, pictures in enumerate(validation.pictures)
    ]
    found = _fit(network, recipe, train, held, minutes, steps, notify)
    used = [item for item in items if item.split == "train" and item.class_name in train.classes]
    facts = {
        "classes": list(train.classes),
        "crop_px": edge,
        "scan_px": recipe.crops.scan_px,
        "accuracy": found,
        "recipe": {
            "seed": recipe.crops.seed,
            **{key: value for key, value in asdict(recipe).items() if key != "crops"},
            **{
                key: getattr(recipe.crops, key)
                for key in ("batch", "trim_px", "min_contrast", "directed_classes", "precision")
            },
        },
        "data": {
            "data_sha256": hashlib.sha256(data.read_bytes()).hexdigest(),
            "train_pictures": train.count,
            "validation_pictures": validation.count,
            "licenses": dict(Counter(item.license or "none" for item in used)),
            "authors": dict(Counter(item.author or "unnamed" for item in used)),
        },
        "made_with": {"torch": torch.__version__},
    }
    save_classifier(output, network, facts)
    load_classifier(output)
    return facts


def _usable(train: Reals, validation: Reals, named: bool, data: Path) -> tuple[Reals, Reals]:
    """Both splits with the same classes, each with pictures; raises DataInvalid."""
    kept = [i for i in range(len(train.classes)) if train.pictures[i] and validation.pictures[i]]
    dropped = [name for i, name in enumerate(train.classes) if i not in kept]
    if named and dropped:
        raise DataInvalid(
            f"{', '.join(dropped)}: no picture for training, or none for validation, in {data}",
            hint="pack with a larger --validation share, or leave the class out",
        )
    if len(kept) < 2:
        raise DataInvalid(
            f"{data} has {len(kept)} classes with pictures for training and validation; at least 2 are needed",
            hint="pack with a larger --validation share",
        )

    def chosen(reals: Reals) -> Reals:
        return Reals(
            classes=tuple(reals.classes[i] for i in kept),
            pictures=tuple(reals.pictures[i] for i in kept),
            groups=tuple(reals.groups[i] for i in kept),
            class_chances=np.full(len(kept), 1 / len(kept)),
        )

    return chosen(train), chosen(validation)


def _fit(
    network: Classifier,
    recipe: ClassifierRecipe,
    train: Reals,
    held: Sequence[ByteArray],
    minutes: float,
    steps: int | None,
    notify: Callable[[str], None],
) -> dict[str, Any]:
    """Leave the best state seen in ``network``; returns accuracies and the step they were reached at."""
    torch.manual_seed(recipe.crops.seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.reset_parameters()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    start = time.monotonic()
    best: dict[str, Any] = {"mean": -1.0}
    state: dict[str, torch.Tensor] = {}
    step, checks, done = 0, 0, 0.0
    while done < 1:
        network.train()
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * min(1, 20 * done + 0.05) * math.cos(done * math.pi / 2)
        pictures, labels = real_batch(train, recipe.crops, step)
        rng = torch.Generator().manual_seed(recipe.crops.seed * 1_000_003 + step)
        pictures = augment(pictures, recipe.augment, rng).contiguous(memory_format=torch.channels_last)
        with autocast(recipe.crops, "cpu"):
            logits = network(pictures)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        done = step / steps if steps else (time.monotonic() - start) / (minutes * 60)
        if done * CHECKS >= checks + 1 or done >= 1:
            checks = int(done * CHECKS)
            accuracy = _accuracy(network, train.classes, held, recipe.crops)
            if accuracy["mean"] > best["mean"]:
                best = {**accuracy, "step": step}
                state = {name: value.clone() for name, value in network.state_dict().items()}
            notify(f"step {step}  loss {loss.item():.3f}  accuracy on validation crops {accuracy['mean']:.3f}")
    network.load_state_dict(state)
    network.eval()
    return {**best, "steps": step}


def _accuracy(
    network: Classifier, classes: Sequence[str], held: Sequence[ByteArray], crops: TextureRecipe | PictureRecipe
) -> dict[str, Any]:
    """Share of crops of each class that are told right, and the mean over classes."""
    from assetgen.metrics.features import Instrument

    network.eval()
    instrument = Instrument(network, tuple(classes), crops.crop_px, crops.scan_px, {}, "")
    by_class = {}
    for label, pictures in enumerate(held):
        _, chances = examine(instrument, pictures)
        by_class[classes[label]] = round(float((chances.argmax(axis=1) == label).mean()), 4)
    return {"mean": round(float(np.mean(list(by_class.values()))), 4), "by_class": by_class}
