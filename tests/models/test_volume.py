"""Networks over volumes: shapes, conditioning, and what the critic sees."""

import numpy as np
import pytest
import torch

from assetgen.models.parts import baked
from assetgen.models.volume import (
    VolumeConfig,
    VolumeDiscriminator,
    VolumeEncoder,
    VolumeGenerator,
    fits,
    levels_of,
    seen,
)

SMALL = {"latent": 6, "style": 8, "width": 4, "features": 4, "hidden": 4, "critic_width": 4}


def config(edge=16):
    return VolumeConfig(classes=3, edge=edge, **SMALL)


def inputs(n=2):
    rng = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=rng), torch.eye(3)[torch.arange(n) % 3]


@pytest.mark.parametrize(("edge", "first"), [(16, 4), (24, 6), (32, 4), (40, 5), (48, 6)])
def test_volumes_have_the_size_that_was_asked_for(edge, first):
    torch.manual_seed(0)
    made = config(edge)
    assert fits(edge)
    assert (made.first, made.first << made.levels) == (first, edge)
    volume = VolumeGenerator(made)(*inputs())
    assert volume.shape == (2, 4, edge, edge, edge)
    assert volume.abs().max() <= 1
    assert VolumeDiscriminator(made)(volume, torch.tensor([0, 2])).shape == (2,)
    mean, log_variance = VolumeEncoder(made)(volume, inputs()[1])
    assert mean.shape == log_variance.shape == (2, 6)


@pytest.mark.parametrize("edge", [12, 18, 34, 256])
def test_edges_that_do_not_halve_down_do_not_fit(edge):
    assert not fits(edge)


def test_halvings_are_counted():
    assert [levels_of(edge) for edge in (6, 12, 16, 48, 64)] == [0, 1, 2, 3, 4]


def test_a_fresh_generator_is_mostly_outside():
    torch.manual_seed(1)
    assert VolumeGenerator(config())(*inputs())[:, 0].mean() > 0.3


def test_z_and_class_change_the_volume():
    torch.manual_seed(0)
    generator = VolumeGenerator(config())
    z, weights = inputs(1)
    made = generator(z, weights)
    assert (generator(z + 1, weights) - made).abs().mean() > 1e-3
    assert (generator(z, weights.roll(1, dims=1)) - made).abs().mean() > 1e-3


def test_the_planes_tell_all_three_axes_apart():
    torch.manual_seed(0)
    distance = VolumeGenerator(config())(*inputs(1))[0, 0]
    for axis in range(3):
        assert distance.diff(dim=axis).abs().max() > 1e-4


def test_every_second_cell_is_what_the_whole_volume_has_there():
    strided = VolumeConfig(classes=3, edge=32, stride=2, **SMALL)
    generator = VolumeGenerator(strided)
    with torch.no_grad():
        whole = generator(*inputs())
        part = generator(*inputs(), (1, 0, 1), 2)
    assert torch.allclose(whole[:, :, 1::2, 0::2, 1::2], part, atol=1e-6)
    assert VolumeDiscriminator(strided)(part, torch.tensor([0, 1])).shape == (2,)


def test_the_critic_tells_classes_apart():
    torch.manual_seed(0)
    volume = VolumeGenerator(config())(*inputs(3))
    critic = VolumeDiscriminator(config())
    assert not torch.allclose(critic(volume, torch.tensor([0, 1, 2])), critic(volume, torch.tensor([1, 2, 0])))


def test_slopes_of_a_plane_have_the_length_one_near_the_surface():
    axis = torch.arange(12.0) - 5.5
    distance = (axis / 3).clamp(-1, 1)[None, None, :, None, None].expand(1, 1, 12, 12, 12)
    looked = seen(torch.cat([distance, torch.ones(1, 3, 12, 12, 12)], dim=1))
    assert looked.shape[1] == 7
    assert looked[0, 1, 4:8] == pytest.approx(np.ones((4, 12, 12)), abs=1e-5)
    assert looked[0, 2:4].abs().max() == 0


def test_colours_far_from_the_surface_are_not_seen():
    volume = torch.ones(1, 4, 12, 12, 12)
    other = volume.clone()
    other[:, 1:] = -0.5
    assert torch.equal(seen(volume), seen(other))


def test_a_baked_generator_makes_the_same():
    torch.manual_seed(0)
    generator = VolumeGenerator(config())
    with torch.no_grad():
        assert torch.allclose(baked(generator)(*inputs()), generator(*inputs()), atol=1e-5)
