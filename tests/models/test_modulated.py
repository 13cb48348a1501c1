"""The written halves of a modulated layer are the plain ones, forwards and backwards, in every precision."""

import pytest
import torch

from assetgen.models.layers import GAIN, LEAK, ModulatedConv
from assetgen.models.modulated import finished, scaled_convolution

SIZES = [(2, 2), (4, 3), (1, 5)]


def random(*shape, seed=9, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(monkeypatch):
    """What a compiler is given."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)


def run(conv, x, w, noise, precision="fp32"):
    """Output and gradients of a weighted sum of it by input, style and every parameter."""
    x, w = x.clone().requires_grad_(True), w.clone().requires_grad_(True)
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        y = conv(x, w, noise)
    (y.float() * random(*y.shape, seed=3, dtype=torch.float32)).sum().backward()
    return [y.detach().float(), x.grad, w.grad, *(parameter.grad for parameter in conv.parameters())]


@pytest.mark.parametrize("size", SIZES)
def test_the_written_gradient_of_the_convolution_is_the_true_one(size):
    inputs = random(2, 3, *size), random(2, 3, seed=1), random(4, 3, 3, 3, seed=2)
    assert torch.autograd.gradcheck(scaled_convolution, [entry.requires_grad_(True) for entry in inputs])


@pytest.mark.parametrize("with_noise", [True, False])
def test_the_written_gradient_of_what_follows_is_the_true_one(with_noise):
    inputs = [random(2, 3, 4, 2), random(2, 3, seed=1), random(3, seed=2)]
    inputs += [random(2, 1, 4, 2, seed=3), random(3, seed=4)] if with_noise else []
    missing = [] if with_noise else [None, None]
    leaves = [entry.requires_grad_(True) for entry in inputs]
    assert torch.autograd.gradcheck(lambda *given: finished(*given, *missing, 0.2), leaves)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.03)])
def test_eager_layers_are_those_that_compilers_see(monkeypatch, noisy, demodulate, precision, tolerance):
    torch.manual_seed(0)
    conv = ModulatedConv(16, 8, 3, 4, demodulate=demodulate, noise=True)
    torch.nn.init.normal_(conv.noise_strength)
    x, w, noise = (random(*shape, dtype=torch.float32) for shape in ((3, 16, 8, 6), (3, 4), (3, 1, 8, 6)))
    x = x.contiguous(memory_format=torch.channels_last)
    given = conv, x, w, noise if noisy else None, precision
    eager = run(*given)
    plain(monkeypatch)
    for own, expected in zip(eager, run(*given), strict=True):
        assert (own is None) == (expected is None)
        if own is not None:
            assert own.dtype == expected.dtype
            assert (own - expected).abs().max() <= tolerance * (1 + expected.abs().max())


def test_layout_in_memory_changes_nothing_but_rounding():
    x, style, weight = random(2, 3, 4, 6), random(2, 3, seed=1), random(5, 3, 3, 3, seed=2)
    last = scaled_convolution(x.contiguous(memory_format=torch.channels_last), style, weight)
    assert torch.allclose(scaled_convolution(x, style, weight), last, rtol=0, atol=1e-12)
    assert last.is_contiguous(memory_format=torch.channels_last)


def test_a_second_derivative_is_refused_rather_than_wrong():
    y = random(1, 2, 3, 3).requires_grad_(True)
    made = finished(y, random(1, 2), random(2), None, None, LEAK) * GAIN
    (gradient,) = torch.autograd.grad(made.square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
