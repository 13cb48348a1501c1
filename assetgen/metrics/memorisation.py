"""Whether a generator repeats its training pictures: how near fakes come to them, against pictures never trained on.

Windows of half the edge are looked for everywhere in the training pictures, flipped and turned, so a copy is found
wherever it was rolled to. numpy and torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from assetgen import check
from assetgen.metrics.pictures import ByteArray, tensor_of

# The search: cells overlap by half, so that a copy is still like its origin one pixel off the nearest step.
CELL_PX = 8
CELL_STEP_PX = 4
STEP_PX = 2
# Then the pictures found first are compared with smaller cells at every pixel around the place.
CANDIDATES = 4
FINE_CELL_PX = 4
SMALLEST_PX = 32
QUANTILE = 0.05
# Length of descriptors that counts as none: of flat windows, noise of the last bit would decide what is like what.
FLAT = 0.03


@dataclass(frozen=True)
class Nearest:
    """For each query: how far the nearest training picture is, and which.

    Attributes:
        distance: ``[n]``, 0 for a copy up to brightness and contrast, 1.41 for nothing in common.
        picture: ``[n]``, its index.
        corner: ``[n, 2]``, row and column of the window's upper left corner there.
    """

    distance: NDArray[np.float32]
    picture: NDArray[np.int64]
    corner: NDArray[np.int64]


def nearest_training(queries: ByteArray, training: Sequence[ByteArray]) -> Nearest:
    """The nearest window of the ``training`` pictures ``[h, w, 3]`` for each of ``queries`` ``[n, edge, edge, 3]``.

    Each query is taken apart into its four quarters, since a copy may be rolled over the border; the best counts.
    Windows are compared without their mean colour and contrast.

    Raises:
        ValueError: no training picture, one smaller than a window, or an edge that is not a multiple of 8 px from 32.
    """
    n, edge = len(queries), queries.shape[1]
    check.shape(queries, f"n {edge} {edge} 3", "queries")
    window = edge // 2
    if not training or edge % (2 * CELL_STEP_PX) or edge < SMALLEST_PX:
        raise ValueError(
            f"{len(training)} training pictures, queries of {edge} px; multiples of 8 px from 32 are needed"
        )
    quarters = tensor_of(queries).reshape(n, 3, 2, window, 2, window).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    turned = torch.cat([torch.rot90(side, k, (3, 4)) for side in (quarters, quarters.flip(4)) for k in range(4)], dim=1)
    pictures = [tensor_of(pixels[None])[0] for pixels in training]
    likeness, which, place = _search(turned, pictures)
    candidates = likeness.topk(min(CANDIDATES, len(pictures)), dim=1).indices
    best = torch.full((n,), -torch.inf)
    picture, corner = torch.zeros(n, dtype=torch.int64), torch.zeros(n, 2, dtype=torch.int64)
    for query in range(n):
        for candidate in candidates[query].tolist():
            wanted = turned[query, which[query, candidate]]
            score, at = _refine(wanted, pictures[candidate], place[query, candidate])
            if score > best[query]:
                best[query], picture[query], corner[query] = score, candidate, at
    distance = (2 - 2 * best.clamp(max=1)).clamp_min(0).sqrt()
    return Nearest(distance.numpy(), picture.numpy(), corner.numpy())


def copied_share(fakes: NDArray[np.float32], held_out: NDArray[np.float32]) -> float:
    """Share of fakes nearer to the training pictures than the nearest twentieth of pictures that were held out.

    About 0.05 for a generator that has learnt a kind of picture and not the pictures; 1 for one that repeats them.
    """
    return float((fakes < np.quantile(held_out, QUANTILE)).mean())


def _search(turned: Tensor, pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """For queries ``[n, turns, 3, w, w]`` and each picture: best likeness, turn ``[n, m]`` and corner ``[n, m, 2]``."""
    n, turns, _, window, _ = turned.shape
    wanted = _unit(F.avg_pool2d(turned.flatten(0, 1), CELL_PX, stride=CELL_STEP_PX).flatten(2))
    cells = (window - CELL_PX) // CELL_STEP_PX + 1
    spread = CELL_STEP_PX // STEP_PX
    found = []
    for picture in pictures:
        if min(picture.shape[1:]) < window:
            raise ValueError(f"training picture of {min(picture.shape[1:])} px; {window} at least are needed")
        means = F.avg_pool2d(picture[None], CELL_PX, stride=STEP_PX)
        columns = means.shape[3] - spread * (cells - 1)
        known = _unit(F.unfold(means, cells, dilation=spread)[0].t().reshape(-1, 3, cells * cells))
        likeness, place = (wanted @ known.t()).max(dim=1)
        likeness, which = likeness.reshape(n, turns).max(dim=1)
        place = place.reshape(n, turns).gather(1, which[:, None])[:, 0]
        found.append((likeness, which, torch.stack([place // columns, place % columns], dim=1) * STEP_PX))
    likenesses, turn, corners = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
    return likenesses, turn, corners


def _refine(wanted: Tensor, picture: Tensor, corner: Tensor) -> tuple[float, Tensor]:
    """Likeness of a window ``[3, w, w]`` to the best place within a step of ``corner``, and that place."""
    window = wanted.shape[1]
    last = torch.tensor(picture.shape[1:]) - window
    low, high = (corner - STEP_PX).clamp_min(0), torch.minimum(corner + STEP_PX, last)
    part = picture[:, low[0] : high[0] + window, low[1] : high[1] + window]
    shifts = part.unfold(1, window, 1).unfold(2, window, 1)
    right = shifts.shape[2]
    known = shifts.permute(1, 2, 0, 3, 4).flatten(0, 1)
    target, near = (_unit(F.avg_pool2d(side, FINE_CELL_PX).flatten(2)) for side in (wanted[None], known))
    score, at = (near @ target[0]).max(dim=0)
    return float(score), low + torch.stack([at // right, at % right])


def _unit(cells: Tensor) -> Tensor:
    """Descriptors ``[n, 3 * cells]`` of ``[n, 3, cells]`` without mean colour, of the length 1, flat ones less."""
    centred = (cells - cells.mean(dim=2, keepdim=True)).flatten(1)
    scaled: Tensor = centred / (centred.square().sum(dim=1, keepdim=True) + FLAT**2).sqrt()
    return scaled
