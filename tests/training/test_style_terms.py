"""Terms beside the game: what they are zero for, what raises them, and what they are blind to."""

import pytest
import torch

from assetgen.training.style_terms import (
    FAINT,
    beside,
    color_distance,
    color_excess,
    correlation,
    patch_distance,
    seen,
)
from assetgen.training.sums import Sums
from tests.helpers.tiny_styles import style_recipe


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(n, seed, deviation=0.2, edge=32):
    return deviation * torch.randn(n, 3, edge, edge, generator=rng(seed))


def test_correlation_is_that_of_slopes_picture_by_picture():
    picture = torch.rand(1, 3, 16, 16, generator=rng())
    before = picture.expand(3, -1, -1, -1)
    after = torch.cat([0.5 * picture + 0.3, -picture, torch.zeros_like(picture)])
    assert correlation(before, after).tolist() == pytest.approx([1, -1, 0], abs=1e-5)


def test_a_flat_result_has_a_gradient_to_go_by():
    before, after = torch.rand(2, 3, 16, 16, generator=rng()), torch.ones(2, 3, 16, 16, requires_grad=True)
    correlation(before, after).sum().backward()
    assert after.grad is not None
    assert torch.isfinite(after.grad).all()


def test_equal_sets_have_no_distance_and_order_does_not_matter():
    pictures = noise(4, 1)
    assert float(patch_distance(pictures, pictures.flip(0), rng())) == pytest.approx(0, abs=1e-6)
    assert float(patch_distance(pictures, noise(4, 2), rng())) < 0.2


def test_the_distance_grows_with_the_difference_of_contrast():
    reals = noise(8, 1)
    distances = [float(patch_distance(noise(4, 2, deviation), reals, rng())) for deviation in (0.2, 0.15, 0.1, 0.0)]
    assert distances == sorted(distances)
    deviations = [deviation / (deviation + FAINT) for deviation in (0.2, 0.1, 0.05)]  # half of it at half the size
    nothing = (2 / torch.pi) ** 0.5 * sum(deviations) / 3  # mean distance from 0, in deviations
    assert distances[-1] == pytest.approx(nothing, rel=0.1)


def test_the_distance_tells_grain_from_clouds_of_the_same_contrast():
    grain = noise(4, 1)
    clouds = torch.nn.functional.interpolate(noise(4, 2, edge=8), scale_factor=4, mode="nearest")
    clouds = clouds * grain.std() / clouds.std()
    assert float(patch_distance(clouds, grain, rng())) > 3 * float(patch_distance(noise(4, 3), grain, rng()))


def test_mean_colours_are_none_of_the_patches_business():
    reals = noise(4, 1)
    shifted = reals + torch.tensor([0.5, -0.2, 0.1])[:, None, None]
    assert float(patch_distance(shifted, reals, rng())) < 1e-4


def test_the_distance_of_colours_is_that_of_their_means_whatever_the_grain():
    reals = noise(4, 1, 0.0)
    assert float(color_distance(noise(4, 2, 0.1), reals, rng())) < 0.03
    redder = reals + torch.tensor([0.5, 0.0, 0.0])[:, None, None]
    assert float(color_distance(redder, reals, rng())) == pytest.approx(0.25, rel=0.3)  # a direction sees half of it
    assert float(color_distance(redder[:2], reals, rng())) == pytest.approx(
        float(color_distance(redder, reals, rng())), abs=1e-5
    )


def test_the_distance_of_colours_tells_two_colours_from_their_mean():
    mean, apart = torch.zeros(4, 3, 32, 32), torch.zeros(4, 3, 32, 32)
    apart[:2], apart[2:] = 0.5, -0.5
    assert float(color_distance(mean, apart, rng())) > 0.15
    assert float(color_distance(apart.flip(0), apart, rng())) == pytest.approx(0, abs=1e-6)


def flat(*color):
    """A picture of one colour, values in [0, 1]."""
    return (2 * torch.tensor(color)[None, :, None, None] - 1).expand(1, 3, 32, 32).clone()


def test_hues_and_brightness_have_rooms_of_their_own():
    greys = noise(4, 1)[:, :1].expand(-1, 3, -1, -1)
    darker = greys - 0.5
    assert float(color_excess(greys, darker, 0.0, 0.5)) == pytest.approx(0, abs=1e-6)
    assert float(color_excess(greys, darker, 0.0, 0.2)) == pytest.approx(0.3, abs=1e-6)
    redder = greys + torch.tensor([1.0, 0.0, 0.0])[:, None, None]  # brighter by 0.299 as well
    hues = (0.701 - 0.1 + 0.299 - 0.1 + 0.299 - 0.1) / 3
    assert float(color_excess(greys, redder, 0.1, 0.3)) == pytest.approx(hues, abs=1e-5)


