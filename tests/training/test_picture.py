"""Training of the picture families: each resumes exactly, learns with all it has, and refuses what it cannot do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen.datasets.pack import pack
from assetgen.errors import ConfigInvalid
from assetgen.models.families import FAMILIES as NETWORKS
from assetgen.training import checkpoint, cli
from assetgen.training.adversarial import Adversary
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, train
from assetgen.training.picture import _stage, sample
from assetgen.training.recipe import FAMILY_NAMES, PictureRecipe, recipe_from_toml
from assetgen.training.sums import Sums
from tests.helpers.tiny_runs import FAMILIES, make_task, save

SILENT = 1e9
TOTAL = {"total_kimg": 0.024}  # 6 steps, or 3 of two discriminator steps each


def tensors(run):
    return checkpoint.load(run / "checkpoint").tensors


def test_recipes_know_every_family_and_every_family_has_a_recipe():
    assert tuple(NETWORKS) == FAMILY_NAMES
    recipes = [recipe_from_toml(PictureRecipe, cli.RECIPES / f"{name}.toml") for name in cli.FAMILIES + cli.SPRITES]
    assert {recipe.family for recipe in recipes} == set(FAMILY_NAMES)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(data, tmp_path, name):
    train(tmp_path / "whole", make_task(name, data, **TOTAL), Budget(tick_s=SILENT))
    train(tmp_path / "parts", make_task(name, data, **TOTAL), Budget(tick_s=SILENT, steps=1))
    train(tmp_path / "parts", make_task(name, data, **TOTAL), Budget(tick_s=0.0, sheet_ticks=1, steps=1), resume=True)
    train(tmp_path / "parts", make_task(name, data, **TOTAL), Budget(tick_s=SILENT), resume=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    # The averaged network's statistics are measured anew whenever it is kept; nothing is trained on them.
    average = make_task(name, data).average
    measured = {f"average.{key}" for key, _ in average.named_buffers()}
    assert [key for key in whole if not torch.equal(whole[key], parts[key]) and key not in measured] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_training_moves_every_parameter_and_leaves_a_sheet(data, tmp_path, name):
    fresh = make_task(name, data)
    train(tmp_path, make_task(name, data, **TOTAL), Budget(tick_s=SILENT))
    trained = tensors(tmp_path)
    # A constant on all logits changes nothing where reals and fakes are only compared.
    idle = {"head.score.bias"} if fresh.recipe.loss in ("wasserstein", "hinge") else set()
    for module in ("generator", "discriminator", "average"):
        parameters = dict(fresh.modules[module].named_parameters())
        assert {key for key, value in parameters.items() if torch.equal(trained[f"{module}.{key}"], value)} <= idle
    (sheet,) = tmp_path.glob("sheet-*.png")
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 0
    (line,) = [json.loads(text) for text in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert line["latent_effect"] > 0
    assert ("label_effect" in line) == (fresh.recipe.conditioning != "none")
    assert line.get("label_effect", 1.0) > 0


def test_the_discriminator_may_take_more_steps(data):
    task = make_task("wgan-gp", data)
    assert task.step(Progress(), 0.0, Sums()).pictures == 2 * task.recipe.batch


def test_an_auxiliary_classifier_learns_and_teaches(data):
    task, sums = make_task("auxiliary", data), Sums()
    task.step(Progress(), 0.0, sums)
    assert {"class_loss_real", "class_loss_fake"} <= sums.totals.keys()


def test_an_encoder_learns_to_rebuild_and_its_codes_are_drawn_from(data):
    task, sums, progress = make_task("coded", data, learning_rate=0.002), [], Progress()
    for _ in range(60):
        sums.append(Sums())
        progress = task.step(progress, 0.0, sums[-1])
    assert "loss_d" not in sums[-1].totals, "the discriminator has no say yet"
    first, last = (sum(entry.means()["rebuild"] for entry in part) for part in (sums[:10], sums[-10:]))
    assert last < 0.8 * first
    prior = task.generator.prior
    assert prior.seen.sum() == 60 * task.recipe.batch
    prior.fit()
    assert not torch.equal(prior.means[0], prior.means[1])
    task.monitor()
    drawn_from = task.average.prior.state_dict()
    assert all(torch.equal(drawn_from[name], value) for name, value in prior.state_dict().items()), "as codes are"
    task.step(progress, 0.5, sums[-1])
    assert "loss_d" in sums[-1].totals


def test_half_of_the_fakes_are_rebuilt_from_the_reals_beside_them(data, monkeypatch):
    shown, told = [], []
    learn, verdict = Adversary.learn, Adversary.verdict
    monkeypatch.setattr(Adversary, "learn", lambda self, *rest: shown.append(rest[0]) or learn(self, *rest))
    monkeypatch.setattr(Adversary, "verdict", lambda self, *rest: told.append(rest[:3]) or verdict(self, *rest))
    for inverted in (False, True):
        task = make_task("coded", data, loss="relativistic", lecam=0.0, batch=8)
        if inverted:
            pictures = tuple(tuple(255 - each for each in pictures) for pictures in task.reals.pictures)
            task.reals = replace(task.reals, pictures=pictures)
        task.step(Progress(), 0.5, Sums())
    one, other = shown
    assert torch.equal(one.real_labels, one.fake_labels)
    same = [torch.equal(*pair) for pair in zip(one.fakes, other.fakes, strict=True)]
    assert same == [False] * 4 + [True] * 4, "the first four depend on their reals, the others are drawn"
    (fakes, labels, reals), (others, *_) = told
    assert len(fakes) == len(reals) == len(labels) == 8
    assert not any(map(torch.equal, fakes[:4], others[:4]))


def test_progressive_networks_grow_together(data):
    task = make_task("progressive", data, grown_by=0.5)
    edges, progress = [], Progress()
    for done in (0.0, 0.1, 0.2, 0.3, 0.6):
        progress = task.step(progress, done, Sums())
        edges.append(task.sample(0, 0).shape[0])
        assert float(task.generator.stage) == float(task.discriminator.stage) == float(task.average.stage)
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (4, 16)


def test_a_doubling_rests_then_fades():
    assert [_stage(grown, 2) for grown in (0, 0.25, 0.375, 0.5, 0.75, 0.875, 1.0, 1.5)] == [0, 0, 0.5, 1, 1, 1.5, 2, 2]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"family": "cubist"}, "family: cubist is not allowed"),
        ({"family": "vanilla"}, "family 'vanilla' has no 'projection'"),
        ({"family": "vanilla", "conditioning": "none"}, "cannot tile; set wrap = false"),
        ({"family": "biggan", "conditioning": "concat"}, "it has projection"),
        ({"crop_px": 24}, "crop_px: 24 is not allowed; use a power of two"),
        ({"loss": "wasserstein"}, "gradient_penalty: 0.0 is not allowed"),
        ({"gradient_penalty": 10.0}, "the batch norm of dcgan mixes pictures"),
        ({"stability": "perhaps"}, "use one of off, warn, act"),
        ({"beta1": 1.0}, "beta1: 1.0 is not allowed"),
        ({"alpha": True}, "alpha: True is not allowed; use wrap = false with it"),
        ({"flips": "some"}, "flips: some is not allowed; use one of all, mirror, none"),
        ({"groups": 3}, "groups: 3 is not allowed; use 1, 2 or 4"),
        ({"groups": 2, "crop_px": 32, "trim_px": 0}, "dcgan cannot work on groups of 2 pixels"),
        ({"augment_fixed": 2.0}, "augment_fixed: 2.0 is not allowed"),
        ({"rebuild": 1.0}, "rebuild: 1.0 is not allowed; use 0; more for biggan"),
        ({"adversarial": 0.0}, "adversarial: 0.0 is not allowed"),
        ({"adversarial_from": 0.5}, "adversarial_from: 0.5 is not allowed; use 0 or more, below 1; 0 without rebuild"),
    ],
)
def test_what_does_not_go_together_is_refused(data, changes, text):
    with pytest.raises(ConfigInvalid, match=text):
        make_task("dcgan", data, **{"conditioning": "projection", **changes})


def test_a_family_from_the_command_line(data, tmp_path, capsys):
    changes = {"crop_px": 16, "scan_px": 32, "width": 4, "batch": 4, "total_kimg": 0.008, "min_contrast": 0}
    options = [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]
    run = tmp_path / "run"
    assert cli.main(["texture", "--family", "biggan", "--data", str(data), "--run", str(run), *options]) == 0
    assert checkpoint.load(run / "checkpoint").recipe["family"] == "biggan"
    assert cli.main(["texture", "--data", str(data), "--run", str(run), "--resume", "--set=total_kimg=0.012"]) == 0
    assert checkpoint.load(run / "checkpoint").progress.step == 3
    with pytest.raises(ConfigInvalid, match="goes neither with --recipe nor with detail"):
        cli.main(["detail", "--family", "biggan", "--data", str(data), "--run", str(tmp_path / "other")])
    assert "in 2 classes on cpu" in capsys.readouterr().out


SPRITE = {
    "classes": ("gem", "coin"),
    "family": "biggan",
    "conditioning": "projection",
    "loss": "hinge",
    "wrap": False,
    "alpha": True,
    "flips": "mirror",
    "groups": 2,
    "crop_px": 32,
    "trim_px": 0,
    "augment_fixed": 0.5,
    **TOTAL,
}


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Discs and squares of many colours on nothing."""
    folder = tmp_path_factory.mktemp("things")
    rows, columns = np.mgrid[:32, :32] - 15.5
    for name, inside in (("gem", np.hypot(rows, columns) < 10), ("coin", np.maximum(abs(rows), abs(columns)) < 8)):
        for n in range(4):
            color = np.random.default_rng(n).integers(60, 255, 3)
            save(folder / name / f"{n}.png", np.dstack([inside[..., None] * color, inside * 255]).astype(np.uint8))
    pack(folder, folder / "data.zip", license="CC0-1.0")
    return folder / "data.zip"


