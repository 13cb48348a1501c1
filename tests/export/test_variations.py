"""Variations: both methods in closed form, that they add to the sliders, and that what is offered can be seen."""

from dataclasses import replace

import pytest
import torch

from assetgen.errors import ConfigInvalid
from assetgen.models.texture import TextureConfig, TextureGenerator
from assetgen.training.sheet import class_means
from export.parameters import parameters_of_model
from export.properties import PROPERTIES, measure
from export.sliders import Slider, Sliders
from export.studio import Studio
from export.variations import (
    METHODS,
    REACH,
    SAMPLES,
    Variation,
    Variations,
    VariationSettings,
    find_variations,
    ganspace,
    leading,
    mean_gradients,
    sefa,
    unexplained,
)
from tests.helpers.tiny_runs import CLASSES, TEXTURE

GOOD = Variation("variation_1", "ganspace", change=8.0, rising=1.0, new=0.6, most="contrast", effect=0.9)
NONE_TAKEN = torch.zeros(0, 2, 16)
LATENT = 16


def build():
    torch.manual_seed(0)
    config = TextureConfig(len(CLASSES), latent=LATENT, grid_channels=4, widths=(8, 8, 8), grid_layers=2)
    network = TextureGenerator(config).eval().requires_grad_(False)
    network.mapping.class_means.copy_(class_means(network.mapping, 256))
    return network


@pytest.fixture(scope="module")
def generator():
    return build()


