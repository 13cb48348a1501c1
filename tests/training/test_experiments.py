"""Experiments of mode capture: counting by hand, runs side by side, and the commands from start to end."""

import json
import math
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from assetgen import cli as assetgen_cli
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable, RuntimeMissing
from assetgen.training.experiments import cli, digits, gaussians
from assetgen.training.experiments.mixtures import MIXTURES, coverage, divergence_from_equal
from assetgen.training.experiments.recipes import Recipe, discriminator_loss
from assetgen.training.experiments.stacked import Draws, Perceptrons

RING, GRID = MIXTURES["ring"], MIXTURES["grid"]
TINY = gaussians.Settings(steps=3, batch=16, width=8, depth=2, samples=64)


def experiment(*options):
    return cli.main([str(option) for option in options])


def stand_in(copies=4):
    """Ten shapes that a classifier can tell: bar codes of the digit's bits, with a little noise."""
    labels = torch.arange(10).repeat(copies)
    bits = (labels[:, None] >> torch.arange(4)) & 1
    pictures = (2.0 * bits - 1).repeat_interleave(2, dim=1)[:, None, :].expand(-1, 8, -1)
    noise = 0.1 * torch.randn(len(labels), 8, 8, generator=torch.Generator().manual_seed(0))
    return digits.Digits(pictures + noise, labels)


def exact(pictures):
    """A classifier of the stand-in that cannot err: reads the bits."""
    bits = (pictures[:, 0, :, ::2].mean(dim=1) > 0).long()
    return 50 * torch.nn.functional.one_hot(bits @ torch.tensor([1, 2, 4, 8]), 16).float()[:, :10]


# Counting


def test_the_mixtures_are_those_of_the_papers():
    assert len(GRID.means) == 25
    assert set(GRID.means) == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert len(set(RING.means)) == 8
    assert all(math.hypot(*mean) == pytest.approx(1) for mean in RING.means)
    assert (GRID.deviation, RING.deviation) == (0.05, 0.01)


@pytest.mark.parametrize("mixture", MIXTURES.values(), ids=MIXTURES)
def test_the_data_themselves_are_covered(mixture):
    points = mixture.sample(20_000, torch.Generator().manual_seed(1))
    found = coverage(points, mixture)
    assert found.modes == len(mixture.means)
    assert found.quality == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # of a round Gaussian within 3 deviations
    assert found.divergence < 0.003
    assert float(points.std(dim=0, unbiased=False).mean()) == pytest.approx(mixture.scale, rel=0.02)


def test_modes_are_counted_by_samples_of_high_quality_only():
    near, far = 2.9 * RING.deviation, 3.1 * RING.deviation
    first, second = (torch.tensor(RING.means[k]) for k in (0, 1))
    points = torch.stack([first, first + torch.tensor([near, 0]), first, second + torch.tensor([0, far])])
    found = coverage(points, RING)
    assert (found.modes, found.quality) == (1, 0.75)
    assert found.divergence == pytest.approx(math.log(8))
    both = coverage(torch.stack([first, second, first, first]), RING)
    assert (both.modes, both.quality) == (2, 1.0)
    assert both.divergence == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))


def test_nothing_near_a_mode_is_nothing_captured():
    found = coverage(torch.zeros(5, 2), RING)
    assert (found.modes, found.quality, found.divergence) == (0, 0.0, math.inf)


def test_equal_shares_do_not_diverge():
    assert divergence_from_equal(torch.full((25,), 7)) == 0
    assert divergence_from_equal(torch.tensor([5, 0])) == pytest.approx(math.log(2))


# Runs side by side


def test_perceptrons_of_runs_do_not_touch_each_other():
    x = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(1))
    together = Perceptrons([2, 8, 1], Draws([4, 5, 6]), group=4)
    alone = Perceptrons([2, 8, 1], Draws([5]), group=4)
    assert torch.allclose(together(x)[1:2], alone(x[1:2]), atol=1e-6)


def test_the_deviation_feature_is_the_same_for_all_of_a_group():
    network = Perceptrons([2, 8, 1], Draws([0]), group=4)
    with torch.no_grad():
        network.weights[-1][:, :-1] = 0
        network.weights[-1][:, -1] = 1
    x = torch.randn(1, 8, 2, generator=torch.Generator().manual_seed(1))
    x[:, 4:] = x[:, 4:5]
    found = network(x)[0, :, 0]
    assert (found[:4] == found[0]).all()
    assert found[0] > 0.01
    assert found[4:].tolist() == pytest.approx([1e-4] * 4)


