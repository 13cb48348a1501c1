"""What one step of detail training does; needs torch.

network          regress base colour, height, roughness, metallic; later also fool the discriminator
discriminator    what crops of base colour have beyond the input, real ones and added ones, by class; gradient penalty
                 now and then
average          move the averaged network

What the texture network draws is not what a scan looks like when shrunk. Pictures drawn by it (``drawn``) are taught
beside the scans: they must keep their colours, and what is added to them must look like that of scans.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from assetgen import latents
from assetgen.datasets.mapsets import SCALARS, SCALE, MapSet
from assetgen.models.detail import DetailConfig, DetailNetwork, Maps
from assetgen.models.discriminator import Discriminator, DiscriminatorConfig
from assetgen.training import detail_look, distil, losses, parallel
from assetgen.training.adversarial import descend, sanitise
from assetgen.training.augment import augment
from assetgen.training.checkpoint import Checkpoint, Progress
from assetgen.training.loop import adam, learning_rate, move_average, set_learning_rate
from assetgen.training.precision import autocast
from assetgen.training.recipe import DetailRecipe, recipe_from_values
from assetgen.training.sums import Sums

LOSS = losses.LOSSES["ns_logistic"]
CROP_STREAM = 1 << 40
DRAWN_NOISE = 1 << 40
# The discriminator's view of what lies beyond the input: in scans its deviation is about a tenth.
CONTRAST = 4.0
# Items that teach detail are few; small map sets are mostly ground. This share of crops comes from the former.
DETAIL_SHARE = 0.75
# The discriminator is told of classes with so many large scans. Of paving there was one: it learned that by heart, and
# what the network found to fool it were worms all over.
LEAST_SCANS = 2


@dataclass(frozen=True)
class Batch:
    """Crops of one kind: with a large picture (``scale`` 4) or without (``scale`` 1).

    Attributes:
        labels: class numbers ``[n]``, -1 for a class the network is not told of, whether or not it is told this time.
        targets: by name ``[n, c, H, W]``; masks ``[n]`` say which samples know the target.
    """

    small: Tensor
    labels: NDArray[np.int64]
    class_weights: Tensor
    large: Tensor | None
    targets: dict[str, Tensor]
    masks: dict[str, Tensor]


@dataclass(frozen=True)
class _Judged:
    """Crops of what real and added colours have beyond the input, and the class numbers of both in turn."""

    real: Tensor
    fake: Tensor
    labels: Tensor


def detail_network(recipe: DetailRecipe, classes: Sequence[str]) -> DetailNetwork:
    """The network that a recipe asks for, untrained."""
    one, two, four = recipe.widths
    metal = tuple(name in recipe.metal_classes for name in classes)
    jointed = tuple(name in recipe.jointed_classes for name in classes)
    return DetailNetwork(DetailConfig(len(classes), (one, two, four), recipe.blocks), metal, jointed)


class DetailTask:
    """A detail network, its average and its discriminator in training; the same for the same recipe.

    Args:
        drawn: pictures without maps that a texture network has drawn.
    """

    def __init__(
        self,
        recipe: DetailRecipe,
        classes: Sequence[str],
        sets: Sequence[MapSet],
        validation: Sequence[MapSet],
        facts: Mapping[str, Any],
        device: str = "cpu",
        drawn: Sequence[MapSet] = (),
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.share = parallel.share(recipe)
        self.classes = tuple(classes)
        self.detailed = [entry for entry in sets if entry.large is not None]
        self.coarse = [entry for entry in sets if entry.large is None]
        self.validation = list(validation)
        self.drawn = list(drawn)
        scans = Counter(entry.label for entry in self.detailed)
        self.judged_apart = np.array([scans[number] >= LEAST_SCANS for number in range(len(self.classes))] + [False])
        self.facts = facts
        self.device = device
        self.teacher: torch.nn.Module | None = None
        self.network = detail_network(recipe, classes)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.discriminator = Discriminator(
            DiscriminatorConfig(classes=len(classes) + 1, edge_px=recipe.score_px, widths=recipe.discriminator_widths)
        )
        self.modules: dict[str, torch.nn.Module] = {
            "network": self.network,
            "average": self.average,
            "discriminator": self.discriminator,
        }
        for module in self.modules.values():
            module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = {
            "network_adam": adam(self.network, recipe.learning_rate),
            "discriminator_adam": adam(self.discriminator, recipe.learning_rate, every=recipe.r1_interval),
        }

    def learn_from(self, saved: Checkpoint) -> None:
        """Have a teacher; see ``distil``."""
        teacher = detail_network(recipe_from_values(DetailRecipe, saved.recipe), self.classes)
        self.teacher = distil.taught(teacher.to(self.device), saved, "network")

    def step(self, progress: Progress, done: float, sums: Sums) -> Progress:
        """Train on one batch."""
        recipe = self.recipe
        rate = learning_rate(recipe, done) * progress.rate_scale
        set_learning_rate(self.optimisers["network_adam"], rate)
        set_learning_rate(self.optimisers["discriminator_adam"], rate, every=recipe.r1_interval)
        rng = latents.generator(self.share.seed, CROP_STREAM + progress.step)
        detailed = bool(self.detailed) and (not self.coarse or rng.random() < DETAIL_SHARE)
        batch = self._batch(rng, self.detailed if detailed else self.coarse)
        maps = self._predict(self.network, batch.small, batch.class_weights, progress.step, batch.large)
        loss = regression(*_inside(maps, batch, recipe.margin_px), recipe.fine, sums)
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self._predict(self.teacher, batch.small, batch.class_weights, progress.step, batch.large)
            distances = [
                distil.distance(getattr(maps, name), getattr(wanted, name)) for name in ("base_color", *SCALARS)
            ]
            sums.add("distance", torch.stack(distances).mean())
            loss = loss + recipe.distil * torch.stack(distances).mean()
        judged = None
        if detailed and recipe.adversarial > 0 and done >= recipe.adversarial_from:
            judged, told = self._judged(rng, batch, maps.base_color, progress.step)
            loss = loss + told
        descend(self.network, self.optimisers["network_adam"], loss, "g", sums)
        if judged is not None:
            self._discriminator_step(judged, progress.step, sums)
        move_average(self.average, self.network, recipe, progress.pictures)
        return replace(progress, step=progress.step + 1, pictures=progress.pictures + recipe.batch)

    def monitor(self) -> dict[str, float]:
        """Nothing: validation errors come with the snapshot."""
        return {}

    def snapshot(self, path: Path) -> None:
        """Measure validation errors and relief, and draw input, result and target beside each other."""
        errors = detail_look.errors(self.predict, self.validation, self.detailed, photo=self.recipe.photo)
        relief_px = detail_look.relief_px(self.predict, self.classes, self.detailed)
        self.facts = {**self.facts, "validation": errors, "relief_px": relief_px}
        of_each_class = {entry.label: entry for entry in self.drawn}.values()
        shown = [*(self.validation + self.detailed + self.coarse)[:10], *of_each_class]
        detail_look.write_sheet(path, self.predict, shown)

    def predict(self, entry: MapSet) -> Maps:
        """Maps of a whole item by the averaged network, with fixed noise."""
        small = _tensor(entry.small, self.device)
        large = None if entry.large is None else _tensor(entry.large, self.device)
        weights = self._class_weights([entry.label])
        with torch.no_grad():
            return self._predict(self.average, small, weights, 0, large)

    def _predict(
        self, network: torch.nn.Module, small: Tensor, class_weights: Tensor, step: int, large: Tensor | None
    ) -> Maps:
        """Maps from ``small``; a photo is given in full, and without noise, as it will be served."""
        if self.recipe.photo:
            still = torch.zeros((), device=self.device)
            with autocast(self.recipe, self.device):
                found: Maps = network(small, class_weights, [still, still], None, large)
            return found
        n, _, h, w = small.shape
        rng = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        noises = [torch.randn(n, 1, factor * h, factor * w, generator=rng).to(self.device) for factor in (2, 4)]
        with autocast(self.recipe, self.device):
            maps: Maps = network(small, class_weights, noises)
        return maps

    def _judged(self, rng: np.random.Generator, batch: Batch, painted: Tensor, step: int) -> tuple[_Judged, Tensor]:
        """What the discriminator sees of a batch with large pictures and of drawn ones, and what the network lowers.

        Args:
            painted: the network's base colour of the batch.
        """
        if batch.large is None:
            raise ValueError("batch: without large pictures there is nothing to tell from")
        loss = torch.zeros((), device=self.device)
        pictures, labels = [batch.large, painted], [batch.labels, batch.labels]
        if self.drawn:
            more = self._batch(rng, self.drawn, batch.labels)
            added = self._predict(self.network, more.small, more.class_weights, DRAWN_NOISE + step, None)
            loss = loss + regression(*_inside(added, more, self.recipe.margin_px), 0.0, Sums())
            pictures, labels = [*pictures, added.base_color], [*labels, more.labels]
        shown, n = self._shown(rng, pictures), len(batch.large)
        shown = augment(shown, self.recipe.augment_fixed, torch.Generator().manual_seed(int(rng.integers(1 << 62))))
        numbers = np.concatenate(labels)  # -1, of no class, is the last of them
        numbers = np.where(self.judged_apart[numbers], numbers, len(self.classes))
        seen = torch.from_numpy(numbers).to(self.device)
        self.discriminator.requires_grad_(False)
        loss = loss + self.recipe.adversarial * LOSS.generator(torch.zeros(0), self._score(shown[n:], seen[n:]))
        self.discriminator.requires_grad_(True)
        return _Judged(shown[:n].detach(), shown[n:].detach(), seen), loss

    def _shown(self, rng: np.random.Generator, pictures: Sequence[Tensor]) -> Tensor:
        """What the discriminator sees of pictures ``[n, 3, 4 crop, 4 crop]``, one after the other."""
        edge, margin = self.recipe.score_px, SCALE * self.recipe.margin_px
        seen = beyond(torch.cat(list(pictures)))
        places = margin + rng.integers(seen.shape[2] - 2 * margin - edge + 1, size=2)
        return _window(seen, places, edge).contiguous(memory_format=torch.channels_last)

    def _score(self, crops: Tensor, labels: Tensor) -> Tensor:
        with autocast(self.recipe, self.device):
            scores: Tensor = self.discriminator(crops, labels)
        return scores

    def _discriminator_step(self, judged: _Judged, step: int, sums: Sums) -> None:
        recipe, real, labels = self.recipe, judged.real, judged.labels
        scores = self._score(torch.cat([real, judged.fake]), labels)
        loss = LOSS.discriminator(scores[: len(real)], scores[len(real) :])
        adam_d = self.optimisers["discriminator_adam"]
        adam_d.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if step % recipe.r1_interval == 0:
            real = real.requires_grad_(True)
            penalty = losses.zero_centred_penalty(self.discriminator(real, labels[: len(real)]), real)
            (penalty * recipe.r1_gamma * recipe.r1_interval).backward()  # type: ignore[no-untyped-call]
        sanitise(self.discriminator, "d", sums)
        adam_d.step()
        sums.add("loss_d", loss)

    def _batch(
        self, rng: np.random.Generator, sets: Sequence[MapSet], labels: NDArray[np.int64] | None = None
    ) -> Batch:
        """Random crops, flipped, of these classes if they are named; slopes change sign with the axis flipped."""
        recipe = self.recipe
        edge = recipe.crop_px
        chosen = _chosen(rng, sets, recipe.batch) if labels is None else [_like(rng, sets, label) for label in labels]
        scale = SCALE if chosen[0].large is not None else 1
        small, large = [], []
        targets: dict[str, list[np.ndarray[Any, Any] | None]] = {name: [] for name in (*SCALARS, "slopes")}
        for entry in chosen:
            top, left = (int(rng.integers(size - edge + 1)) for size in entry.small.shape[:2])
            flips = tuple(int(flip) for flip in 1 - 2 * rng.integers(2, size=2))
            fine = (slice(scale * top, scale * (top + edge)), slice(scale * left, scale * (left + edge)))
            turn = (slice(None, None, flips[0]), slice(None, None, flips[1]))
            small.append(entry.small[top : top + edge, left : left + edge][turn])
            if entry.large is not None:
                large.append(entry.large[fine][turn])
            for name, values in targets.items():
                target = entry.targets.get(name)
                crop = None if target is None else target[fine][turn]
                values.append(
                    crop * np.array(flips, dtype=np.float32) if name == "slopes" and crop is not None else crop
                )
        known = {name: values for name, values in targets.items() if any(value is not None for value in values)}
        tint = _tint(rng, recipe.batch).to(self.device)
        told = rng.random(recipe.batch) >= recipe.class_dropout
        return Batch(
            small=_tinted(_tensor(np.stack(small), self.device), tint),
            labels=np.array([entry.label for entry in chosen]),
            class_weights=self._class_weights([e.label if tell else -1 for e, tell in zip(chosen, told, strict=True)]),
            large=_tinted(_tensor(np.stack(large), self.device), tint) if large else None,
            targets={name: _stack(values, self.device) for name, values in known.items()},
            masks={
                name: torch.tensor([value is not None for value in values], dtype=torch.float32, device=self.device)
                for name, values in known.items()
            },
        )

    def _class_weights(self, labels: Sequence[int]) -> Tensor:
        count = len(self.classes)
        rows = [np.eye(count)[label] if label >= 0 else np.full(count, 1 / count) for label in labels]
        return torch.from_numpy(np.stack(rows).astype(np.float32)).to(self.device)


def beyond(pictures: Tensor) -> Tensor:
    """What a picture ``[n, 3, h, w]`` has beyond the same at a quarter of its size, brought to a contrast of about 1.

    The discriminator judges that alone: the rest is given, and a drawn picture could be told from a scan by it.
    """
    small = F.avg_pool2d(pictures, SCALE)
    return CONTRAST * (pictures - F.interpolate(small, scale_factor=SCALE, mode="bilinear", align_corners=False))


def _chosen(rng: np.random.Generator, sets: Sequence[MapSet], count: int) -> list[MapSet]:
    """Some at random; of a class with four times as many, twice as often."""
    of_class = Counter(entry.label for entry in sets)
    chances = np.array([of_class[entry.label] ** -0.5 for entry in sets])
    return [sets[i] for i in rng.choice(len(sets), size=count, p=chances / chances.sum())]


def _like(rng: np.random.Generator, sets: Sequence[MapSet], label: int) -> MapSet:
    """One of that class; of any, if there is none."""
    same = [entry for entry in sets if entry.label == label] or sets
    return same[int(rng.integers(len(same)))]


def _inside(maps: Maps, batch: Batch, margin_px: int) -> tuple[Maps, Batch]:
    """Both without a border of so many input pixels."""

    def cut(x: Tensor) -> Tensor:
        margin = margin_px * (x.shape[2] // batch.small.shape[2])
        return x[:, :, margin : x.shape[2] - margin, margin : x.shape[3] - margin]

    known = replace(
        batch,
        small=cut(batch.small),
        large=None if batch.large is None else cut(batch.large),
        targets={name: cut(values) for name, values in batch.targets.items()},
    )
    return Maps(*(cut(getattr(maps, name)) for name in ("base_color", *SCALARS))), known


def regression(maps: Maps, batch: Batch, fine_weight: float, sums: Sums) -> Tensor:
    """Distance of the maps from what is known of them; every term is a mean over known samples.

    Colours must average to the input; finer colours are mostly the discriminator's business, since a mean over what
    could be there is blur. Height is judged by shape, then by its spread: a plain distance would shrink it to nothing.
    """
    loss = 2.0 * F.l1_loss(F.avg_pool2d(maps.base_color, SCALE), batch.small)
    sums.add("color_low", loss / 2)
    if batch.large is not None:
        fine = F.l1_loss(maps.base_color, batch.large)
        sums.add("color_fine", fine)
        loss = loss + fine_weight * fine
    scale = 1 if batch.large is not None else SCALE
    for name in ("roughness", "metallic"):
        if name in batch.targets:
            predicted = F.avg_pool2d(getattr(maps, name), scale)
            term = (predicted - batch.targets[name]).abs().mean(dim=(1, 2, 3))
            loss = loss + _known(term, batch.masks[name], name, sums)
    zero = torch.zeros(len(batch.small), device=batch.small.device)
    if "height" in batch.targets:
        predicted, target = F.avg_pool2d(maps.height, scale), batch.targets["height"]
        shape = _mismatch(predicted, target) + _mismatch(_slopes(predicted), _slopes(target))
        spread = (predicted.std(dim=(1, 2, 3)) - target.std(dim=(1, 2, 3))).abs()
        level = (predicted.mean(dim=(1, 2, 3)) - 0.5).abs()
        loss = loss + _known(0.2 * shape + spread + level, batch.masks["height"], "height", sums)
    if "slopes" in batch.targets:
        mask = batch.masks["slopes"] * (1 - batch.masks.get("height", zero))
        term = _mismatch(_slopes(maps.height), batch.targets["slopes"][:, :, 1:-1, 1:-1])
        loss = loss + _known(0.2 * term, mask, "slopes", sums)
    return loss


def _known(term: Tensor, mask: Tensor, name: str, sums: Sums) -> Tensor:
    """Mean over the batch of a term ``[n]`` where it is known; its mean over the known is counted."""
    sums.add(name, (term * mask).sum() / mask.sum().clamp(min=1e-6))
    return (term * mask).mean()


def _slopes(height: Tensor) -> Tensor:
    """Central differences inside a crop ``[n, 1, h, w]`` -> ``[n, 2, h-2, w-2]``: rows, columns."""
    rows = (height[:, :, 2:, 1:-1] - height[:, :, :-2, 1:-1]) / 2
    columns = (height[:, :, 1:-1, 2:] - height[:, :, 1:-1, :-2]) / 2
    return torch.cat([rows, columns], dim=1)


def _mismatch(first: Tensor, second: Tensor) -> Tensor:
    """One minus the correlation of each sample's channels, ``[n]``: blind to scale and level."""
    centred = [(x - x.mean(dim=(2, 3), keepdim=True)).flatten(1) for x in (first, second)]
    return 1 - F.cosine_similarity(centred[0], centred[1], dim=1, eps=1e-6)


