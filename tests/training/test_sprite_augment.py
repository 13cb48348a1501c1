"""Augmentation with alpha: what is transparent stays so, nothing but transparency comes in, grounds are shared."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.training.sprite_augment import CUTOUT, SHIFT, augment_sprites, over_ground

EDGE = 16


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


def things(n=64, seed=0):
    """Random colours in the middle half of the picture, transparent around."""
    x = torch.full((n, 4, EDGE, EDGE), -1.0)
    inner = slice(EDGE // 4, -EDGE // 4)
    color = torch.rand(n, 3, EDGE // 2, EDGE // 2, generator=rng(seed))
    x[:, :3, inner, inner] = color * 2 - 1
    x[:, 3, inner, inner] = 1.0
    return x


def test_without_probability_nothing_changes():
    assert torch.allclose(augment_sprites(things(), 0.0, rng()), things(), atol=1e-6)


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_where_nothing_is_nothing_has_a_colour(seed, probability):
    changed = augment_sprites(things(16), probability, rng(seed))
    gone = changed[:, 3:] < -0.999
    assert gone.any()
    assert (changed[:, :3].masked_select(gone.expand(-1, 3, -1, -1)) + 1).abs().max() < 1e-5


def test_things_move_as_a_whole_and_by_an_eighth_at_most():
    x = torch.full((256, 4, EDGE, EDGE), -1.0)
    x[:, :, 8, 8] = 1.0
    changed = augment_sprites(x, 1.0, rng())[:, 3]
    seen = [(changed[i] > 0.5).nonzero() for i in range(len(x))]
    places = torch.cat([place for place in seen if len(place)])
    assert all(len(place) <= 1 for place in seen), "a hole may hide it, nothing doubles it"
    reach = round(EDGE * SHIFT)
    assert {tuple(place) for place in (places - 8).tolist()} == {
        (r, c) for r in range(-reach, reach + 1) for c in range(-reach, reach + 1)
    }


def test_things_move_by_whole_groups():
    x = torch.full((256, 4, EDGE, EDGE), -1.0)
    x[:, :, 8, 8] = 1.0
    places = (augment_sprites(x, 1.0, rng(), 2)[:, 3] > 0.5).nonzero()[:, 1:] - 8
    assert (places % 2 == 0).all()
    assert places.abs().amax(dim=0).tolist() == [round(EDGE * SHIFT)] * 2


def test_a_hole_is_transparent_and_half_as_wide():
    x = torch.ones(256, 4, EDGE, EDGE)
    share = (augment_sprites(x, 1.0, rng())[:, 3] > 0).float().mean(dim=(1, 2))
    assert share.min() >= (1 - SHIFT) ** 2 - CUTOUT**2 - 0.01
    assert share.min() < 0.8


def test_gradients_reach_the_pictures():
    x = things(8).requires_grad_(True)
    over_ground(augment_sprites(x, 0.5, rng()), rng()).square().sum().backward()
    assert (x.grad[:, :, EDGE // 2, EDGE // 2] != 0).any()


def test_a_thing_of_one_colour_keeps_its_alpha_under_changes_of_colour():
    x = things(128)
    changed = augment_sprites(x, 1.0, rng())
    assert set(changed[:, 3].unique().tolist()) <= {-1.0, 1.0}


def test_half_of_the_pictures_stand_on_one_opaque_ground():
    x = things(400)
    shown = over_ground(x, rng())
    flat = (shown[:, 3] == 1).all(dim=(1, 2))
    assert 0.4 < flat.float().mean() < 0.6
    assert torch.equal(shown[~flat], x[~flat])
    corners = shown[flat][:, :3, 0, 0]
    assert (corners - corners[0]).abs().max() < 1e-6
    inside = (slice(None), slice(0, 3), EDGE // 2, EDGE // 2)
    assert torch.allclose(shown[flat][inside], x[flat][inside], atol=1e-6)


def test_reals_and_fakes_share_ground_and_lot():
    reals, fakes = things(50, 1), things(50, 2)
    shown = [over_ground(side, rng(7)) for side in (reals, fakes)]
    assert torch.equal(shown[0][:, :, 0, 0], shown[1][:, :, 0, 0])


def test_half_covered_pixels_are_mixed_by_hand():
    """Alpha 0.5 with red 0.5 premultiplied on a ground g: red is 0.5 + 0.5 g, in [-1, 1] its double less one."""
    x = torch.zeros(64, 4, 2, 2)
    x[:, 1:3] = -1.0
    ground = (torch.rand(3, generator=rng(3))).tolist()
    shown = over_ground(x, rng(3))
    flat = shown[(shown[:, 3] == 1).all(dim=(1, 2))][0, :3, 0, 0].tolist()
    assert flat == pytest.approx([2 * (0.5 + 0.5 * ground[0]) - 1, ground[1] - 1, ground[2] - 1], abs=1e-6)
