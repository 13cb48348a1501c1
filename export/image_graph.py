"""Networks from picture to picture as they are served: values in [0, 1], norms folded, how far they see; torch only."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from assetgen.models.cyclegan import STRIDE, Affine, CycleganGenerator, ResidualBlock
from assetgen.models.layers import wrap_pad
from assetgen.models.parts import EnlargingConv
from assetgen.models.stargan import AdaptiveBlock, AdaptiveNorm, StarganGenerator

OUTPUT = "base_color"


class StyleGraph(nn.Module):
    """From pictures ``[n, 3, h, w]`` and, with ``classes``, class weights ``[n, classes]`` to one output of that shape.

    All in [0, 1], sRGB-coded; h and w are multiples of ``stride``.
    """

    outputs: Sequence[str] = (OUTPUT,)
    stride = STRIDE

    def __init__(self, generator: CycleganGenerator | StarganGenerator, classes: int = 0) -> None:
        super().__init__()
        self.generator = copy.deepcopy(generator).eval().requires_grad_(False)
        self.classes = classes

    def forward(self, image: Tensor, *class_weights: Tensor) -> list[Tensor]:
        """Return the picture in its new look."""
        made: Tensor = self.generator(image * 2 - 1, *class_weights)
        return [(made * 0.5 + 0.5).clamp(0, 1)]

    @property
    def is_local(self) -> bool:
        """Whether no layer takes statistics of the whole picture, so that it can be computed in windows."""
        return not any(isinstance(module, nn.InstanceNorm2d) for module in self.modules())

    @property
    def halo_px(self) -> int:
        """How far an output pixel can see by convolutions, rounded up to whole strides.

        7x7 at both ends, 3x3 at full, half and quarter resolution, two a block; a pixel that was enlarged by repetition
        stands up to ``STRIDE - 1`` from where its features were computed.
        """
        blocks = self.generator.config.blocks
        reach = 3 + 1 + 2 + 2 * STRIDE * blocks + 2 + 1 + 3 + STRIDE - 1
        return -(-reach // STRIDE) * STRIDE

    def baked(self) -> StyleGraph:
        """A copy for export: batch norms folded into the convolutions before them, pictures continued ahead."""
        graph = copy.deepcopy(self)
        if isinstance(graph.generator, CycleganGenerator):
            fold_norms(graph.generator)
        else:
            fold_adaptive_norms(graph.generator)
        if self.is_local and self.generator.config.wrap:
            continue_ahead(graph.generator)
        return graph


def fold_norms(generator: CycleganGenerator) -> None:
    """Fold every norm that is constant in use into the convolution before it."""
    convs = [generator.enter, *generator.downs, *generator.ups]
    for number, conv in enumerate(convs):
        generator.norms[number] = _folded(conv, generator.norms[number])
    for block in generator.blocks:
        assert isinstance(block, ResidualBlock)  # noqa: S101 -- for mypy
        block.norm = _folded(block.conv, block.norm)
        block.second_norm = _folded(block.second_conv, block.second_norm)


def fold_adaptive_norms(generator: StarganGenerator) -> None:
    """The same, but for what the look decides, which stays behind its norm."""
    for number, conv in enumerate([generator.enter, *generator.downs]):
        generator.norms[number] = _folded(conv, generator.norms[number])
    for block in generator.blocks:
        assert isinstance(block, AdaptiveBlock)  # noqa: S101 -- for mypy
        block.norm.norm = _folded(block.conv, block.norm.norm)
        block.second_norm.norm = _folded(block.second_conv, block.second_norm.norm)
    for conv, adaptive in zip(generator.ups, generator.up_norms, strict=True):
        assert isinstance(adaptive, AdaptiveNorm)  # noqa: S101 -- for mypy
        adaptive.norm = _folded(conv, adaptive.norm)


class EnlargedConv(nn.Module):
    """``EnlargingConv`` on the torus as one convolution of 2 x 2 taps, from ``come`` pixels of border to ``leave``.

    Of a picture that is doubled by repetition, 3 x 3 taps see 2 x 2 places. The second pixel of a place sees the same
    two as the first pixel of the next one, so a small picture continued by p gives one continued by 2p - 1.
    """

    def __init__(self, conv: EnlargingConv, come: int, leave: int) -> None:
        super().__init__()
        border = (leave + 2) // 2
        self.margin, self.crop = border - come, 2 * border - 1 - leave
        taps: Tensor = conv.conv.weight.detach()  # type: ignore[operator]
        bias: Tensor | None = conv.conv.bias  # type: ignore[assignment]
        # Which of two places each of three taps sees: of the second pixel of the one before, of the first of the other.
        seen = taps.new_tensor([[[1, 0], [1, 0], [0, 1]], [[1, 0], [0, 1], [0, 1]]])
        weight = torch.einsum("oiuv,aup,bvq->oabipq", taps, seen, seen).flatten(0, 2)
        self.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().repeat_interleave(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """From ``[n, i, h, w]`` to ``[n, o, 2h, 2w]``, borders beside."""
        x = F.conv2d(wrap_pad(x, self.margin) if self.margin else x, self.weight, self.bias)
        x = F.pixel_shuffle(x, 2)
        return x[:, :, self.crop : -self.crop, self.crop : -self.crop] if self.crop else x


def continue_ahead(generator: CycleganGenerator | StarganGenerator) -> None:
    """Let layers give a border that those after them need, in place of continuing each result anew.

    The copies that continuing takes cost as much as a small convolution. Where norms look at one place alone, a
    convolution of a picture with a wider border gives a result with a border.
    """
    # A halving makes 1 of a border of 3, and nothing of 1.
    generator.enter.margin += 3
    generator.downs = nn.ModuleList(down.conv for down in generator.downs)  # type: ignore[misc]
    for block in generator.blocks:
        block.conv.margin += 1  # type: ignore[operator, union-attr]
        block.second_conv = block.second_conv.conv  # type: ignore[union-attr]
    first, second = generator.ups
    generator.ups = nn.ModuleList([EnlargedConv(first, 0, 2), EnlargedConv(second, 2, 3)])  # type: ignore[arg-type]
    generator.color = generator.color.conv  # type: ignore[assignment]


def example_pictures(n: int, height_px: int, width_px: int, classes: int = 0, seed: int = 0) -> tuple[Tensor, ...]:
    """Inputs of a graph: noise over waves that tile, of another colour in every picture, and blends of classes."""
    rng = torch.Generator().manual_seed(seed)
    rows, columns = (torch.arange(size) * (2 * torch.pi / size) for size in (height_px, width_px))
    waves = torch.sin(2 * rows)[:, None] + torch.cos(3 * columns)[None, :]
    color, depth = torch.rand(2, n, 3, 1, 1, generator=rng)
    pictures = color + 0.25 * depth * waves + 0.1 * torch.randn(n, 3, height_px, width_px, generator=rng)
    inputs = (pictures.clamp(0, 1),)
    if not classes:
        return inputs
    return *inputs, torch.softmax(3 * torch.randn(n, classes, generator=rng), dim=1)


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Fold ``norm`` into the PaddedConv before it if it is constant in use; returns what takes its place."""
    if not isinstance(norm, nn.BatchNorm2d | Affine):
        return norm
    inner = conv.conv
    assert isinstance(inner, nn.Conv2d)  # noqa: S101 -- for mypy
    if isinstance(norm, Affine):
        gain, bias = norm.gain.detach(), norm.bias.detach()
        if inner.bias is not None:
            bias = bias + gain * inner.bias.detach()
        inner.weight = nn.Parameter(inner.weight.detach() * gain[:, None, None, None])
        inner.bias = nn.Parameter(bias)
        return nn.Identity()
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018 -- for mypy
    inner.weight, fused = fuse_conv_bn_weights(
        inner.weight, inner.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    inner.bias = fused
    return nn.Identity()