def _tint(rng: np.random.Generator, count: int) -> Tensor:
    """Random colour transforms ``[count, 3, 4]``: few scans are known, and relief does not hang on their colour."""
    gain = np.exp2(rng.uniform(-0.5, 0.5, (count, 1, 1)))
    saturation = rng.uniform(0.3, 1.5, (count, 1, 1))
    mix = gain * (saturation * np.eye(3) + (1 - saturation) / 3)
    shift = rng.uniform(-0.15, 0.15, (count, 3, 1))
    return torch.from_numpy(np.concatenate([mix, shift], axis=2).astype(np.float32))


def _tinted(x: Tensor, tint: Tensor) -> Tensor:
    mixed = torch.einsum("nij,njhw->nihw", tint[:, :, :3], x) + tint[:, :, 3, None, None]
    return mixed.clamp(-1, 1).contiguous(memory_format=torch.channels_last)


def _window(x: Tensor, places: Any, edge: int) -> Tensor:
    return x[:, :, places[0] : places[0] + edge, places[1] : places[1] + edge]


def _tensor(pixels: np.ndarray[Any, Any], device: str) -> Tensor:
    batch = np.array(pixels if pixels.ndim == 4 else pixels[None], order="C")
    tensor = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last).to(device)


def _stack(values: Sequence[np.ndarray[Any, Any] | None], device: str) -> Tensor:
    known = next(value for value in values if value is not None)
    filled = [np.zeros_like(known) if value is None else value for value in values]
    return torch.from_numpy(np.stack(filled)).permute(0, 3, 1, 2).contiguous().to(device)
