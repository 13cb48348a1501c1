"""Sliders: the regression in closed form, and that what is offered does what it says."""

from dataclasses import replace

import pytest
import torch

from assetgen.models.texture import TextureConfig, TextureGenerator
from assetgen.training.sheet import class_means
from export.parameters import SLIDERS, parameters_of_model
from export.properties import PROPERTIES
from export.sliders import HELD, LIMITS, REACHES, Effort, Slider, Sliders, find_sliders, regress
from tests.helpers.tiny_runs import CLASSES, TEXTURE

NAMES = list(PROPERTIES)
GOOD = Slider("warmth", r2=0.5, rising=1.0, down=0.9, up=1.1, effect=7.0)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    config = TextureConfig(len(CLASSES), latent=16, grid_channels=4, widths=(8, 8, 8), grid_layers=2)
    network = TextureGenerator(config).eval().requires_grad_(False)
    network.mapping.class_means.copy_(class_means(network.mapping, 256))
    return network


def linear_properties(noise=0.0, classes=2, n=4000, latent=12):
    """Styles with a covariance, and properties that are linear in them, by class."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(classes, n, latent, generator=rng) @ torch.randn(classes, latent, latent, generator=rng) + 3
    true = torch.randn(classes, latent, len(NAMES), generator=rng)
    properties = (w - w.mean(dim=1, keepdim=True)) @ true
    properties = properties / properties.std(dim=1, keepdim=True)
    noisy = properties + noise * torch.randn(properties.shape, generator=rng)
    scale = ((w - w.mean(dim=1, keepdim=True)) @ true).std(dim=1, keepdim=True)
    return w, true / scale, noisy


def test_directions_change_their_property_by_one_and_hold_the_others(monkeypatch):
    monkeypatch.setattr("export.sliders.RIDGE", 1e-6)
    w, true, properties = linear_properties()
    directions, r2 = regress(w, properties)
    for i, name in enumerate(NAMES):
        for label in range(2):
            change = directions[i, label] @ true[label]
            assert float(change[i]) == pytest.approx(1, abs=1e-2)
            held = [NAMES.index(other) for other in HELD[name]]
            assert float(change[held].abs().max()) <= 1e-2
    assert float(r2.min()) >= 0.999


def test_r2_is_measured_on_samples_kept_out():
    """With noise of the same size, half of the variance is all that anything can explain."""
    w, _, properties = linear_properties(noise=1.0)
    assert torch.allclose(regress(w, properties)[1], torch.full((6,), 0.5), atol=0.05)
    few, _, unrelated = linear_properties(n=16)
    unrelated = torch.randn(unrelated.shape, generator=torch.Generator().manual_seed(1))
    assert float(regress(few, unrelated)[1].mean()) < 0.1


def test_the_shortest_direction_follows_the_covariance(monkeypatch):
    """Of two style numbers that bring about the same, the one of four times the deviation takes 16 parts of 17."""
    monkeypatch.setattr("export.sliders.RIDGE", 1e-6)
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(1, 20000, 8, generator=rng) * torch.tensor([4.0, 1.0, 1, 1, 1, 1, 1, 1])
    columns = [w[..., 0] + w[..., 1], *(w[..., i] for i in range(2, 7))]
    directions, _ = regress(w, torch.stack(columns, dim=2))
    first = directions[NAMES.index("brightness"), 0]
    assert float(first[0] + first[1]) == pytest.approx(1, abs=0.02)
    assert float(first[0] / first[1]) == pytest.approx(16, rel=0.1)


def test_what_is_found_is_the_same_every_time(generator):
    effort = Effort(samples=32, steps=3, checks=2)
    first, second = (find_sliders(generator, CLASSES, TEXTURE, effort) for _ in range(2))
    assert first.sliders == second.sliders
    assert torch.equal(first.directions, second.directions)
    assert first.directions.shape == (len(NAMES), 2, 16)
    other = find_sliders(generator, CLASSES, TEXTURE, replace(effort, seed=1))
    assert not torch.equal(first.directions, other.directions)


def test_steps_make_sliders_keep_their_promise(generator):
    """Even an untrained network has colours; what a straight line promises of them is kept better after some steps."""
    rough, fine = (find_sliders(generator, CLASSES, TEXTURE, Effort(64, steps, 8)).sliders for steps in (0, 40))

    def missed(sliders):
        return sum(abs(s.down - 1) + abs(s.up - 1) for s in sliders[:4])

    assert missed(fine) < 0.8 * missed(rough)
    assert fine[NAMES.index("warmth")].rising > rough[NAMES.index("warmth")].rising


def test_no_samples_make_no_sliders(generator):
    assert find_sliders(generator, CLASSES, TEXTURE, Effort(samples=0)).sliders == ()


@pytest.mark.parametrize("figures", [{"r2": 0.09}, {"rising": 0.89}, {"down": 0.4}, {"up": -1.0}, {"up": float("nan")}])
def test_only_sliders_that_keep_the_rule_are_offered(figures):
    bad = replace(GOOD, name="tint", **figures)
    assert GOOD.offered
    assert not bad.offered
    sliders = Sliders((bad, GOOD), torch.arange(4.0).view(2, 1, 2))
    assert sliders.offered.sliders == (GOOD,)
    assert sliders.offered.directions.tolist() == [[[2.0, 3.0]]]


def test_every_property_has_a_slider_and_knows_what_it_holds():
    assert list(SLIDERS) == NAMES == list(HELD)
    assert all(set(others) <= set(NAMES) - {name} for name, others in HELD.items())
    names = [spec.name for spec in parameters_of_model(("a", "b"), ["tint"])]
    assert names[-1] == "tint"
    assert "warmth" not in names


def test_what_is_too_much_is_tried_with_less_and_with_less_again(generator, monkeypatch):
    """One property keeps its promise with the second reach here, one with the third; all others keep the first."""
    asked, needed = [], {"tint": REACHES[1], "brightness": REACHES[2]}

    def judge(studio, directions, units, r2, reach, effort):
        asked.append((reach, units))
        kept = {name: 0.8 if reach <= needed.get(name, REACHES[0]) else 0.4 for name in NAMES}
        return Sliders(tuple(Slider(name, 0.5, 1.0, kept[name], 0.9, 7.0, reach) for name in NAMES), directions)

    monkeypatch.setattr("export.sliders._judge", judge)
    found = find_sliders(generator, CLASSES, TEXTURE, Effort(samples=16, steps=2, checks=1))
    assert [reach for reach, _ in asked] == list(REACHES)
    assert {slider.name: slider.reach for slider in found.sliders} == {
        name: needed.get(name, REACHES[0]) for name in NAMES
    }
    assert all(slider.offered for slider in found.sliders)
    limits = torch.tensor(LIMITS)
    free = (asked[0][1] < limits) & (asked[0][1] > 1e-3)
    for (reach, units), (_, first) in zip(asked[1:], asked[:1] * 2, strict=True):
        assert torch.allclose(units[free], first[free] * reach / REACHES[0])


def test_what_fails_with_less_too_stays_as_it_was_first(generator, monkeypatch):
    def judge(studio, directions, units, r2, reach, effort):
        return Sliders(tuple(replace(GOOD, name=name, down=0.1, reach=reach) for name in NAMES), directions)

    monkeypatch.setattr("export.sliders._judge", judge)
    found = find_sliders(generator, CLASSES, TEXTURE, Effort(samples=16, steps=2, checks=1))
    assert {slider.reach for slider in found.sliders} == {REACHES[0]}
    assert found.offered.sliders == ()