@pytest.mark.parametrize("name", gaussians.RECIPES)
def test_a_run_among_others_is_that_run_alone(name):
    settings = replace(TINY, seed=10)
    together = gaussians.train(gaussians.RECIPES[name], GRID, settings, 3)
    alone = gaussians.train(gaussians.RECIPES[name], GRID, replace(settings, seed=11), 1)
    assert torch.isfinite(together.samples).all()
    assert torch.allclose(together.samples[1], alone.samples[0], atol=1e-3)
    assert not torch.allclose(together.samples[0], together.samples[1], atol=0.1)


def test_the_same_seed_gives_the_same_samples():
    first, second, other = (
        gaussians.train(gaussians.RECIPES["ns_logistic_r1"], RING, replace(TINY, seed=seed), 2) for seed in (1, 1, 9)
    )
    assert torch.equal(first.samples, second.samples)
    assert not torch.equal(first.samples, other.samples)


def test_the_average_follows_the_generator():
    game = gaussians.Game(gaussians.RECIPES["ns_logistic"], RING, replace(TINY, ema_share=1.0, steps=40), 1)
    for step in range(40):
        game.step(step)
    pairs = list(zip(game.average.parameters(), game.generator.parameters(), strict=True))
    assert any(not torch.equal(mean, now) for mean, now in pairs)
    assert all(torch.allclose(mean, now, atol=0.1) for mean, now in pairs)


def test_a_small_training_finds_the_ring():
    settings = gaussians.Settings(steps=600, batch=128)
    (found,) = gaussians.train(gaussians.RECIPES["ns_logistic_r1"], RING, settings, 1).averaged
    assert found.modes == 8
    assert found.quality > 0.05


# The discriminator's side


def test_penalties_are_weighted_and_added():
    """D(x) = 3 x has the gradient 3 everywhere: R1 = R2 = 9 / 2, and (3 - 1)^2 between."""
    reals, fakes = torch.full((4, 1, 1, 1), 2.0), torch.full((4, 1, 1, 1), -1.0)
    slope = torch.tensor(3.0, requires_grad=True)

    def loss(**weights):
        recipe = Recipe("wasserstein", **weights)
        share = torch.full((4,), 0.5)
        return discriminator_loss(recipe, lambda x: slope * x.flatten(), reals, fakes, share).item()

    plain = 3 * (-1 - 2)
    assert loss() == plain
    assert loss(r1=2.0) == pytest.approx(plain + 2 * 4.5)
    assert loss(r2=0.5) == pytest.approx(plain + 0.5 * 4.5)
    assert loss(one_centred=10.0) == pytest.approx(plain + 10 * 4)


def test_a_pack_is_judged_as_one():
    game = gaussians.Game(gaussians.RECIPES["ns_logistic_pack2"], GRID, TINY, 2)
    points = torch.randn(2, 16, 2, generator=torch.Generator().manual_seed(1))
    logits = game.score(points)
    assert logits.shape == (2, 8)
    points[0, 3] += 1
    changed = (game.score(points) != logits).nonzero().tolist()
    assert changed == [[0, 1]]


# Digits


def test_a_stack_spells_its_mode():
    data = stand_in()
    stacks = data.pictures[torch.tensor([[1, 2, 3], [1, 2, 3], [0, 0, 7]])]
    expected = torch.full((1000,), 0.001, dtype=torch.float64)
    found = digits.coverage(stacks, exact, expected)
    assert (found.modes, found.clear) == (2, 1.0)
    assert found.divergence == pytest.approx(2 / 3 * math.log(2 / 3 * 1000) + 1 / 3 * math.log(1 / 3 * 1000))
    blurred = digits.coverage(stacks, lambda pictures: exact(pictures) / 50, expected)
    assert (blurred.modes, blurred.clear) == (2, 0.0)


def test_the_shares_of_modes_follow_the_labels():
    data = stand_in()
    assert torch.allclose(data.shares(), torch.full((1000,), 0.001, dtype=torch.float64))
    more = digits.Digits(torch.cat([data.pictures, data.pictures[:1]]), torch.cat([data.labels, data.labels[:1]]))
    assert more.shares().argmax() == 0
    assert float(more.shares()[1]) == pytest.approx((5 / 41) ** 2 * 4 / 41)


def test_a_classifier_learns_the_stand_in_and_finds_all_modes_of_the_data():
    data = stand_in(copies=20)
    classifier, accuracy = digits.train_classifier(data, seed=0)
    assert accuracy > 0.95
    stacks = data.stacks(10_000, torch.Generator().manual_seed(1))
    found = digits.coverage(stacks, classifier, data.shares())
    assert found.modes > 990
    assert found.divergence < 0.15


