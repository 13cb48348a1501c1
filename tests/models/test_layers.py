"""Building blocks on a torus: rolling the input rolls the output, gradients are right, baking changes nothing."""

import math

import pytest
import torch
from torch.nn import functional

from assetgen.models import layers
from assetgen.models.layers import (
    Conv,
    Dense,
    DoublingConv,
    ModulatedConv,
    doubled_by_convolution,
    upsample,
    wrap_pad,
)

SIZES = [(4, 4), (5, 8), (6, 3), (1, 1)]


def random(*shape, seed=9, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def roll(x, rows, columns):
    return torch.roll(x, (rows, columns), dims=(2, 3))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3])
def test_wrapped_convolution_commutes_with_rolling(size, kernel):
    conv, x = Conv(3, 5, kernel, wrap=True), random(2, 3, *size)
    with torch.no_grad():
        assert conv(x).shape == (2, 5, *size)
        assert (conv(roll(x, 2, 1)) - roll(conv(x), 2, 1)).abs().max() <= 1e-6


def test_a_zero_padded_convolution_does_not():
    conv, x = Conv(3, 5, 3, wrap=False), random(2, 3, 6, 6)
    with torch.no_grad():
        assert (conv(roll(x, 2, 1)) - roll(conv(x), 2, 1)).abs().max() > 0.1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_commutes_with_rolling(size, demodulate):
    conv = ModulatedConv(3, 5, 3, 4, demodulate=demodulate, noise=True)
    torch.nn.init.normal_(conv.noise_strength)
    x, w, noise = random(2, 3, *size), random(2, 4), random(2, 1, *size, seed=1)
    with torch.no_grad():
        rolled = conv(roll(x, 1, 2), w, roll(noise, 1, 2))
        assert (rolled - roll(conv(x, w, noise), 1, 2)).abs().max() <= 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_upsampling_commutes_with_rolling(size):
    x = random(2, 3, *size)
    assert upsample(x).shape == (2, 3, 2 * size[0], 2 * size[1])
    assert torch.equal(upsample(roll(x, 1, 2)), roll(upsample(x), 2, 4))


def test_upsampling_interpolates_across_the_border():
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 16.0
    y = upsample(x)
    assert y.sum() == pytest.approx(4 * 16)
    assert (y[0, 0, 0, 0], y[0, 0, -1, 0], y[0, 0, 0, -1], y[0, 0, -1, -1]) == (9, 3, 3, 1)


