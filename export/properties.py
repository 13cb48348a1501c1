"""What an artist would call the look of a picture, as numbers that can be differentiated; torch only."""

from __future__ import annotations

import torch
from torch import Tensor

# Name of a property, and the unit it is given in.
PROPERTIES = {
    "brightness": "L*",
    "warmth": "b*",
    "tint": "a*",
    "saturation": "C*",
    "contrast": "factor of 2 in the deviation of L*",
    "fineness": "octaves of the mean frequency of L*",
}


def measure(pictures: Tensor) -> Tensor:
    """Properties ``[n, 6]`` of sRGB-coded pictures ``[n, 3, h, w]`` about [-1, 1], in the order of ``PROPERTIES``.

    Brightness, warmth, tint and saturation are means of the CIE L*, b*, a* and chroma. Fineness is the centre of the
    spectrum of L* over the logarithm of frequency: layout and grain in one number, whatever their contrast.
    """
    lightness, a, b = lab(pictures).unbind(1)
    chroma = (a.square() + b.square() + 1e-6).sqrt()
    contrast = lightness.std(dim=(1, 2)).clamp(min=0.1).log2()
    means = (picture.mean(dim=(1, 2)) for picture in (lightness, b, a, chroma))
    return torch.stack([*means, contrast, _fineness(lightness)], dim=1)


def lab(pictures: Tensor) -> Tensor:
    """CIE L*a*b* (D65) of sRGB-coded pictures ``[n, 3, h, w]``; values beyond [-1, 1] are clipped."""
    coded = (pictures.float().clamp(-1, 1) + 1) / 2
    linear = torch.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1; the rows divided by the white point, which so becomes (1, 1, 1).
    matrix = linear.new_tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = torch.einsum("ij,njhw->nihw", matrix / matrix.sum(dim=1, keepdim=True), linear)
    f = torch.where(x > 216 / 24389, x.clamp(min=1e-8) ** (1 / 3), (24389 / 27 * x + 16) / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def _fineness(lightness: Tensor) -> Tensor:
    height, width = lightness.shape[1:]
    centred = lightness - lightness.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.rfft2(centred).abs().square()
    rows, columns = torch.fft.fftfreq(height, device=power.device), torch.fft.rfftfreq(width, device=power.device)
    frequency = (rows[:, None].square() + columns.square()).sqrt().clamp(min=1 / max(height, width))
    # Half of the spectrum is not stored; what is stored once stands for two.
    twice = torch.full((len(columns),), 2.0, device=power.device)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power = power * twice
    centre: Tensor = (power * frequency.log2()).sum(dim=(1, 2)) / power.sum(dim=(1, 2)).clamp(min=1e-6)
    return centre
