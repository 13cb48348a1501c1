"""A style for every layer: equal ones paint what one style paints, and each row reaches its own layer only."""

import pytest
import torch

from assetgen.models.texture import TextureConfig, TextureGenerator

CONFIG = TextureConfig(classes=2, latent=16, grid_channels=6, widths=(8, 8, 8), grid_layers=2)
LAYERS = 10  # enter, two layers and their colour, then twice two layers and a colour


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return TextureGenerator(CONFIG).eval().requires_grad_(False)


def spatial(n=2):
    rng = torch.Generator().manual_seed(1)
    grid = torch.randn(n, 6, 4, 4, generator=rng)
    layouts, noises = (
        [torch.randn(n, channels, 4 << i, 4 << i, generator=rng) for i in range(3)] for channels in (8, 1)
    )
    return grid, layouts, noises


def styles(n=2, seed=2):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))


def test_the_layers_come_in_the_order_of_the_computation(generator):
    names = {module: name for name, module in generator.named_modules()}
    expected = ["enter", "stages.0.0", "stages.0.1", "colors.0", "stages.1.0", "stages.1.1", "colors.1"]
    assert [names[layer] for layer in generator.layers] == [*expected, "stages.2.0", "stages.2.1", "colors.2"]


def test_equal_rows_paint_what_one_style_paints(generator):
    w = styles()
    assert torch.equal(
        generator.synthesize(w, *spatial()), generator.synthesize(w[:, None].expand(-1, LAYERS, -1), *spatial())
    )


@pytest.mark.parametrize("row", range(LAYERS))
def test_each_row_is_the_style_of_its_layer(generator, row):
    ws = styles()[:, None].repeat(1, LAYERS, 1)
    ws[:, row] = styles(seed=3)
    seen = []
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1])) for layer in generator.layers]
    generator.synthesize(ws, *spatial())
    for hook in hooks:
        hook.remove()
    assert [torch.equal(w, styles(seed=3)) for w in seen] == [i == row for i in range(LAYERS)]


def test_a_wrong_number_of_rows_is_refused(generator):
    with pytest.raises(ValueError, match=r"w: got shape \(2, 9, 16\), expected \[n 10 16\]"):
        generator.synthesize(styles()[:, None].repeat(1, 9, 1), *spatial())
