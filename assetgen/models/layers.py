"""Building blocks that wrap around: convolution, resampling and modulation on a torus; torch only.

Every block commutes exactly with rolling its spatial input, so a network made of them is tileable by construction. All
of them export to ONNX with constant weights and free batch, height and width: padding is slice and concat, since
several runtimes refuse ``Pad(mode=wrap)``; modulation scales activations, since weights per sample fix the batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from assetgen.models.modulated import finished, scaled_convolution

LEAK = 0.2
FEW = 4  # channels
GAIN = math.sqrt(2.0)
# What the taps of a kernel before, at and behind a pixel of a doubled picture see of three pixels of the small one:
# of even pixels first, then of odd ones.
_SEEN = [
    [[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.0, 0.75, 0.25]],
    [[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]],
]


def wrap_pad(x: Tensor, margin: int) -> Tensor:
    """Continue ``[n, c, h, w]`` periodically by ``margin`` on each side, which must not exceed h or w."""
    if torch.is_grad_enabled() and x.requires_grad:
        padded: Tensor = _WrapPad.apply(x, margin)  # type: ignore[no-untyped-call]
        return padded
    return _wrapped(x, margin)


def _wrapped(x: Tensor, margin: int) -> Tensor:
    x = torch.cat([x[:, :, -margin:], x, x[:, :, :margin]], dim=2)
    return torch.cat([x[:, :, :, -margin:], x, x[:, :, :, :margin]], dim=3)


class _WrapPad(torch.autograd.Function):
    """Wrapping with its gradient written out: autograd's own fills and adds six full tensors, a fifth of a step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, margin: int) -> Tensor:
        ctx.margin = margin
        return _wrapped(x, margin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        m = ctx.margin
        columns = gradient[:, :, :, m:-m].clone()
        columns[:, :, :, -m:] += gradient[:, :, :, :m]
        columns[:, :, :, :m] += gradient[:, :, :, -m:]
        rows = columns[:, :, m:-m].clone()
        rows[:, :, -m:] += columns[:, :, :m]
        rows[:, :, :m] += columns[:, :, -m:]
        return rows, None


def upsample(x: Tensor) -> Tensor:
    """Double height and width by bilinear interpolation on the torus."""
    if torch.is_grad_enabled() and x.requires_grad:
        doubled: Tensor = _Upsample.apply(x)  # type: ignore[no-untyped-call]
        return doubled
    return _doubled(x)


def _doubled(x: Tensor) -> Tensor:
    if torch.compiler.is_exporting() and x.shape[1] <= FEW:
        return doubled_by_convolution(x)
    x = F.interpolate(_wrapped(x, 1), scale_factor=2.0, mode="bilinear", align_corners=False)
    return x[:, :, 2:-2, 2:-2]


def doubled_by_convolution(x: Tensor) -> Tensor:
    """``upsample`` as the convolution that it is, with the four pixels of each place as its channels.

    For a few channels runtimes enlarge several times slower than they convolve (OpenVINO: 0.9 ms for one of 256 px).
    """
    channels = x.shape[1]
    seen = x.new_tensor(_SEEN)[:, 1]  # the middle tap alone
    places = (seen[:, None, :, None] * seen[None, :, None, :]).reshape(1, 4, 1, 3, 3)
    each = torch.eye(channels, dtype=x.dtype, device=x.device).reshape(channels, 1, channels, 1, 1)
    return F.pixel_shuffle(F.conv2d(_wrapped(x, 1), (each * places).flatten(0, 1)), 2)


class _Upsample(torch.autograd.Function):
    """Doubling with its gradient as the convolution that it is: autograd's own takes twenty times as long on a CPU."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return _doubled(x)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        channels = gradient.shape[1]
        taps = gradient.new_tensor([0.25, 0.75, 0.75, 0.25])
        weight = (taps[:, None] * taps).expand(channels, 1, 4, 4)
        return F.conv2d(_wrapped(gradient, 1), weight, stride=2, groups=channels)


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU that keeps the second moment."""
    return F.leaky_relu(x, LEAK) * GAIN


class Dense(nn.Module):
    """Linear layer with equalised learning rate (Karras et al. 2018).

    Args:
        lr_scale: learning rate of this layer relative to the others.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: float = 0.0, lr_scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_scale)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_scale))
        self.scale = lr_scale / math.sqrt(inputs)
        self.lr_scale = lr_scale

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _scaled(self.weight, self.scale), _scaled(self.bias, self.lr_scale))

    def bake(self) -> None:
        """Fold the scales into the parameters, for export; training no longer makes sense afterwards."""
        self.weight.data.mul_(self.scale)
        self.bias.data.mul_(self.lr_scale)
        self.scale = self.lr_scale = 1.0


class Conv(nn.Module):
    """Convolution with equalised learning rate.

    Args:
        wrap: pad periodically; without it the border is not padded at all when ``pad`` is 0, else with zeros.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, wrap: bool, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.wrap = wrap
        self.stride = stride
        self.margin = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(wrap_pad(x, self.margin) if self.wrap and self.margin else x)

    def inside(self, x: Tensor) -> Tensor:
        """The same of a picture that is continued already, where it would be wrapped."""
        padding = 0 if self.wrap else self.margin
        return F.conv2d(x, _scaled(self.weight, self.scale), self.bias, self.stride, padding=padding)

    def bake(self) -> None:
        """Fold the scale into the weight, for export."""
        self.weight.data.mul_(self.scale)
        self.scale = 1.0

    def absorb(self, gain: float) -> None:
        """Give ``gain`` times what it gave, for export: an activation behind it needs none then."""
        self.weight.data.mul_(gain)
        if self.bias is not None:
            self.bias.data.mul_(gain)


class DoublingConv(Conv):
    """``upsample`` and a convolution of 3 x 3 behind it, on the torus.

    Both are linear. For export they become one convolution of the small picture that answers with the four pixels of
    each place: as many multiplications, and nothing is enlarged (sub-pixel convolution, Shi et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, wrap=True)
        self.baked = False

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self.baked else upsample(x))

    def inside(self, x: Tensor) -> Tensor:
        """See ``Conv``; once it is baked, of the small picture."""
        convolved = super().inside(x)
        return F.pixel_shuffle(convolved, 2) if self.baked else convolved

    def bake(self) -> None:
        """Fold scale and doubling into the weight, for export; once is enough."""
        super().bake()
        if self.baked:
            return
        seen = self.weight.new_tensor(_SEEN)
        weight = torch.einsum("oiuv,aup,bvq->oabipq", self.weight.detach(), seen, seen).flatten(0, 2)
        self.weight = nn.Parameter(weight.contiguous())
        if self.bias is not None:
            self.bias = nn.Parameter(self.bias.detach().repeat_interleave(4))
        self.baked = True


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style and whose output is brought back to unit variance.

    StyleGAN2 (Karras et al. 2020) in the scale-the-activations form: algebraically the same, with a constant weight.

    Args:
        demodulate: normalise the output and ``activate`` it; off for the layers that write colours.
        noise: add a learned amount of a noise map.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, style: int, *, demodulate: bool = True, noise: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = Dense(style, inputs, bias=1.0)
        self.noise_strength = nn.Parameter(torch.zeros(outputs)) if noise else None
        self.scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.margin = kernel // 2
        self.demodulate = demodulate
        self.energy: Tensor | None
        self.register_buffer("energy", None, persistent=False)  # once baked; it moves with the network

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        style = self.affine(w)
        weight = _scaled(self.weight, self.scale)
        eager = not torch.compiler.is_compiling()
        if eager and self.margin:
            x = scaled_convolution(x, style, weight)
        else:
            x = x * style[:, :, None, None]
            x = F.conv2d(wrap_pad(x, self.margin) if self.margin else x, weight)
        bias = self.bias.to(x.dtype)[None, :, None, None]
        if not self.demodulate:
            return x + bias
        # The gain of the activation, folded into factors that are small: a pass over the picture less, and one back.
        energy = self.energy if self.energy is not None else weight.float().square().sum(dim=(2, 3))
        gain = torch.rsqrt(style.float().square() @ energy.t() + 1e-8) * GAIN
        strength = None if self.noise_strength is None or noise is None else self.noise_strength * GAIN
        if eager:
            return finished(x, gain, self.bias * GAIN, None if strength is None else noise, strength, LEAK)
        x = x * gain[:, :, None, None].to(x.dtype)
        if strength is not None and noise is not None:
            x = torch.addcmul(x, noise.to(x.dtype), strength.to(x.dtype)[None, :, None, None])
        return F.leaky_relu(x + bias * GAIN, LEAK)

    def bake(self) -> None:
        """Fold the scale into the weight and keep the energy of each filter, for export."""
        self.weight.data.mul_(self.scale)
        self.scale = 1.0
        self.energy = self.weight.detach().float().square().sum(dim=(2, 3))


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale
