"""What an encoder's codes are like, class by class, as a mixture of normal distributions; torch only.

The codes of a class lie in heaps: cars from the front, cars from the side. One normal distribution over all of them
draws mostly what lies between, which the generator was never shown; with a mixture fitted to codes an autoencoder makes
better samples (Ghosh et al. 2020, who fit ten components afterwards; here it is fitted as training goes on).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

COMPONENTS = 16
# Numbers of z that choose the component.
CHOOSING = 1
# A component stands for so many codes at least.
LEAST_CODES = 12
# Of each class, the codes of late.
KEPT_CODES = 512
# Batches of codes between two fits, and rounds of each.
FIT_EVERY, ROUNDS = 64, 10
# No z lies beyond; packages hold no infinite numbers.
FAR = 100.0
# What keeps covariances from being singular.
LEAST_VARIANCE = 1e-3
VARIANCE_KEEP = 0.99


class MixturePrior(nn.Module):
    """From normal z ``[n, latent]`` and ``class_weights`` ``[n, classes]`` to codes ``[n, latent]``.

    The first number of z chooses the component, the largest for 0 and smaller ones the farther out; the others say
    where in it the code lies, by a covariance that all components of a class share. So z that are cut off leave the
    most usual components, and the least far from their means. Blended classes have blended codes.

    A new one hands z on, and so does a class of which no codes were seen.
    """

    codes: Tensor
    seen: Tensor
    batches: Tensor
    variance: Tensor
    means: Tensor
    bounds: Tensor
    roots: Tensor

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.zeros(classes, KEPT_CODES, latent))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("variance", torch.ones(classes, latent))
        self.register_buffer("means", torch.zeros(classes, COMPONENTS, latent))
        self.register_buffer("bounds", torch.full((classes, COMPONENTS - 1), FAR))
        self.register_buffer("roots", torch.eye(latent).repeat(classes, 1, 1))

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        beyond = (z[:, :CHOOSING, None] > self.bounds).to(z.dtype)  # [n, classes, COMPONENTS - 1]
        steps = self.means[:, 1:] - self.means[:, :-1]
        means = self.means[:, 0] + (beyond[:, :, None] @ steps)[:, :, 0]  # [n, classes, latent]
        root = (class_weights @ self.roots.flatten(1)).reshape(-1, *self.roots.shape[1:])
        codes: Tensor = (class_weights[:, None] @ means)[:, 0] + (root @ z[:, :, None])[:, :, 0]
        return codes

    def kind_of(self, z: Tensor, label: int) -> Tensor:
        """Number ``[n]`` of the component of class ``label`` that each of z ``[n, latent]`` chooses."""
        return (z[:, :CHOOSING] > self.bounds[label]).sum(dim=1)

    def learn(self, mean: Tensor, log_variance: Tensor, labels: Tensor) -> None:
        """Remember what an encoder answered, ``[n, latent]`` each, to pictures of classes ``labels`` ``[n]``."""
        with torch.no_grad():
            seen, places = self.seen.tolist(), []
            for label in labels.tolist():
                places.append(seen[label] % KEPT_CODES)
                seen[label] += 1
            rows = labels.to(self.codes.device)
            self.codes[rows, torch.tensor(places, device=rows.device)] = mean.detach().float()
            counts = torch.bincount(rows, minlength=len(self.seen))[:, None]
            total = torch.zeros_like(self.variance).index_add_(0, rows, log_variance.detach().float().exp())
            self.variance.lerp_(total / counts.clamp(min=1), 1 - VARIANCE_KEEP**counts)
            self.seen.copy_(torch.tensor(seen))
            self.batches += 1
            if int(self.batches) % FIT_EVERY == 0:
                self.fit()

    def fit(self) -> None:
        """Fit the mixture of each class to the codes that are remembered; the same for the same codes."""
        for label, seen in enumerate(self.seen.tolist()):
            count = min(seen, KEPT_CODES)
            if count >= LEAST_CODES:
                self._fit_class(label, self.codes[label, :count].double().cpu(), self.variance[label].double().cpu())

    def _fit_class(self, label: int, codes: Tensor, variance: Tensor) -> None:
        # Distances in units of how sure the encoder is, so that numbers that say nothing do not count.
        member = _heaps(codes / variance.sqrt(), min(COMPONENTS, len(codes) // LEAST_CODES))
        shares = torch.bincount(member).double() / len(codes)
        means = torch.stack([codes[member == k].mean(dim=0) for k in range(len(shares))])
        order = _from_the_middle(shares)
        self.means[label] = means[order[-1]]
        self.means[label, : len(order)] = means[order]
        self.bounds[label] = FAR
        self.bounds[label, : len(order) - 1] = torch.special.ndtri(shares[order].cumsum(dim=0)[:-1])
        within = codes - means[member]
        values, vectors = torch.linalg.eigh(within.t() @ within / len(codes) + torch.diag(variance))
        root = vectors * values.clamp(min=LEAST_VARIANCE).sqrt()
        root[:, :CHOOSING] = 0  # of the least variance: the first number of z has chosen the component
        self.roots[label] = root


def _heaps(places: Tensor, count: int) -> Tensor:
    """k-means: for each of ``places`` ``[n, latent]`` the number of its heap, of ``count`` or fewer, none empty.

    It starts from places drawn by their distance to those before (k-means++, Arthur and Vassilvitskii 2007).
    """
    rng = torch.Generator().manual_seed(count)
    means = places[torch.randint(len(places), (1,), generator=rng)]
    while len(means) < count:
        nearest = torch.cdist(places, means).amin(dim=1).square()
        if not nearest.any():
            break
        means = torch.cat([means, places[torch.multinomial(nearest, 1, generator=rng)]])
    for _ in range(ROUNDS):
        member = torch.cdist(places, means).argmin(dim=1)
        filled = torch.bincount(member) > 0
        member = (filled.cumsum(dim=0) - 1)[member]
        means = torch.stack([places[member == k].mean(dim=0) for k in range(int(filled.sum()))])
    return member


def _from_the_middle(shares: Tensor) -> Tensor:
    """Order ``[k]`` with the largest share in the middle and smaller ones to both sides."""
    falling = shares.argsort(descending=True, stable=True)
    return torch.cat([falling[1::2].flip(0), falling[0::2]])
