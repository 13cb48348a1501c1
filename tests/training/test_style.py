"""Style transfer between two domains: resumes exactly, learns with all it has, and refuses what it cannot do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen.errors import ConfigInvalid
from assetgen.models import cyclegan, stargan
from assetgen.training import checkpoint, cli, style_recipe
from assetgen.training.batches import Reals
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import Budget, train
from assetgen.training.recipe import recipe_from_toml
from assetgen.training.style import Pool, StyleTask
from assetgen.training.style_look import change, diversity, structure
from assetgen.training.style_recipe import METHODS, PAIR_METHODS, StyleRecipe
from assetgen.training.sums import Sums
from tests.helpers.tiny_styles import PAIR, TINY, make_style_task
from tests.helpers.tiny_styles import style_recipe as tiny_recipe

SILENT = 1e9
TOTAL = {"total_kimg": 0.01}  # 5 steps


def tensors(run):
    return checkpoint.load(run / "checkpoint").tensors


def flat_reals():
    grey = np.full((40, 40, 3), 90, dtype=np.uint8)
    return Reals(("brick", "metal"), ((grey,), (grey + 60,)), (("a",), ("b",)), np.full(2, 0.5))


def test_what_the_recipe_knows_of_the_networks_is_true():
    assert tuple(cyclegan.NORMS) == style_recipe.NORM_NAMES
    assert style_recipe.STRIDE == cyclegan.STRIDE
    assert stargan.NORMS.keys() == set(style_recipe.ADAPTIVE_NORMS)
    for halvings, edge in style_recipe.SMALLEST_SCORED_PX.items():
        cyclegan.PatchDiscriminator(width=2, halvings=halvings)(torch.randn(1, 3, edge, edge))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_recipe_that_fits_it(method):
    domains = {} if method == "stargan" else PAIR
    assert recipe_from_toml(StyleRecipe, cli.RECIPES / f"{method}.toml", domains).method == method


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(data, tmp_path, method):
    train(tmp_path / "whole", make_style_task(method, data, **TOTAL), Budget(tick_s=SILENT))
    train(tmp_path / "parts", make_style_task(method, data, **TOTAL), Budget(tick_s=SILENT, steps=3))
    train(tmp_path / "parts", make_style_task(method, data, **TOTAL), Budget(tick_s=SILENT), resume=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    assert ("pool.pictures" in whole) == ("back_pool.pictures" in whole) == (method == "cyclegan")


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_training_moves_every_parameter_and_leaves_figures_and_a_sheet(data, tmp_path, method):
    fresh = make_style_task(method, data)
    train(tmp_path, make_style_task(method, data, **TOTAL), Budget(tick_s=SILENT))
    trained = tensors(tmp_path)
    for module, network in fresh.modules.items():
        for key, value in network.named_parameters():
            assert not torch.equal(trained[f"{module}.{key}"], value), f"{module}.{key}"
    (sheet,) = tmp_path.glob("sheet-*.png")
    with Image.open(sheet) as picture:
        assert np.asarray(picture).std() > 0
    (line,) = [json.loads(text) for text in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert line["change.metal"] > 0
    assert -1 <= line["structure.metal"] <= 1
    assert line["diversity.metal"] >= 0
    assert ("cycle_error.brick" in line) == ("cycle_error.metal" in line) == (method == "cyclegan")


@pytest.mark.parametrize("method", PAIR_METHODS)
def test_discriminators_never_see_the_border(data, method):
    task, seen = make_style_task(method, data), set()
    for way in task.ways:
        way.discriminator.register_forward_pre_hook(lambda _module, given: seen.add(given[0].shape[2:]))
    task.step(Progress(), 0.0, Sums())
    assert seen == {(32, 32)}


@pytest.mark.parametrize("method", ["cyclegan", "patches"])
def test_terms_beside_the_game_are_lowered_for_every_way(data, method):
    task = make_style_task(method, data, patches=2.0, structure=1.0, structure_aim=1.0, color=1.0)
    sums = Sums()
    task.step(Progress(), 0.0, sums)
    assert {"patches", "kept_structure", "color_excess"} <= sums.means().keys()
    assert task.heads is None
    assert len(task.ways) == (2 if method == "cyclegan" else 1)


def test_patches_draw_contrast_towards_the_target_within_a_few_steps():
    rng = np.random.default_rng(0)
    dull, sharp = (
        tuple(np.clip(rng.normal(128, deviation, (40, 40, 3)), 0, 255).astype(np.uint8) for _ in range(4))
        for deviation in (8, 60)
    )
    reals = Reals(("brick", "metal"), (dull, sharp), (tuple("abcd"),) * 2, np.full(2, 0.5))
    task, progress = StyleTask(tiny_recipe("patches", patches=20.0, structure=0.0, color=0.0), reals, {}), Progress()
    distances = []
    for _ in range(40):
        sums = Sums()
        progress = task.step(progress, 0.0, sums)
        distances.append(sums.means()["patches"])
    assert distances[-1] < 0.7 * distances[0]


def test_flat_pictures_do_not_break_training():
    task, sums = StyleTask(tiny_recipe("cyclegan"), flat_reals(), {}), Sums()
    for step in range(3):
        task.step(Progress(step=step), 0.0, sums)
    assert sums.means()["bad_gradients"] == 0
    assert sums.means()["gradient_g"] < 1e4


def test_batch_norms_of_the_average_have_statistics_of_their_own(data):
    task = make_style_task("fastcut", data, norm="batch")
    progress = task.step(task.step(Progress(), 0.0, Sums()), 0.0, Sums())
    buffers = dict(task.ways[0].average.named_buffers())
    stale = {key: value.clone() for key, value in buffers.items() if key.endswith("running_mean")}
    figures = task.monitor()
    assert all(not torch.equal(buffers[key], value) for key, value in stale.items())
    assert not task.ways[0].average.training
    assert task.monitor() == figures
    assert progress.step == 2


def test_a_pool_fills_then_trades_half_of_what_it_is_given():
    pool, rng = Pool(4, 1), torch.Generator().manual_seed(0)
    numbers = torch.arange(400.0)[:, None, None, None].expand(-1, 3, 1, 1)
    assert torch.equal(pool.exchange(numbers[:4], rng), numbers[:4])
    assert int(pool.count) == 4
    given = pool.exchange(numbers[4:], rng)
    traded = given[:, 0, 0, 0] != numbers[4:, 0, 0, 0]
    assert 0.4 < float(traded.float().mean()) < 0.6
    # Nothing is lost and nothing comes twice.
    everything = torch.cat([given[:, 0, 0, 0], pool.pictures[:, 0, 0, 0]])
    assert torch.equal(everything.sort().values, numbers[:, 0, 0, 0])


def test_a_pool_of_nothing_hands_everything_back():
    pictures = torch.randn(2, 3, 4, 4)
    assert torch.equal(Pool(0, 4).exchange(pictures, torch.Generator().manual_seed(0)), pictures)


def test_structure_asks_for_edges_not_for_colours():
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert structure(picture, picture) == pytest.approx(1)
    assert structure(picture, 0.5 * picture + 0.3) == pytest.approx(1)
    assert structure(picture, -picture) == pytest.approx(-1)
    assert abs(structure(picture, picture.roll(5, dims=3))) < 0.3
    assert structure(picture, torch.zeros_like(picture)) == 0
    assert change(picture, picture) == 0
    assert change(picture, picture + 0.25) == pytest.approx(0.25)


def test_diversity_is_that_of_colours_even_where_pixel_art_has_no_grain():
    rng = torch.Generator().manual_seed(0)
    small = torch.rand(8, 3, 1, 1, generator=rng) + 0.1 * torch.randn(8, 3, 8, 8, generator=rng)
    reals = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert diversity(reals, reals) == pytest.approx(1)
    assert diversity(reals.flip(3), reals) == pytest.approx(1, abs=1e-4)
    assert diversity(reals[:1].expand(8, -1, -1, -1), reals) < 1e-5
    colours = reals.mean(dim=(2, 3), keepdim=True)
    halfway = colours.mean(dim=0) + (reals - colours) + 0.5 * (colours - colours.mean(dim=0))
    assert 0.4 < diversity(halfway, reals) < 0.95


@pytest.fixture(scope="module")
def teachers(data, tmp_path_factory):
    made = {}
    for method in ("cyclegan", "fastcut"):
        made[method] = tmp_path_factory.mktemp(method)
        train(made[method], make_style_task(method, data, total_kimg=0.004), Budget(tick_s=SILENT))
    return made


@pytest.mark.parametrize("method", ["cyclegan", "fastcut"])
def test_a_narrower_student_comes_closer(data, teachers, method):
    task = make_style_task(method, data, width=2, distil=1000.0, learning_rate=0.01)
    task.learn_from(checkpoint.load(teachers[method] / "checkpoint"))
    distances = []
    for _ in range(15):  # of one batch
        sums = Sums()
        task.step(Progress(), 0.0, sums)
        distances.append(sums.means()["distance"])
    assert distances[-1] < 0.9 * distances[0]


def test_a_teacher_of_another_method_is_refused(data, teachers):
    with pytest.raises(ConfigInvalid, match="the teacher was trained with fastcut, not cut"):
        make_style_task("cut", data).learn_from(checkpoint.load(teachers["fastcut"] / "checkpoint"))


@pytest.mark.parametrize(
    ("method", "changes", "text"),
    [
        ("fastcut", {"method": "pix2pix"}, "method: pix2pix is not allowed; use one of cyclegan, cut"),
        ("fastcut", {"source": ""}, "fastcut needs both"),
        ("fastcut", {"target": "brick"}, "both are 'brick'"),
        ("fastcut", {"classes": ("brick", "metal")}, "classes: fastcut has none"),
        ("fastcut", {"cycle": 10.0}, "cycle: 10.0 is not allowed; use 0 with method fastcut"),
        ("fastcut", {"identity": 1.0}, "identity: 1.0 is not allowed; use 0 with method fastcut"),
        ("fastcut", {"pool": 50}, "pool: 50 is not allowed; use 0 with method fastcut"),
        ("cut", {"nce": 0.0}, "nce: 0.0 is not allowed; use above 0 with method cut"),
        ("cyclegan", {"cycle": 0.0}, "cycle: 0.0 is not allowed; use above 0 with method cyclegan"),
        ("cyclegan", {"nce": 1.0}, "nce: 1.0 is not allowed; use 0"),
        ("cyclegan", {"auxiliary": 1.0}, "auxiliary: 1.0 is not allowed; use 0"),
        ("cyclegan", {"border_px": 0}, "border_px: 0 is not allowed; use a multiple of 4: above 0 with wrap"),
        ("cyclegan", {"wrap": False}, "border_px: 4 is not allowed"),
        ("cyclegan", {"border_px": 8}, "crop_px: 40 is not allowed; use a multiple of 4, 32 or more"),
        ("cyclegan", {"scan_px": 32}, "scan_px: 32 is not allowed"),
        ("cyclegan", {"norm": "layer"}, "norm: layer is not allowed; use one of instance, pixel, batch, none"),
        ("cyclegan", {"loss": "relativistic"}, "loss: relativistic is not allowed"),
        ("stargan", {"source": "brick"}, "stargan has neither"),
        ("stargan", {"classes": ("brick",)}, "one domain leads nowhere"),
        ("stargan", {"classes": ("brick", "brick")}, "names a domain twice"),
        ("stargan", {"auxiliary": 0.0}, "auxiliary: 0.0 is not allowed; use above 0"),
        (
            "stargan",
            {"norm": "pixel"},
            "norm: pixel is not allowed; use one of instance, batch, none with method stargan",
        ),
        ("patches", {"patches": 0.0}, "patches: 0.0 is not allowed; use 0 or more; above 0 with method patches"),
        ("stargan", {"patches": 1.0}, "crop_px: 24 is not allowed; use 20 or more with patches"),
        ("patches", {"nce": 1.0}, "nce: 1.0 is not allowed; use 0 with method patches"),
        ("cut", {"patches": -1.0}, "patches: -1.0 is not allowed"),
        ("cut", {"structure_aim": 1.5}, "structure_aim: 1.5 is not allowed; use -1 to 1"),
        ("cut", {"structure": -1.0}, "structure: -1.0 is not allowed"),
        ("cut", {"color": -1.0}, "color: -1.0 is not allowed"),
        ("cut", {"color_room": -0.1}, "color_room: -0.1 is not allowed"),
        ("cut", {"brightness_room": -0.1}, "brightness_room: -0.1 is not allowed"),
        ("cut", {"discriminator_halvings": 4}, "discriminator_halvings: 4 is not allowed; use 2 or 3"),
        ("cut", {"discriminator_norm": "none"}, "discriminator_norm: none is not allowed; use instance, or none if r1"),
        ("stargan", {"crop_px": 40, "border_px": 8}, "crop_px: 40 is not allowed; use a power of two"),
    ],
)
def test_what_does_not_go_together_is_refused(method, changes, text):
    with pytest.raises(ConfigInvalid, match=text):
        tiny_recipe(method, **changes)


def test_without_wrap_nothing_is_cut(data):
    task = make_style_task("fastcut", data, wrap=False, border_px=0, crop_px=32)
    assert task.step(Progress(), 0.0, Sums()).pictures == 2
    assert task.recipe.inner_px == 32


def test_a_style_from_the_command_line(data, tmp_path, capsys):
    options = [f"--set={key}={json.dumps(value)}" for key, value in {**TINY, **PAIR, "total_kimg": 0.004}.items()]
    run = tmp_path / "run"
    assert cli.main(["style", "--family", "cyclegan", "--data", str(data), "--run", str(run), *options]) == 0
    assert checkpoint.load(run / "checkpoint").recipe["method"] == "cyclegan"
    assert cli.main(["style", "--data", str(data), "--run", str(run), "--resume", "--set=total_kimg=0.006"]) == 0
    assert checkpoint.load(run / "checkpoint").progress.step == 3
    student = [*options, "--run", str(tmp_path / "student"), "--distil", str(run), "--set=width=2"]
    assert cli.main(["style", "--family", "cyclegan", "--data", str(data), *student]) == 0
    assert "distilled_from" in checkpoint.load(tmp_path / "student" / "checkpoint").facts
    with pytest.raises(ConfigInvalid, match="goes neither with --recipe nor with texture"):
        cli.main(["texture", "--family", "cut", "--data", str(data), "--run", str(tmp_path / "other")])
    assert "in 2 classes on cpu" in capsys.readouterr().out