@pytest.mark.parametrize("name", digits.RECIPES)
def test_every_recipe_trains_on_digits_and_repeats_itself(name):
    settings = digits.Settings(steps=2, batch=8, latent=4, width=4, samples=1001)
    state = torch.get_rng_state()
    first, second = (digits.train(stand_in(), digits.RECIPES[name], settings) for _ in range(2))
    assert first.shape == (1001, 3, 8, 8)
    assert torch.isfinite(first).all()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_digits_must_be_all_there():
    data = stand_in()
    with pytest.raises(DataInvalid, match="not all of the digits"):
        digits.Digits(data.pictures[:9], data.labels[:9])
    with pytest.raises(DataInvalid, match=r"\[40, 4, 8\]"):
        digits.Digits(data.pictures[:, :4], data.labels)


def test_the_digits_of_scikit_learn():
    pytest.importorskip("sklearn", reason="DIGITS NOT TESTED: pip install scikit-learn")
    data = digits.load()
    assert data.pictures.shape == (1797, 8, 8)
    assert (float(data.pictures.min()), float(data.pictures.max())) == (-1, 1)
    assert digits.train_classifier(data, seed=0, epochs=3)[1] > 0.9


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(RuntimeMissing, match="scikit-learn") as caught:
        digits.load()
    assert "scikit-learn" in caught.value.hint


# The commands


def test_gaussians_from_start_to_end(tmp_path, capsys):
    options = ("--target", "ring", "--recipe", "hinge", "wasserstein_gp", "--runs", 2, "--steps", 2, "--samples", 50)
    files = ("--json", tmp_path / "found.json", "--picture", tmp_path / "found.png")
    assert assetgen_cli.main(["experiment", "gaussians", *map(str, (*options, *files))]) == 0
    said = capsys.readouterr()
    rows = said.out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["recipe", "---", "*data*", "hinge", "wasserstein_gp"]
    assert {row.count("|") for row in rows} == {7}
    assert "hinge: step 2 of 2" in said.err
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["recipes"]) == ["hinge", "wasserstein_gp"]
    assert len(found["recipes"]["hinge"]["averaged"]) == len(found["recipes"]["hinge"]["last"]) == 2
    assert found["recipes"]["wasserstein_gp"]["recipe"]["one_centred"] == 0.1
    assert found["settings"]["steps"] == 2
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size == (3 * 228 + 8, 246 + 8)
        assert len(picture.convert("RGB").getcolors(1000)) > 5


def test_digits_from_start_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(digits, "load", stand_in)
    files = ("--json", tmp_path / "found.json", "--picture", tmp_path / "found.png")
    assert experiment("digits", "--recipe", "ns_logistic", "--steps", 1, "--samples", 2000, *files) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Accuracy of the classifier")
    assert [row.split("|")[1].strip() for row in said.out.splitlines()[2:]] == ["recipe", "---", "data", "ns_logistic"]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["recipes"]["data"]["modes"] > found["recipes"]["ns_logistic"]["modes"]
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size == (2 * 228 + 8, 246 + 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gaussians", "--recipe", "hinge", "magic"], "magic is not known; recipes are saturating, ns_logistic"),
        (["gaussians", "--runs", "0"], "0 runs"),
        (["gaussians", "--steps", "0"], "steps 0"),
        (["gaussians", "--seed", "-1"], "seed -1"),
        (["gaussians", "--threads", "0"], "--threads 0"),
        (["digits", "--recipe", "magic"], "magic is not known"),
        (["digits", "--steps", "0"], "steps 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigInvalid, match=message):
        experiment(*options)


@pytest.mark.parametrize("settings", [gaussians.Settings, digits.Settings])
@pytest.mark.parametrize("batch", [0, 12])
def test_batches_must_come_out_even(settings, batch):
    with pytest.raises(ConfigInvalid, match=f"batch {batch}"):
        settings(batch=batch)


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_folder_that_is_missing_is_said_before_the_training(tmp_path, option):
    with pytest.raises(OutputUnwritable, match="not a folder"):
        experiment("gaussians", option, tmp_path / "none" / "found.json")


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_file_that_cannot_be_written_is_an_error(tmp_path, option):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OutputUnwritable, match=r"taken\.png"):
        experiment("gaussians", "--recipe", "hinge", "--runs", 1, "--steps", 1, option, tmp_path / "taken.png")