@pytest.mark.parametrize("light", [0.3, 0.6, 1.2])
def test_a_colour_in_another_light_is_the_same(light):
    brick = flat(0.7, 0.3, 0.2)
    lit = flat(0.7 * light, 0.3 * light, 0.2 * light)
    near = 0.05  # for what is added so that black has no hue
    assert float(color_excess(brick, lit, near, 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(color_excess(brick, flat(0.7, 0.3, 0.2), 0.0, 0.0)) == pytest.approx(0, abs=1e-6)
    grey = lit.mean(dim=1, keepdim=True).expand_as(lit)
    assert float(color_excess(brick, grey, near, 1.0)) > 0.02, "grey is another colour in any light"


def test_a_light_that_no_colour_can_have_is_nearer_to_white():
    brick, white = flat(0.7, 0.3, 0.2), flat(1.0, 1.0, 1.0)
    assert float(color_excess(brick, white, 0.0, 2.0)) == pytest.approx(0, abs=1e-5)


def test_specks_of_colour_are_seen_where_their_mean_is_right():
    before, after = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    after[:, 0, ::2, ::2], after[:, 0, 1::2, ::2] = 0.5, -0.5
    assert float(color_excess(before, after, 0.0, 0.0)) == pytest.approx((0.701 + 2 * 0.299) * 0.5 / 3 / 2, abs=1e-5)
    checks = torch.ones(1, 3, 32, 32)  # of 4 px: dark and bright, as brick and mortar may become
    checks[:, :, (torch.arange(32) // 4) % 2 == 0] = -1.0
    assert float(color_excess(before, checks, 0.0, 0.0)) == pytest.approx(0, abs=1e-6)


def test_gradients_lead_to_the_reals():
    reals, picture = noise(8, 1), noise(4, 2, 0.02).requires_grad_(True)
    distance = patch_distance(picture, reals, rng())
    (gradient,) = torch.autograd.grad(distance, picture)
    moved = picture.detach() - 5 * gradient / gradient.norm()
    assert float(patch_distance(moved, reals, rng())) < float(distance.detach())


def test_bounds_cost_nothing_until_they_are_passed():
    recipe = style_recipe("cut", structure=2.0, structure_aim=0.5, color=4.0, color_room=0.3, brightness_room=0.6)
    before = torch.rand(2, 3, 32, 32, generator=rng()) - 0.5
    assert float(beside(recipe, before, before + 0.2, None, rng(), Sums())) == pytest.approx(0, abs=1e-6)
    sums = Sums()
    assert float(beside(recipe, before, 0.5 - before, None, rng(), sums)) >= 2.0 * 1.5
    assert sums.means()["kept_structure"] == pytest.approx(-1, abs=1e-5)
    red = before + torch.tensor([1.5, 0.0, 0.0])[:, None, None]
    hues = (1.5 * 0.701 - 0.3 + 2 * (1.5 * 0.299 - 0.3)) / 3
    assert float(beside(recipe, before, red, None, rng(), Sums())) == pytest.approx(4 * hues, rel=0.01)


def test_who_sees_no_hues_sees_brightness():
    pictures = noise(4, 1)
    assert torch.equal(seen(style_recipe("cut", hues=True), pictures), pictures)
    shown = seen(style_recipe("cut", hues=False), pictures)
    red, green, blue = pictures.unbind(dim=1)
    for channel in shown.unbind(dim=1):
        assert torch.allclose(channel, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)


def test_without_hues_patches_of_other_colours_are_no_further():
    reals, pictures = noise(4, 1), noise(4, 2)
    tints = seen(style_recipe("cut", hues=False), pictures) + torch.tensor([0.5, -0.2, -0.2])[:, None, None]
    recipe = style_recipe("patches", hues=False, color=0.0, structure=0.0)
    sums = Sums()
    distances = [float(beside(recipe, pictures, each, reals, rng(), sums)) for each in (pictures, tints)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-4)


def test_terms_that_are_off_are_not_computed():
    sums = Sums()
    assert float(beside(style_recipe("cut"), noise(1, 1), noise(1, 2), None, rng(), sums)) == 0
    assert sums.means() == {}
