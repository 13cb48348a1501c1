"""Sliders of sprites change what they are named after, in every class, and leave the rest."""

import pytest
import torch
from torch import nn

from assetgen.models.mixture import MixturePrior
from export.sprite_sliders import HELD, PROPERTIES, find_sliders, measure, moved, regress

EDGE_PX, LATENT = 16, 6
CLASSES = ("red", "blue")
NAMES = list(PROPERTIES)


class Boxes(nn.Module):
    """Soft ellipses whose width, height and lightness are z 0, 1 and 2, their colour that of the class."""

    def forward(self, z, class_weights):
        y, x = torch.meshgrid(torch.linspace(-1, 1, EDGE_PX), torch.linspace(-1, 1, EDGE_PX), indexing="ij")
        across, down = (0.45 * (0.2 * z[:, i, None, None]).exp() for i in (0, 1))
        alpha = torch.sigmoid(12 * (1 - torch.hypot(x / across, y / down)))[:, None]
        base = class_weights @ torch.tensor([[0.7, 0.2, 0.2], [0.2, 0.2, 0.7]])
        color = (base * (0.15 * z[:, 2:3]).exp()).clamp(0, 1)[:, :, None, None]
        return torch.cat([color * alpha, alpha], dim=1) * 2 - 1


def box(width, height, color=(1.0, 0.0, 0.0)):
    picture = torch.full((1, 4, EDGE_PX, EDGE_PX), -1.0)
    top, left = (EDGE_PX - height) // 2, (EDGE_PX - width) // 2
    for channel, value in enumerate((*color, 1.0)):
        picture[0, channel, top : top + height, left : left + width] = value * 2 - 1
    return picture


def test_properties_by_hand():
    size, tallness, brightness, warmth, tint, saturation = measure(box(4, 8))[0].tolist()
    assert size == pytest.approx(32 / 256)
    assert tallness == pytest.approx(1.03, abs=0.05)  # deviations of 8 and 4 even steps: a factor of 2.05
    assert brightness == pytest.approx(53.2, abs=0.2)  # sRGB red in CIE L*a*b* (D65)
    assert (tint, warmth) == (pytest.approx(80.1, abs=0.5), pytest.approx(67.2, abs=0.5))
    assert saturation == pytest.approx(104.6, abs=0.5)


def test_what_is_transparent_has_no_colour():
    assert torch.allclose(measure(box(4, 8))[0, 2:], measure(box(8, 4))[0, 2:], atol=0.05)
    assert torch.isfinite(measure(torch.full((1, 4, EDGE_PX, EDGE_PX), -1.0))).all()


@pytest.fixture(scope="module")
def found():
    return find_sliders(Boxes(), LATENT, CLASSES, samples=128)


class KindsOfBoxes(Boxes):
    """The first number of z chooses one of two kinds, of which one is twice as light."""

    def __init__(self):
        super().__init__()
        self.prior = MixturePrior(len(CLASSES), LATENT)
        self.prior.bounds[:, 0] = 0.0

    def forward(self, z, class_weights):
        kinds = (z[:, :1] > 0).float()
        still = torch.cat([torch.zeros_like(z[:, :1]), z[:, 1:2], z[:, 2:3] + 4 * kinds - 2, z[:, 3:]], dim=1)
        return super().forward(still, class_weights)


def test_sliders_move_props_within_their_kind():
    found = find_sliders(KindsOfBoxes(), LATENT, CLASSES, samples=128)
    assert not found.directions[..., 0].any(), "a slider would jump from kind to kind"
    by_name = {slider.name: slider for slider in found.sliders}
    assert by_name["tallness"].offered
    assert by_name["brightness"].r2 > 0.5, "what kinds are apart explains nothing"


def test_what_the_network_can_do_is_offered_and_does_it_both_ways(found):
    by_name = {slider.name: slider for slider in found.sliders}
    assert by_name["size"].offered
    assert by_name["tallness"].offered
    assert by_name["tallness"].rising > 0.95
    assert not by_name["warmth"].offered  # here it cannot be had without brightness, which it is to hold


def test_a_slider_leaves_what_it_is_to_hold(found):
    z, weights = torch.randn(32, LATENT, generator=torch.Generator().manual_seed(9)), torch.eye(2)[[0, 1] * 16]
    for name in ("size", "tallness"):
        amounts = torch.zeros(32, len(NAMES))
        amounts[:, NAMES.index(name)] = 1.0
        before, after = (
            measure(Boxes()(latents, weights)) for latents in (z, moved(z, weights, found.directions, amounts))
        )
        change = (after - before).mean(dim=0) / before.std(dim=0).clamp(min=1e-3)
        held = [NAMES.index(other) for other in HELD[name]]
        assert change[NAMES.index(name)] > 0.5
        assert change[held].abs().max() < 0.5 * change[NAMES.index(name)]


def test_a_slider_at_0_changes_nothing_and_blends_take_both_directions():
    directions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    z = torch.zeros(1, 2)
    assert (moved(z, torch.eye(2)[:1], directions, torch.zeros(1, 1)) == z).all()
    assert moved(z, torch.tensor([[0.25, 0.75]]), directions, torch.tensor([[2.0]])).tolist() == [[0.5, 1.5]]


def test_what_nothing_in_z_moves_is_not_offered():
    z = torch.randn(1, 1024, LATENT, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 1024, len(NAMES), generator=torch.Generator().manual_seed(1))
    _, r2 = regress(z, noise, noise.std(dim=1))
    assert (r2 < 0.1).all()


def test_none_are_made_on_request_and_the_same_twice():
    assert find_sliders(Boxes(), LATENT, CLASSES, samples=0).sliders == ()
    first, second = (find_sliders(Boxes(), LATENT, CLASSES, samples=32) for _ in range(2))
    assert first.sliders == second.sliders
    assert (first.directions == second.directions).all()
