"""The classifier that generated textures are judged by: small, convolutional, blind to position; torch only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from assetgen import check


@dataclass(frozen=True)
class ClassifierConfig:
    """Size of a classifier.

    Attributes:
        classes: number of classes.
        widths: channels at half the crop's resolution, then after each halving.
        dropout: share of the features hidden at each training step.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 96, 128)
    dropout: float = 0.3

    @property
    def features(self) -> int:
        """Dimension of the features."""
        return 2 * self.widths[-1]


class Block(nn.Module):
    """Residual block of two convolutions (He et al. 2016) that halves the resolution if ``stride`` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        shortcut = F.avg_pool2d(x, self.stride) if self.stride > 1 else x
        return F.relu(y + self.skip(shortcut))


class Classifier(nn.Module):
    """Scores crops ``[n, 3, h, w]`` in [-1, 1]; returns ``[n, classes]`` logits.

    Features are mean and deviation of the last channels over the picture: a texture is told by how much of what there
    is, not by where.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        self.enter = nn.Conv2d(12, first, 3, padding=1, bias=False)
        self.enter_norm = nn.BatchNorm2d(first)
        inputs = (first, *config.widths[:-1])
        self.blocks = nn.ModuleList(
            Block(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(zip(inputs, config.widths, strict=True))
        )
        self.score = nn.Linear(config.features, config.classes)

    @property
    def stride(self) -> int:
        """Height and width of crops must be multiples of this."""
        return int(2 ** len(self.config.widths))

    def features(self, x: Tensor) -> Tensor:
        """Features ``[n, features]``, 0 or above."""
        check.shape(x, "n 3 h w", "crops")
        x = F.relu(self.enter_norm(self.enter(F.pixel_unshuffle(x, 2))))
        for block in self.blocks:
            x = block(x)
        mean = x.mean(dim=(2, 3))
        deviation = (x.var(dim=(2, 3), unbiased=False) + 1e-6).sqrt()
        return torch.cat([mean, deviation], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(self.features(x), self.config.dropout, self.training)
        logits: Tensor = self.score(hidden)
        return logits
