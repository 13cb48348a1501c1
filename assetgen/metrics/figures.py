"""All figures of a set of generated pictures, each beside the same figure of real ones; numpy and torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np

from assetgen.metrics import diversity, gram, memorisation, neighbours, seams, spectrum, swd
from assetgen.metrics.features import Instrument, examine
from assetgen.metrics.memorisation import Nearest
from assetgen.metrics.pictures import ByteArray
from assetgen.types import FloatArray

# A figure of fakes and the same of reals; None where it cannot be told.
Pair: TypeAlias = tuple[float | None, float | None]


@dataclass(frozen=True)
class Figures:
    """Figures of one class, or of all together: (generated, real).

    Where a figure compares two sets, generated pictures against validation crops stand beside training crops against
    validation crops; where it describes one set, training crops are the real ones. What each means is said in
    docs/evaluation.md.

    Attributes:
        accuracy: share told right by the classifier; real: of validation crops.
        swd, gram, spectrum, kid: distances, 0 for equal distributions.
        precision, recall, density, coverage: in the classifier's features.
        ms_ssim: of pairs of one class; higher is less variety.
        pair_distance: mean absolute difference of pairs of one class.
        grid: largest peak at 2, 4 or 8 px by what is around it; real: the larger of training and validation crops.
        repetition: mean of the highest peak of the autocorrelation.
        seam: median difference across the border by that inside; reals do not tile.
        nearest: median distance to the nearest training picture; real: of validation crops.
        copied: share nearer to training pictures than the nearest twentieth of validation crops; real: 0.05.
    """

    accuracy: Pair
    swd: Pair
    gram: Pair
    spectrum: Pair
    kid: Pair
    precision: Pair
    recall: Pair
    density: Pair
    coverage: Pair
    ms_ssim: Pair
    pair_distance: Pair
    grid: Pair
    repetition: Pair
    seam: Pair
    nearest: Pair
    copied: Pair


@dataclass(frozen=True)
class Subject:
    """What is compared, by class: as many fakes as training and validation crops ``[n, edge, edge, 3]``, of one size.

    Attributes:
        pictures: the whole training pictures of each class, in which copies are looked for.
        stride_px: pixels of a fake that one cell of the network's grid makes, at the fakes' size.
    """

    classes: tuple[str, ...]
    fakes: Sequence[ByteArray]
    train: Sequence[ByteArray]
    validation: Sequence[ByteArray]
    pictures: Sequence[Sequence[ByteArray]]
    stride_px: int


@dataclass(frozen=True)
class Report:
    """Figures by class, of all together, and for each class where its fakes come nearest to training pictures."""

    by_class: Mapping[str, Figures]
    all: Figures
    nearest: Sequence[Nearest]


@dataclass(frozen=True)
class _Seen:
    """What the classifier says of the three sets of one class: features, and whether it told them right."""

    features: tuple[FloatArray, FloatArray, FloatArray]
    accuracy: Pair


def measure(
    subject: Subject,
    instrument: Instrument | None,
    *,
    pairs: int = 256,
    seed: int = 0,
    notify: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure everything; the same for the same pictures and seed.

    Args:
        instrument: without it accuracy and the figures in feature space are None.
        pairs: of pictures of a class that are compared with each other.
        notify: told the class that is measured.
    """
    seen: list[_Seen] = []
    nearest: list[Nearest] = []
    by_class = {}
    for label, name in enumerate(subject.classes):
        notify(name)
        if instrument is not None:
            seen.append(_look(subject, label, instrument))
        nearest.append(memorisation.nearest_training(subject.fakes[label], subject.pictures[label]))
        by_class[name] = _class_figures(subject, label, nearest[-1], seen[-1] if seen else None, pairs, seed)
    notify("all classes")
    means = {field.name: _mean(by_class, field.name) for field in fields(Figures)}
    if seen:
        pooled = [np.concatenate(sides) for sides in zip(*(entry.features for entry in seen), strict=True)]
        means |= _feature_figures(*pooled)
    return Report(by_class, Figures(**means), nearest)


def as_json(figures: Figures) -> dict[str, dict[str, float | None]]:
    """Figures by name, rounded to five digits."""
    return {
        name: {
            side: None if value is None else float(f"{value:.5g}")
            for side, value in zip(("fake", "real"), pair, strict=True)
        }
        for name, pair in _pairs(figures)
    }


def _pairs(figures: Figures) -> Iterator[tuple[str, Pair]]:
    return ((field.name, getattr(figures, field.name)) for field in fields(figures))


def _class_figures(subject: Subject, label: int, close: Nearest, seen: _Seen | None, pairs: int, seed: int) -> Figures:
    fakes, train, held = subject.fakes[label], subject.train[label], subject.validation[label]
    held_close = memorisation.nearest_training(held, subject.pictures[label])
    chosen = diversity.random_pairs(len(fakes), pairs, seed)

    def both(figure: Callable[[ByteArray], float]) -> Pair:
        return figure(fakes), figure(train)

    return Figures(
        accuracy=seen.accuracy if seen else (None, None),
        swd=both(lambda side: swd.mean_distance(swd.sliced_wasserstein(side, held, seed=seed))),
        gram=both(lambda side: gram.gram_distance(side, held)),
        spectrum=both(lambda side: spectrum.spectrum_distance(side, held)),
        **_feature_figures(*seen.features if seen else ()),
        ms_ssim=both(lambda side: diversity.mean_ms_ssim(side, chosen)),
        pair_distance=both(lambda side: diversity.mean_pairwise_distance(side, chosen)),
        grid=(spectrum.grid_artefact(fakes), max(spectrum.grid_artefact(train), spectrum.grid_artefact(held))),
        repetition=both(lambda side: float(spectrum.repetition(side).mean())),
        seam=both(lambda side: float(np.median(seams.wrap_ratio(side, subject.stride_px)))),
        nearest=(float(np.median(close.distance)), float(np.median(held_close.distance))),
        copied=(memorisation.copied_share(close.distance, held_close.distance), memorisation.QUANTILE),
    )


def _look(subject: Subject, label: int, instrument: Instrument) -> _Seen:
    name = subject.classes[label]
    sides = [examine(instrument, side[label]) for side in (subject.fakes, subject.train, subject.validation)]
    right = [
        float((chances.argmax(axis=1) == instrument.classes.index(name)).mean()) if name in instrument.classes else None
        for _, chances in sides
    ]
    features = [features for features, _ in sides]
    return _Seen((features[0], features[1], features[2]), (right[0], right[2]))


def _feature_figures(*features: FloatArray) -> dict[str, Pair]:
    """Figures in feature space of fakes and of training crops, each against validation crops."""
    names = [field.name for field in fields(neighbours.Neighbours)]
    if not features:
        return dict.fromkeys(["kid", *names], (None, None))
    fakes, train, held = features
    sides = [neighbours.neighbours(side, held) for side in (fakes, train)]
    found: dict[str, Pair] = {name: (getattr(sides[0], name), getattr(sides[1], name)) for name in names}
    return {"kid": (neighbours.kid(fakes, held), neighbours.kid(train, held)), **found}


def _mean(by_class: Mapping[str, Figures], name: str) -> Pair:
    """Mean over the classes for which the figure is known."""
    columns = zip(*(getattr(figures, name) for figures in by_class.values()), strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    fake, real = (float(np.mean(column)) if column else None for column in known)
    return fake, real
