"""What an encoder's codes are like, class by class, to draw new ones that its generator knows; torch only.

A generator that rebuilds from codes knows the codes it was shown, and a normal distribution is only roughly theirs,
however hard it is pulled there. So their means and covariances are kept as training goes on, and samples are drawn from
those (Ghosh et al. 2020, regularised autoencoders, who fit them afterwards).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Of a class's moments at each of its codes: about the last hundred count.
KEEP = 0.99
# Share of the covariance over all classes, since a class may have fewer models than a code has numbers.
POOLED = 0.2
# And of the normal distribution, or there might be no root.
NORMAL = 1e-3


class LatentPrior(nn.Module):
    """From normal z ``[n, latent]`` and ``class_weights`` ``[n, classes]`` to codes ``[n, latent]``.

    A new one hands z on. Shorter z give codes nearer to the mean of their class; blended classes have blended moments.
    """

    mean: Tensor
    second: Tensor

    def __init__(self, classes: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes, latent))
        self.register_buffer("second", torch.eye(latent).repeat(classes, 1, 1))
        self.fixed: Tensor | None
        self.register_buffer("fixed", None, persistent=False)  # once baked; it moves with the network

    def bake(self) -> None:
        """Make the roots constants, for export."""
        self.fixed = self.roots()

    def learn(self, codes: Tensor, labels: Tensor) -> None:
        """Move the moments of the classes ``labels`` ``[n]`` towards those of ``codes`` ``[n, latent]``."""
        with torch.no_grad():
            for code, label in zip(codes.detach().float(), labels.tolist(), strict=True):
                self.mean[label].lerp_(code, 1 - KEEP)
                self.second[label].lerp_(torch.outer(code, code), 1 - KEEP)

    def roots(self) -> Tensor:
        """Lower triangles ``[classes, latent, latent]`` whose products with themselves are the covariances."""
        if self.fixed is not None:
            return self.fixed
        own = self.second - self.mean[:, :, None] * self.mean[:, None, :]
        mixed = torch.lerp(own, own.mean(dim=0, keepdim=True), POOLED)
        mixed = torch.lerp(mixed, torch.eye(mixed.shape[1], device=mixed.device), NORMAL)
        # In double precision: a difference of moments may fall a rounding short of having a root.
        root: Tensor = torch.linalg.cholesky(mixed.double()).float()
        return root

    def forward(self, z: Tensor, class_weights: Tensor) -> Tensor:
        return draw(z, class_weights, self.mean, self.roots())


def draw(z: Tensor, class_weights: Tensor, mean: Tensor, roots: Tensor) -> Tensor:
    """Codes of z; ``mean`` ``[classes, latent]`` and ``roots`` are those of a ``LatentPrior``."""
    root = (class_weights @ roots.flatten(1)).reshape(-1, *roots.shape[1:])
    codes: Tensor = class_weights @ mean + (root @ z[:, :, None])[:, :, 0]
    return codes