@pytest.fixture(scope="module")
def taken():
    return torch.randn(3, 2, LATENT, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def sliders(taken):
    """Sliders that nobody has looked for."""
    return Sliders(tuple(Slider(name, 0.5, 1.0, 0.9, 0.9, 7.0) for name in ("brightness", "tint", "contrast")), taken)


def axis(i):
    return torch.eye(LATENT)[i]


def along(direction, expected):
    """Cosine without sign."""
    return float((direction / direction.norm() @ (expected / expected.norm())).abs())


def test_ganspace_finds_the_axes_of_greatest_deviation_in_every_class(generator):
    deviations = torch.ones(2, LATENT)
    deviations[0, [3, 5, 8]] = torch.tensor([4.0, 3.0, 2.0])
    deviations[1, [2, 9, 1]] = torch.tensor([4.0, 3.0, 2.0])
    w = torch.randn(2, 20000, LATENT, generator=torch.Generator().manual_seed(0)) * deviations[:, None] + 5
    found = ganspace(generator, w, NONE_TAKEN, 3)
    assert found.shape == (3, 2, LATENT)
    for i, (first, second) in enumerate([(3, 2), (5, 9), (8, 1)]):
        assert along(found[i, 0], axis(first)) >= 0.99
        assert along(found[i, 1], axis(second)) >= 0.99


def test_sefa_finds_what_the_style_layers_answer_to():
    """Every channel of every layer reads one axis: 5, or in the last layer 9; how strongly does not count."""
    network = build()
    for number, layer in enumerate(network.layers):
        layer.affine.weight.zero_()
        layer.affine.weight[:, 5 if number < len(network.layers) - 1 else 9] = 0.1 + 10 * number
    found = sefa(network, torch.zeros(2, 4, LATENT), NONE_TAKEN, 2)
    for label in range(2):
        assert along(found[0, label], axis(5)) >= 0.999
        assert along(found[1, label], axis(9)) >= 0.999


def test_sefa_is_the_singular_value_decomposition_of_the_normalised_weights(generator):
    weights = torch.cat([layer.affine.weight for layer in generator.layers])
    right = torch.linalg.svd(weights / weights.norm(dim=1, keepdim=True)).Vh
    found = sefa(generator, torch.zeros(1, 4, LATENT), torch.zeros(0, 1, LATENT), 3)
    assert all(along(found[i, 0], right[i]) >= 0.999 for i in range(3))


@pytest.mark.parametrize("method", METHODS)
def test_directions_have_length_one_and_are_orthogonal_to_sliders_and_to_each_other(method, generator, taken):
    w = torch.randn(2, 500, LATENT, generator=torch.Generator().manual_seed(1)) @ torch.randn(LATENT, LATENT)
    found = METHODS[method](generator, w, taken, 4)
    for label in range(2):
        rows = found[:, label]
        assert torch.allclose(rows @ rows.T, torch.eye(4), atol=1e-5)
        assert float((rows @ taken[:, label].T).abs().max()) <= 1e-5


def test_what_is_taken_is_passed_over():
    matrix = torch.diag(torch.arange(1.0, LATENT + 1)).expand(1, -1, -1)
    found = leading(matrix, 3 * axis(LATENT - 1).view(1, 1, -1), 2)
    assert along(found[0, 0], axis(LATENT - 2)) >= 0.999
    assert along(found[1, 0], axis(LATENT - 3)) >= 0.999
    with pytest.raises(ConfigInvalid, match="room for 15 beside the sliders"):
        leading(matrix, axis(0).view(1, 1, -1), 16)


def test_new_is_what_no_combination_of_the_known_makes():
    """(3, 4, 0) of which the first number is known: 16 parts of 25."""
    changes = torch.tensor([[3.0, 4.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 0.0]])
    known = torch.tensor([[[9.0, 0, 0]], [[-6.0, -8, 0]], [[0, 0, 1]]])
    assert unexplained(changes, known).tolist() == pytest.approx([16 / 25, 0, 1], abs=1e-6)
    assert unexplained(changes, torch.zeros(3, 0, 3)).tolist() == pytest.approx([1, 1, 1])


def test_gradients_say_what_a_small_step_does(generator):
    studio = Studio(generator, CLASSES, TEXTURE, 0)
    with torch.no_grad():
        samples = studio.sample(8)
    found = mean_gradients(studio, samples, ["tint", "brightness"])
    step = 1e-3 * torch.randn(LATENT, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(2).repeat_interleave(8)
    w, places = samples.w.flatten(0, 1), samples.place.flatten()
    change = (studio.measure(w + step, labels, places) - studio.measure(w - step, labels, places)) / 2
    by_class = change.view(2, 8, -1).mean(dim=1)
    for row, name in zip(found, ("tint", "brightness"), strict=True):
        assert torch.allclose(row @ step, by_class[:, list(PROPERTIES).index(name)], rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_properties_that_have_a_slider_stay_as_they_are_near_the_middle(method, generator, sliders):
    found = find_variations(generator, CLASSES, TEXTURE, sliders, VariationSettings(2, method, checks=2))
    studio = Studio(generator, CLASSES, TEXTURE, 0)
    with torch.no_grad():
        samples = studio.sample(SAMPLES)
    gradients = mean_gradients(studio, samples, list(PROPERTIES))
    for row in found.directions:
        unit = row / row.norm(dim=1, keepdim=True)
        cosines = torch.einsum("pcl,cl->pc", gradients / gradients.norm(dim=2, keepdim=True), unit).abs()
        kept = [list(PROPERTIES).index(slider.name) for slider in sliders.sliders]
        assert float(cosines[kept].max()) <= 1e-4
        assert float(cosines.max()) > 0.01


@pytest.mark.parametrize("method", METHODS)
def test_what_is_found_is_the_same_every_time(method, generator, sliders):
    settings = VariationSettings(2, method, checks=2)
    first, second = (find_variations(generator, CLASSES, TEXTURE, sliders, settings) for _ in range(2))
    assert first.variations == second.variations
    assert torch.equal(first.directions, second.directions)
    assert [found.name for found in first.variations] == ["variation_1", "variation_2"]
    assert {found.method for found in first.variations} == {method}


@pytest.mark.parametrize("method", METHODS)
def test_a_full_variation_is_a_step_of_the_deviation_that_styles_have(method, generator, sliders):
    found = find_variations(generator, CLASSES, TEXTURE, sliders, VariationSettings(2, method, checks=2))
    styles = Studio(generator, CLASSES, TEXTURE, 3).styles(torch.arange(2).repeat_interleave(4096)).view(2, 4096, -1)
    for row in found.directions:
        for label in range(2):
            length = row[label].norm()
            assert float(length) == pytest.approx(REACH * float((styles[label] @ row[label]).std() / length), rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_variation_changes_most_rises_in_every_class(method, generator):
    """Beside no sliders, so that it changes something by much."""
    settings = VariationSettings(2, method, checks=64)
    found = find_variations(generator, CLASSES, TEXTURE, Sliders((), NONE_TAKEN), settings)
    studio = Studio(generator, CLASSES, TEXTURE, settings.seed)
    labels, places = torch.arange(2).repeat_interleave(64), torch.arange(64).repeat(2) % 8
    w = studio.styles(labels)
    for variation, row in zip(found.variations, found.directions, strict=True):
        after, before = (measure_all(studio, w + side * row[labels], labels, places) for side in (1, -1))
        change = (after - before)[:, list(PROPERTIES).index(variation.most)].view(2, -1).mean(dim=1)
        assert float(change.min()) > 0, variation


def measure_all(studio, w, labels, places):
    return torch.cat([measure(pictures) for pictures in studio.paint(w, labels, places)])


def test_none_are_made_if_none_are_asked_for(generator, sliders):
    found = find_variations(generator, CLASSES, TEXTURE, sliders, VariationSettings(0))
    assert found.variations == ()
    assert found.directions.shape == (0, 2, LATENT)


@pytest.mark.parametrize("figures", [{"change": 2.2}, {"rising": 0.89}, {"change": float("nan")}])
def test_only_variations_that_can_be_seen_and_are_steady_are_offered(figures):
    bad = replace(GOOD, name="variation_2", **figures)
    assert GOOD.offered
    assert not bad.offered
    found = Variations((bad, GOOD), torch.arange(4.0).view(2, 1, 2))
    assert found.offered.variations == (GOOD,)
    assert found.offered.directions.tolist() == [[[2.0, 3.0]]]


@pytest.mark.parametrize(("settings", "rule"), [((-1,), "-1 variations"), ((3, "pca"), "use ganspace or sefa")])
def test_wrong_settings_are_refused(settings, rule):
    with pytest.raises(ConfigInvalid) as caught:
        VariationSettings(*settings)
    assert rule in f"{caught.value} {caught.value.hint}"


def test_parameters_say_what_a_variation_changes():
    *_, tint, second = parameters_of_model(("a", "b"), ["tint"], {"variation_2": "fineness"})
    assert (tint.name, second.name, second.label, second.group) == ("tint", "variation_2", "Variation 2", "Look")
    assert (second.type, second.minimum, second.maximum, second.default) == ("float", -1.0, 1.0, 0.0)
    assert second.description.endswith("changes mostly fineness.")