def test_pictures_with_alpha_are_trained_and_resumed_bit_for_bit(things, tmp_path):
    train(tmp_path / "whole", make_task("biggan", things, **SPRITE), Budget(tick_s=SILENT))
    train(tmp_path / "parts", make_task("biggan", things, **SPRITE), Budget(tick_s=SILENT, steps=3))
    train(tmp_path / "parts", make_task("biggan", things, **SPRITE), Budget(tick_s=SILENT), resume=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    trained = [key for key in whole if key.startswith(("generator.", "discriminator."))]
    assert [key for key in trained if not torch.equal(whole[key], parts[key])] == []
    (sheet,) = (tmp_path / "whole").glob("sheet-*.png")
    with Image.open(sheet) as picture:
        assert picture.mode == "RGB"
        assert picture.getpixel((125, 5)) == (150, 150, 150), "the corner of a real picture shows the ground"


def test_samples_have_alpha_and_truncation_takes_variety(things):
    task = make_task("biggan", things, **SPRITE)
    task._settle()
    assert task.sample(0, 0).shape == (32, 32, 4)

    def spread(truncation):
        made = [sample(task.average, task.recipe, 2, 0, seed, truncation) for seed in range(8)]
        return np.stack(made).astype(float).std(axis=0).mean()

    assert spread(0.1) < spread(1.0) < spread(None) * 1.2


def test_reals_and_fakes_of_a_step_stand_on_one_ground(things):
    task = make_task("biggan", things, **{**SPRITE, "augment_fixed": 1e-9})
    nothing = torch.full((64, 4, 32, 32), -1.0)
    seen = [task._augmented(nothing, Progress(), torch.Generator().manual_seed(n), (5, 0)) for n in range(2)]
    assert torch.equal(*seen)
    assert not torch.equal(seen[0], task._augmented(nothing, Progress(), torch.Generator(), (6, 0)))


def test_sprites_have_recipes_of_their_own(things, tmp_path):
    changes = {"width": 2, "latent": 12, "batch": 4, "total_kimg": 0.004, "precision": "fp32"}
    options = [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]
    words = ["sprite", "--family", "items", "--data", str(things), "--run", str(tmp_path / "run")]
    assert cli.main([*words, *options]) == 0
    assert checkpoint.load(tmp_path / "run/checkpoint").recipe["alpha"] is True
    for name in cli.SPRITES:
        recipe = recipe_from_toml(PictureRecipe, cli.RECIPES / f"{name}.toml")
        assert (recipe.alpha, recipe.wrap, recipe.trim_px, recipe.min_contrast) == (True, False, 0, 0.0)
