"""The two halves of a modulated layer with their gradients written out, for eager runs; torch only.

Autograd takes such a layer apart into a dozen passes over full tensors, which cost a fifth of a training step on a
processor. Here an input is scaled while it is wrapped, and what follows the convolution happens in place. The gradient
of a wrapped convolution by its input is itself one, with the filters turned. Compilers and exporters get the plain form
(``layers``), whose operators they know.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable


def scaled_convolution(x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
    """Scale the channels of ``x`` ``[n, i, h, w]`` by ``style`` ``[n, i]`` and convolve on the torus.

    The result is of autocast's type where that is on.

    Args:
        weight: ``[o, i, k, k]``, k odd and 3 or more; half of k must not exceed h or w.
    """
    made: Tensor = _ScaledConvolution.apply(x, style, weight)  # type: ignore[no-untyped-call]
    return made


def finished(
    y: Tensor, gain: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, leak: float
) -> Tensor:
    """Leaky ReLU of ``y`` ``[n, o, h, w]`` times ``gain`` ``[n, o]`` plus ``bias`` ``[o]`` plus noise by strength.

    Args:
        noise: ``[n, 1, h, w]``; strength: ``[o]``; both or neither.
    """
    made: Tensor = _Finished.apply(y, gain, bias, noise, strength, leak)  # type: ignore[no-untyped-call]
    return made


def _wrapped(x: Tensor, margin: int, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``x``, times ``scale`` ``[n, c, 1, 1]`` if there is one, continued periodically: one pass and its border."""
    n, c, h, w = x.shape
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    padded = torch.empty((n, c, h + 2 * margin, w + 2 * margin), dtype=dtype, device=x.device, memory_format=layout)
    inner = padded[:, :, margin:-margin, margin:-margin]
    if scale is None:
        inner.copy_(x)
    else:
        torch.mul(x, scale, out=inner)
    padded[:, :, :margin, margin:-margin] = inner[:, :, -margin:]
    padded[:, :, -margin:, margin:-margin] = inner[:, :, :margin]
    padded[:, :, :, :margin] = padded[:, :, :, w : w + margin]
    padded[:, :, :, -margin:] = padded[:, :, :, margin : 2 * margin]
    return padded


class _ScaledConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, style: Tensor, weight: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        padded = _wrapped(x, weight.shape[2] // 2, style[:, :, None, None], dtype)
        filters = weight.to(dtype)
        ctx.save_for_backward(x, style, padded, filters)
        ctx.weight_dtype = weight.dtype
        return F.conv2d(padded, filters)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, style, padded, filters = ctx.saved_tensors
        by_x = by_style = by_weight = None
        if ctx.needs_input_grad[2]:
            by_weight = torch.ops.aten.convolution_backward(
                gradient, padded, filters, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1].to(ctx.weight_dtype)
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            around = _wrapped(gradient, filters.shape[2] // 2, None, gradient.dtype)
            by_scaled = F.conv2d(around, filters.flip(2, 3).transpose(0, 1))
            by_style = (by_scaled * x).sum(dim=(2, 3)).to(style.dtype)
            by_x = by_scaled.mul_(style[:, :, None, None]).to(x.dtype)
        return by_x, by_style, by_weight


class _Finished(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gain: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, leak: float
    ) -> Tensor:
        made = torch.addcmul(bias.to(y.dtype)[None, :, None, None], y, gain.to(y.dtype)[:, :, None, None])
        if noise is not None and strength is not None:
            made.addcmul_(noise.to(y.dtype), strength.to(y.dtype)[None, :, None, None])
        F.leaky_relu_(made, leak)
        ctx.save_for_backward(y, gain, made, noise, strength)
        ctx.leak, ctx.bias_dtype = leak, bias.dtype
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, gain, made, noise, strength = ctx.saved_tensors
        # A leaky ReLU keeps signs, so its result tells its slope.
        raw = torch.ops.aten.leaky_relu_backward(gradient, made, ctx.leak, True)
        by_bias = raw.sum(dim=(0, 2, 3)).to(ctx.bias_dtype)
        by_gain = (raw * y).sum(dim=(2, 3)).to(gain.dtype)
        by_noise = by_strength = None
        if noise is not None:
            by_strength = (raw * noise.to(raw.dtype)).sum(dim=(0, 2, 3)).to(strength.dtype)
            if ctx.needs_input_grad[3]:
                by_noise = (raw * strength.to(raw.dtype)[None, :, None, None]).sum(dim=1, keepdim=True).to(noise.dtype)
        return raw.mul_(gain.to(raw.dtype)[:, :, None, None]), by_gain, by_bias, by_noise, by_strength, None
