"""The networks as wholes: they tile at any size, and listen to class, latent and noise."""

import copy

import pytest
import torch

from assetgen.models.detail import DetailConfig, DetailNetwork
from assetgen.models.discriminator import Discriminator, DiscriminatorConfig
from assetgen.models.texture import TextureConfig, TextureGenerator
from assetgen.training.sheet import class_means

CLASSES = 3
CONFIG = TextureConfig(classes=CLASSES, latent=16, grid_channels=6, widths=(8, 8, 8), grid_layers=2)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    network = TextureGenerator(CONFIG).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.3)
    network.mapping.class_means.copy_(class_means(network.mapping, 256))
    return network


@pytest.fixture(scope="module")
def detail():
    torch.manual_seed(0)
    network = DetailNetwork(
        DetailConfig(CLASSES, (8, 8, 8), 1), (False, True, False), (True, False, False)
    ).requires_grad_(False)
    for parameter in network.noise_strength:
        parameter.fill_(0.3)
    return network


def texture_inputs(rows, columns, n=2, seed=0, label=0):
    g = rng(seed)
    weights = torch.eye(CLASSES)[label].expand(n, -1)
    noises = [torch.randn(n, 1, rows << i, columns << i, generator=g) for i in range(3)]
    layouts = [torch.randn(n, 8, rows << i, columns << i, generator=g) for i in range(3)]
    return torch.randn(n, 16, generator=g), weights, torch.randn(n, 6, rows, columns, generator=g), layouts, noises


def detail_inputs(rows, columns, n=2, label=1, seed=0):
    g = rng(seed)
    noises = [torch.randn(n, 1, factor * rows, factor * columns, generator=g) for factor in (2, 4)]
    return torch.rand(n, 3, rows, columns, generator=g) * 2 - 1, torch.eye(CLASSES)[label].expand(n, -1), noises


def roll(x, rows, columns):
    return torch.roll(x, (rows, columns), dims=(2, 3))


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (8, 2), (1, 7)])
def test_rolling_the_texture_inputs_rolls_the_picture(generator, size):
    z, weights, grid, layouts, noises = texture_inputs(*size)
    picture = generator(z, weights, grid, layouts, noises)
    assert picture.shape == (2, 3, 4 * size[0], 4 * size[1])
    spatial = ([roll(array, 1 << i, 2 << i) for i, array in enumerate(arrays)] for arrays in (layouts, noises))
    rolled = generator(z, weights, roll(grid, 1, 2), *spatial)
    assert (rolled - roll(picture, 4, 8)).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (8, 2), (1, 7)])
def test_rolling_the_detail_inputs_rolls_the_maps(detail, size):
    picture, weights, noises = detail_inputs(*size, label=0)
    joints = torch.rand(2, 1, *size, generator=rng(7))
    maps = detail(picture, weights, noises, joints)
    factors = zip((2, 4), noises, strict=True)
    rolled_noises = [roll(noise, f, 2 * f) for f, noise in factors]
    rolled = detail(roll(picture, 1, 2), weights, rolled_noises, roll(joints, 1, 2))
    for name in ("base_color", "height", "roughness", "metallic"):
        expected = getattr(maps, name)
        assert expected.shape == (2, 3 if name == "base_color" else 1, 4 * size[0], 4 * size[1])
        assert (getattr(rolled, name) - roll(expected, 4, 8)).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (2, 2)])
def test_a_baked_detail_network_makes_the_same_maps(detail, size):
    baked = copy.deepcopy(detail)
    for _ in range(2):  # twice is as good as once
        for module in baked.modules():
            if callable(bake := getattr(module, "bake", None)):
                bake()
    picture, weights, noises = detail_inputs(*size, label=1)
    joints = torch.rand(2, 1, *size, generator=rng(7))
    plain, folded = detail(picture, weights, noises, joints), baked(picture, weights, noises, joints)
    for name in ("base_color", "height", "roughness", "metallic"):
        torch.testing.assert_close(getattr(folded, name), getattr(plain, name), atol=1e-5, rtol=0)