@pytest.mark.parametrize("size", [(2, 2), (4, 3), (1, 5)])
def test_the_written_gradient_of_upsampling_is_the_true_one(size):
    x = random(2, 3, *size, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(upsample, (x,))
    weights = random(2, 3, 2 * size[0], 2 * size[1], seed=1, dtype=torch.float64)
    (own,) = torch.autograd.grad((upsample(x) * weights).sum(), x)
    (automatic,) = torch.autograd.grad((layers._doubled(x) * weights).sum(), x)
    assert torch.allclose(own, automatic, rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", [1, 2])
def test_wrap_padding_is_circular_padding(margin):
    x = random(2, 3, 4, 6)
    assert torch.equal(wrap_pad(x, margin), functional.pad(x, [margin] * 4, mode="circular"))
    assert torch.equal(wrap_pad(x.requires_grad_(True), margin), functional.pad(x, [margin] * 4, mode="circular"))


@pytest.mark.parametrize("size", [(2, 2), (4, 3), (1, 5)])
def test_the_written_gradient_of_wrapping_is_the_true_one(size):
    x = random(2, 2, *size, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: wrap_pad(x, 1), (x,))
    weights = random(2, 2, size[0] + 2, size[1] + 2, seed=1, dtype=torch.float64)
    (own,) = torch.autograd.grad((wrap_pad(x, 1) * weights).sum(), x)
    (automatic,) = torch.autograd.grad((layers._wrapped(x, 1) * weights).sum(), x)
    assert torch.allclose(own, automatic, rtol=0, atol=1e-12)


def test_a_second_derivative_is_refused_rather_than_wrong():
    x = random(1, 1, 4, 4).requires_grad_(True)
    (gradient,) = torch.autograd.grad(wrap_pad(x, 1).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def deactivate(y):
    """What ``activate`` was given."""
    return torch.where(y < 0, y / layers.LEAK, y) / layers.GAIN


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_demodulation_gives_unit_variance_whatever_the_style(scale):
    conv = ModulatedConv(64, 64, 3, 4)
    with torch.no_grad():
        y = deactivate(conv(random(4, 64, 16, 16), scale * random(4, 4, seed=2)))
    assert y.var(dim=(1, 2, 3)).numpy() == pytest.approx(1, abs=0.15)


def test_scaling_activations_is_modulating_weights():
    """The form of StyleGAN2: weights multiplied by the style, then normalised per output channel."""
    conv, x, w = ModulatedConv(3, 5, 3, 4), random(1, 3, 6, 6), random(1, 4, seed=2)
    with torch.no_grad():
        weight = conv.weight * conv.scale * conv.affine(w)[0][None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8)
        expected = (
            functional.conv2d(functional.pad(x, [1] * 4, mode="circular"), weight) + conv.bias[None, :, None, None]
        )
        assert (conv(x, w) - layers.activate(expected)).abs().max() < 1e-5


def test_noise_reaches_the_output_by_its_strength():
    conv, x, w, noise = ModulatedConv(3, 5, 3, 4, noise=True), random(1, 3, 6, 6), random(1, 4), random(1, 1, 6, 6)
    with torch.no_grad():
        silent = deactivate(conv(x, w, noise))
        conv.noise_strength.copy_(torch.arange(5.0))
        added = deactivate(conv(x, w, noise)) - silent
    assert torch.allclose(added, torch.arange(5.0)[None, :, None, None] * noise, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (lambda: Dense(6, 4, bias=1.0, lr_scale=0.01), (random(3, 6),)),
        (lambda: Conv(3, 5, 3, wrap=True), (random(2, 3, 4, 5),)),
        (lambda: ModulatedConv(3, 5, 3, 4), (random(2, 3, 4, 5), random(2, 4))),
        (lambda: ModulatedConv(3, 5, 1, 4, demodulate=False), (random(2, 3, 4, 5), random(2, 4))),
    ],
    ids=["dense", "conv", "modulated", "to colour"],
)
def test_baking_changes_no_output(layer, inputs):
    module = layer()
    with torch.no_grad():
        before = module(*inputs)
        for part in module.modules():
            part.bake()
        after = module(*inputs)
        for part in module.modules():
            part.bake()
        twice = module(*inputs)
    assert (after - before).abs().max() < 1e-5
    assert torch.equal(after, twice)


def test_activations_keep_the_second_moment():
    x = random(100_000)
    assert layers.activate(x).square().mean() == pytest.approx(1 + layers.LEAK**2, abs=0.03)


def test_a_fresh_layer_keeps_unit_variance():
    with torch.no_grad():
        assert Dense(256, 256)(random(64, 256)).var() == pytest.approx(1, abs=0.1)
        assert Conv(64, 64, 3, wrap=True)(random(2, 64, 16, 16)).var() == pytest.approx(1, abs=0.1)
    assert pytest.approx(math.sqrt(2)) == layers.GAIN


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(2, 3), (5, 4), (1, 1)])
def test_doubling_is_a_convolution(channels, size):
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(doubled_by_convolution(x), upsample(x))


@pytest.mark.parametrize("size", [(2, 3), (7, 4), (1, 1)])
def test_a_doubling_convolution_is_one_convolution_of_the_small_picture_once_it_is_baked(size):
    torch.manual_seed(6)
    layer = DoublingConv(3, 5)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        wanted = layer(x)
        layer.bake()
        torch.testing.assert_close(layer(x), wanted)
        layer.bake()
        torch.testing.assert_close(layer(x), wanted)
    assert wanted.shape == (2, 5, 2 * size[0], 2 * size[1])


def test_graphs_enlarge_few_channels_by_convolution():
    class Enlarge(torch.nn.Module):
        def forward(self, x):
            return upsample(x)

    ops = {}
    for channels in (1, 8):
        program = torch.export.export(Enlarge(), (torch.zeros(1, channels, 4, 4),))
        ops[channels] = " ".join(str(node.target) for node in program.graph.nodes)
    assert "conv2d" in ops[1]
    assert "upsample" not in ops[1]
    assert "upsample" in ops[8]


def test_what_was_baked_moves_with_the_network():
    layer = ModulatedConv(3, 5, 3, 4, noise=True)
    layer.bake()
    keys = set(layer.state_dict())
    wide = layer.double()
    assert wide.energy.dtype == torch.float64
    assert keys == set(ModulatedConv(3, 5, 3, 4, noise=True).state_dict()), "checkpoints are as they were"
