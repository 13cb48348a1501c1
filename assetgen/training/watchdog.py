"""Is training going wrong, and what to do about it: pure functions of the statistics; standard library only.

Every rule names what it saw and its limit. Rules look at lines of the log, newest last, so that a resumed run goes on
judging where it stood.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assetgen.training.checkpoint import Progress

Line = Mapping[str, float]

HISTORY = 40  # lines that rules look back on
PATIENCE = 10  # lines after an action before the next
MAX_REWINDS = 3
SPIKE = 10.0  # times the usual
WON = 0.05  # of the discriminator's loss, which is 0 when it is always right
BLIND = 0.01  # distance of the logistic loss from that of a coin
COIN = 2 * math.log(2)
SURE = 0.9  # mean sign on reals
NARROW, COLLAPSED = 0.7, 0.4  # distance of two fakes of a class, as a share of that of two reals
DEAD = 1e-3  # mean change of a picture in [-1, 1]
MEMORISED = 0.8
LOGISTIC = ("ns_logistic", "saturating")


@dataclass(frozen=True)
class Finding:
    """Something that goes wrong.

    Attributes:
        signal: which rule; value, limit: what it saw, and from where on it speaks.
        text: for people, with what to do.
        remedy: what ``act`` does: ``rewind``, ``more_penalty``, ``less_penalty``, ``slower``, or nothing.
    """

    signal: str
    value: float
    limit: float
    text: str
    remedy: str = ""


def judge(lines: Sequence[Line], *, loss: str, augment_max: float) -> list[Finding]:
    """What the newest of ``lines`` shows in the light of those before it, the worst first."""
    if not lines:
        return []
    newest, past = lines[-1], lines[-HISTORY:-1]
    found = [
        Finding("not_finite", math.nan, 0.0, f"{name} is no number any more", "rewind")
        for name, value in newest.items()
        if not math.isfinite(value)
    ]
    if found:
        return found[:1]
    return [
        *_classes(newest, past),
        *_dead(newest),
        *_spikes(newest, past),
        *_balance(lines[-PATIENCE:], loss),
        *_overfit(lines[-2 * PATIENCE :], augment_max),
    ]


def act(progress: Progress, finding: Finding) -> Progress:
    """Where training goes on after ``finding``: scales changed, for a rewind from the progress of the checkpoint."""
    match finding.remedy:
        case "rewind":
            return replace(
                progress,
                penalty_scale=progress.penalty_scale * 2,
                rate_scale=progress.rate_scale / 2,
                rewinds=progress.rewinds + 1,
            )
        case "more_penalty":
            return replace(progress, penalty_scale=progress.penalty_scale * 2)
        case "less_penalty":
            return replace(progress, penalty_scale=progress.penalty_scale / 2)
        case "slower":
            return replace(progress, rate_scale=progress.rate_scale / 2)
        case _:
            return progress


def _classes(newest: Line, past: Sequence[Line]) -> list[Finding]:
    """Fakes of a class that have become alike; young runs are alike at first, so only a fall counts."""
    found = []
    for name, value in newest.items():
        best = max((line[name] for line in past if name in line), default=0.0)
        if not name.startswith("diversity.") or value >= NARROW or value > best / 2:
            continue
        collapsed = value < COLLAPSED
        label = name.removeprefix("diversity.")
        text = f"pictures of {label!r} {'have collapsed' if collapsed else 'grow alike'}: {value:.2f} of the variety"
        text += f" of reals, {best:.2f} before"
        limit = COLLAPSED if collapsed else NARROW
        found.append(Finding(name, value, limit, text, "rewind" if collapsed else "more_penalty"))
    return sorted(found, key=lambda finding: finding.value)


def _dead(newest: Line) -> list[Finding]:
    texts = {
        "latent_effect": "the seed changes nothing: the generator ignores its latent",
        "label_effect": "the class changes nothing: the generator ignores its labels",
    }
    return [
        Finding(name, newest[name], DEAD, text) for name, text in texts.items() if newest.get(name, math.inf) < DEAD
    ]


def _spikes(newest: Line, past: Sequence[Line]) -> list[Finding]:
    found = []
    for name in ("r1", "r2", "gradient_penalty", "gradient_d", "gradient_g"):
        known = [line[name] for line in past if name in line]
        if name in newest and len(known) >= PATIENCE:
            limit = SPIKE * statistics.median(known)
            if newest[name] > limit > 0:
                text = f"{name} is {newest[name] / limit * SPIKE:.0f} times its usual size: training may break down"
                found.append(Finding(name, newest[name], limit, text, "slower"))
    return found


def _balance(recent: Sequence[Line], loss: str) -> list[Finding]:
    """One side has won, or neither learns; of losses that are bounded below by 0 only."""
    values = [line["loss_d"] for line in recent if "loss_d" in line]
    if len(values) < PATIENCE or loss == "wasserstein":
        return []
    if max(values) < WON:
        text = "the discriminator is always right: a larger r1_gamma or more augmentation would help"
        return [Finding("discriminator_wins", max(values), WON, text, "more_penalty")]
    away = max(abs(value - COIN) for value in values)
    if loss in LOGISTIC and away < BLIND:
        text = "the discriminator tells nothing apart: r1_gamma is too large, or the generator is perfect"
        return [Finding("discriminator_blind", away, BLIND, text, "less_penalty")]
    return []


def _overfit(recent: Sequence[Line], augment_max: float) -> list[Finding]:
    found = []
    newest = recent[-1]
    if newest.get("memorised", 0.0) > MEMORISED:
        text = "the discriminator takes held-out pictures for fakes: it knows its own by heart; "
        text += "a larger augment_fixed or more pictures would help"
        found.append(Finding("memorised", newest["memorised"], MEMORISED, text))
    sure = [line["sign"] for line in recent if "sign" in line and line.get("augment", 0.0) >= augment_max]
    if len(sure) == 2 * PATIENCE and min(sure) > SURE:
        text = "the discriminator is sure of every real although augmentation is at its limit"
        found.append(Finding("overfit", min(sure), SURE, text, "more_penalty"))
    return found