def test_class_latent_grid_and_noise_all_matter(generator):
    z, weights, grid, layouts, noises = texture_inputs(4, 4)
    picture = generator(z, weights, grid, layouts, noises)
    other_z, _, other_grid, other_layouts, other_noises = texture_inputs(4, 4, seed=1)
    changed = {
        "class": generator(z, torch.eye(CLASSES)[1].expand(2, -1), grid, layouts, noises),
        "latent": generator(other_z, weights, grid, layouts, noises),
        "grid": generator(z, weights, other_grid, layouts, noises),
        **{
            f"noise {i}": generator(z, weights, grid, layouts, [*noises[:i], other_noises[i], *noises[i + 1 :]])
            for i in range(3)
        },
        **{
            f"layout {i}": generator(z, weights, grid, [*layouts[:i], other_layouts[i], *layouts[i + 1 :]], noises)
            for i in range(3)
        },
    }
    for name, other in changed.items():
        assert (other - picture).abs().mean() > 0.01, name


def test_samples_of_a_batch_do_not_touch_each_other(generator):
    z, weights, grid, layouts, noises = texture_inputs(4, 4, n=3)
    together = generator(z, weights, grid, layouts, noises)
    spatial = ([array[1:2] for array in arrays] for arrays in (layouts, noises))
    alone = generator(z[1:2], weights[1:2], grid[1:2], *spatial)
    assert (together[1:2] - alone).abs().max() < 1e-5


def test_truncation_zero_is_the_typical_style_of_the_class(generator):
    z, weights, *_ = texture_inputs(4, 4, n=8)
    mapping = generator.mapping
    none, half, full = (mapping.truncated(z, weights, torch.full((8, 1), value)) for value in (0.0, 0.5, 1.0))
    assert torch.equal(none, mapping.class_means[0].expand(8, -1))
    assert torch.allclose(full, mapping(z, weights), atol=1e-6)
    assert torch.allclose(half, (none + full) / 2, atol=1e-6)


def test_truncation_zero_gives_equal_pictures_for_all_latents(generator):
    z, weights, grid, layouts, noises = texture_inputs(4, 4, n=2)
    same_layouts, same_noises = ([torch.stack([x[0], x[0]]) for x in arrays] for arrays in (layouts, noises))
    w = generator.mapping.truncated(z, weights, torch.zeros(2, 1))
    first, second = generator.synthesize(w, torch.stack([grid[0], grid[0]]), same_layouts, same_noises)
    assert torch.allclose(first, second, atol=1e-5)  # kernels may sum the two in another order


def test_class_means_are_the_means(generator):
    means = class_means(generator.mapping, 2048)
    z = torch.randn(4096, 16, generator=rng(5))
    for label in range(CLASSES):
        mean = generator.mapping(z, torch.eye(CLASSES)[label].expand(4096, -1)).mean(dim=0)
        assert (means[label] - mean).abs().max() < 0.1
    assert torch.equal(means, class_means(generator.mapping, 2048)), "the same every time"
    assert (means[0] - means[1]).abs().max() > 0.1


def test_metallic_is_zero_in_classes_without_metal(detail):
    for label, metal in enumerate((False, True, False)):
        metallic = detail(*detail_inputs(4, 4, label=label)).metallic
        assert bool((metallic == 0).all()) is not metal


def test_a_blend_has_a_share_of_the_metal(detail):
    picture, _, noises = detail_inputs(4, 4)
    maps = detail(picture, torch.tensor([[0.5, 0.5, 0.0]]).expand(2, -1), noises)
    assert 0 < maps.metallic.max() < 0.5


def test_detail_maps_stay_in_range_and_listen_to_the_class(detail):
    maps, other = (detail(*detail_inputs(4, 4, label=label)) for label in (0, 1))
    for name in ("height", "roughness", "metallic"):
        values = getattr(maps, name)
        assert values.min() >= 0
        assert values.max() <= 1
    assert (maps.height - other.height).abs().max() > 1e-3


@pytest.mark.parametrize("wrong", [torch.zeros(2, 5, 4, 4), torch.zeros(2, 6, 4), torch.zeros(6, 4, 4)])
def test_wrong_grids_are_refused(generator, wrong):
    z, weights, _, layouts, noises = texture_inputs(4, 4)
    with pytest.raises(ValueError, match=r"grid: got shape .* expected \[n 6 h w\]"):
        generator(z, weights, wrong, layouts, noises)


@pytest.mark.parametrize("wrong", [torch.zeros(2, 1, 4, 4), torch.zeros(3, 4, 4)])
def test_wrong_pictures_are_refused(detail, wrong):
    _, weights, noises = detail_inputs(4, 4)
    with pytest.raises(ValueError, match="picture: got shape"):
        detail(wrong, weights, noises)


def test_detail_needs_both_noises(detail):
    picture, weights, noises = detail_inputs(4, 4)
    with pytest.raises(ValueError, match="zip"):
        detail(picture, weights, noises[:1])


@pytest.mark.parametrize("wrap", [False, True])
def test_the_discriminator_scores_every_crop_by_its_class(wrap):
    torch.manual_seed(0)
    critic = Discriminator(DiscriminatorConfig(CLASSES, edge_px=16, widths=(8, 8), wrap=wrap)).requires_grad_(False)
    crops = torch.rand(8, 3, 16, 16, generator=rng()) * 2 - 1
    scores = [critic(crops, torch.full((8,), label)) for label in range(CLASSES)]
    assert scores[0].shape == (8,)
    assert (scores[0] - scores[1]).abs().min() > 1e-4
    mixed = critic(crops, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    assert torch.allclose(mixed[1], scores[1][1])


def test_a_discriminator_of_another_edge_refuses():
    critic = Discriminator(DiscriminatorConfig(CLASSES, edge_px=16, widths=(8, 8)))
    with pytest.raises(RuntimeError):
        critic(torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.long))
    with pytest.raises(RuntimeError):
        critic(torch.zeros(4, 1, 16, 16), torch.zeros(4, dtype=torch.long))


def test_reals_do_not_touch_fakes_in_the_same_batch():
    """One forward pass for both must score each as a pass of its own; diversity is measured within each."""
    torch.manual_seed(0)
    critic = Discriminator(DiscriminatorConfig(CLASSES, edge_px=16, widths=(8, 8))).requires_grad_(False)
    reals, fakes = torch.randn(8, 3, 16, 16, generator=rng(1)), 0.1 * torch.randn(8, 3, 16, 16, generator=rng(2))
    labels = torch.arange(8) % CLASSES
    together = critic(torch.cat([reals, fakes]), torch.cat([labels, labels]))
    assert (together - torch.cat([critic(reals, labels), critic(fakes, labels)])).abs().max() < 1e-5


def test_the_discriminator_sees_that_a_batch_is_all_the_same():
    torch.manual_seed(0)
    critic = Discriminator(DiscriminatorConfig(CLASSES, edge_px=16, widths=(8, 8))).requires_grad_(False)
    crops = torch.rand(4, 3, 16, 16, generator=rng())
    labels = torch.zeros(4, dtype=torch.long)
    assert (critic(crops, labels)[0] - critic(crops[:1].expand(4, -1, -1, -1), labels)[0]).abs() > 1e-5


def test_joints_lie_lower_in_the_classes_that_have_them(detail):
    picture, _, noises = detail_inputs(8, 8)
    joints = torch.zeros(2, 1, 8, 8)
    joints[:, :, 4] = 1
    for label, lower in ((0, True), (1, False)):
        weights = torch.eye(CLASSES)[label].expand(2, -1)
        fall = detail(picture, weights, noises).height - detail(picture, weights, noises, joints).height
        assert (fall[:, :, 16:20].min() > 0.05) == lower
        assert fall[:, :, :8].abs().max() < 1e-6


def test_height_starts_from_brightness(detail):
    """Bright stripes of any width that the bands know, on grey: high where bright, in every class."""
    noises = detail_inputs(16, 16)[2]
    for period in (2, 4, 8):
        stripes = (torch.arange(16) % period < period // 2).float() * 0.4 - 0.2
        picture = stripes.expand(2, 3, 16, 16).contiguous()
        height = detail(picture, torch.full((2, CLASSES), 1 / CLASSES), noises).height
        grey = detail(torch.zeros_like(picture), torch.full((2, CLASSES), 1 / CLASSES), noises).height
        columns = (height - grey).mean(dim=(0, 1, 2)).reshape(16, 4).mean(dim=1)
        assert columns[stripes > 0].mean() - columns[stripes < 0].mean() > 0.02


def test_each_class_has_noise_of_its_own(detail):
    """Asphalt may be all grain while metal is smooth."""
    picture, weights, noises = detail_inputs(4, 4, label=1)
    still = [torch.zeros_like(noise) for noise in noises]
    with torch.no_grad():
        for strength in detail.noise_strength:
            strength[1] = 0.0
        smooth, quiet = (detail(picture, weights, given).base_color for given in (noises, still))
        assert torch.equal(smooth, quiet)
        other = detail_inputs(4, 4, label=0)[1]
        assert not torch.equal(*(detail(picture, other, given).base_color for given in (noises, still)))
