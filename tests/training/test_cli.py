"""``assetgen train`` as it is typed."""

import importlib.util
import json
from dataclasses import asdict

import numpy as np
import pytest

from assetgen.datasets.pack import pack
from assetgen.errors import CheckpointInvalid, ConfigInvalid, DataInvalid, RuntimeMissing
from assetgen.training import checkpoint, cli
from tests.helpers.tiny_runs import DETAIL, PICTURE, TEXTURE, picture, save, write_folder, write_map_set


def train(what, data, run, *options, **changes):
    recipe = {**asdict(TEXTURE if what == "texture" else DETAIL), "total_kimg": 0.004, **changes}
    text = [f"--set={key}={json.dumps(value)}" for key, value in recipe.items()]
    return cli.main([what, "--data", str(data), "--run", str(run), "--device", "cpu", *text, *options])


@pytest.mark.parametrize("what", ["texture", "detail"])
def test_a_run_from_start_to_end(data, tmp_path, capsys, what):
    assert train(what, data, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert f"in 2 classes on cpu in fp32; run folder {tmp_path / 'run'}" in said
    assert "step 1 kimg 0.004 done 1" in said
    assert checkpoint.load(tmp_path / "run" / "checkpoint").progress.step == 1


def test_a_dry_run_prints_the_recipe_and_the_data_and_writes_nothing(data, tmp_path, capsys):
    assert train("texture", data, tmp_path / "run", "--dry-run", "--minutes", "90") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["minutes"] == 90
    assert said["recipe"]["widths"] == [8, 8, 8]
    assert said["pictures"].keys() == {"brick", "metal"}
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_left_out_are_counted(tmp_path, capsys):
    folder = write_folder(tmp_path / "pictures", sets=1)
    save(folder / "brick" / "flat.png", np.full((40, 40, 3), 90, np.uint8))
    pack(folder, tmp_path / "data.zip", license="X")
    assert train("texture", tmp_path / "data.zip", tmp_path / "run", "--dry-run", min_contrast=0.0) == 0
    assert "left out" not in capsys.readouterr().err
    assert train("texture", tmp_path / "data.zip", tmp_path / "run", "--dry-run", min_contrast=1.0) == 0
    assert "note: 1 of 13 pictures are left out: flatter than min_contrast" in capsys.readouterr().err


def test_an_existing_run_is_not_overwritten(data, tmp_path):
    train("texture", data, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint" / "state.json").read_bytes()
    with pytest.raises(ConfigInvalid, match="holds a run already") as caught:
        train("texture", data, tmp_path / "run")
    assert "--resume" in caught.value.hint
    assert train("texture", data, tmp_path / "run", "--dry-run") == 0, "it writes nothing"
    assert (tmp_path / "run" / "checkpoint" / "state.json").read_bytes() == before


def test_resuming_takes_the_recipe_of_the_run(data, tmp_path):
    train("texture", data, tmp_path / "run")
    assert cli.main(["texture", "--data", str(data), "--run", str(tmp_path / "run"), "--resume",
                     "--set", "total_kimg=0.008"]) == 0  # fmt: skip
    saved = checkpoint.load(tmp_path / "run" / "checkpoint")
    assert saved.progress.step == 2
    assert saved.recipe["widths"] == [8, 8, 8]


def test_resuming_a_run_of_the_other_kind_is_an_error(data, tmp_path):
    train("texture", data, tmp_path / "run")
    with pytest.raises(ConfigInvalid, match="is not known"):
        cli.main(["detail", "--data", str(data), "--run", str(tmp_path / "run"), "--resume"])


def test_resuming_what_is_not_there_is_an_error(data, tmp_path):
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        train("texture", data, tmp_path / "run", "--resume")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--minutes", "0"], "--minutes 0.0 is not allowed"),
        (["--set", "batch"], "--set batch is not KEY=VALUE"),
        (["--set", "batches=8"], "recipe key 'batches' is not known"),
        (["--set", "batch=many"], "batch: 'many' is not a int"),
        (["--device", "tpu"], "device 'tpu' is not known"),
    ],
)
def test_wrong_options_are_named(data, tmp_path, options, text):
    with pytest.raises(ConfigInvalid, match=text):
        train("texture", data, tmp_path / "run", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeMissing, match="PyTorch sees no GPU"):
        train("texture", data, tmp_path / "run", "--device", "cuda")


def test_a_class_without_pictures_is_an_error(data, tmp_path):
    with pytest.raises(DataInvalid, match="no usable picture for brick, metal"):
        train("texture", data, tmp_path / "run", crop_px=64)
    with pytest.raises(DataInvalid, match="class 'lava' is not in"):
        train("texture", data, tmp_path / "run", classes=["lava"])
    with pytest.raises(DataInvalid, match="does not exist"):
        train("texture", tmp_path / "nothing.zip", tmp_path / "run")


def test_pictures_that_no_crop_fits_into_are_left_out_of_detail(tmp_path):
    save(tmp_path / "f" / "brick" / "wide.png", picture(0, 128)[:40])
    pack(tmp_path / "f", tmp_path / "wide.zip", license="X", validation_share=0)
    with pytest.raises(DataInvalid, match="that a crop fits into"):
        train("detail", tmp_path / "wide.zip", tmp_path / "run", classes=["brick"])
    write_map_set(tmp_path / "f" / "brick" / "set", 0, 128)
    pack(tmp_path / "f", tmp_path / "both.zip", license="X", validation_share=0)
    assert train("detail", tmp_path / "both.zip", tmp_path / "run", classes=["brick"]) == 0


def test_tensorboard_is_written_if_installed_and_missed_if_not(data, tmp_path):
    run = tmp_path / "run"
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(RuntimeMissing, match="TensorBoard is not installed"):
            train("texture", data, run, "--tensorboard")
        assert not (run / "checkpoint").exists()
        return
    train("texture", data, run, "--tensorboard")
    assert any((run / "tensorboard").iterdir())


@pytest.mark.parametrize("family", ["", "biggan"])
def test_one_picture_of_one_class_is_enough_to_train(tmp_path, family):
    save(tmp_path / "f" / "brick" / "only.png", picture(0, 40))
    pack(tmp_path / "f", tmp_path / "one.zip", license="CC0-1.0", validation_share=0)
    recipe = {**asdict(PICTURE), "family": family} if family else asdict(TEXTURE)
    options = [
        f"--set={key}={json.dumps(value)}" for key, value in {**recipe, "classes": [], "total_kimg": 0.008}.items()
    ]
    words = ["--family", family] if family else []
    assert (
        cli.main(["texture", *words, "--data", str(tmp_path / "one.zip"), "--run", str(tmp_path / "r"), *options]) == 0
    )
    assert checkpoint.load(tmp_path / "r" / "checkpoint").facts["classes"] == ["brick"]


def test_pictures_of_mixed_sizes_train_together(tmp_path):
    for edge in (34, 40, 64, 200):
        save(tmp_path / "f" / "brick" / f"{edge}.png", picture(edge, edge)[: edge - 2])
    pack(tmp_path / "f", tmp_path / "mixed.zip", license="CC0-1.0", validation_share=0)
    assert train("texture", tmp_path / "mixed.zip", tmp_path / "run", classes=["brick"]) == 0


def test_networks_of_another_family_are_no_start(data, tmp_path):
    train("texture", data, tmp_path / "first")
    options = [f"--set={key}={json.dumps(value)}" for key, value in asdict(PICTURE).items()]
    with pytest.raises(CheckpointInvalid, match="no tensor of that run fits"):
        cli.main(["texture", "--family", "dcgan", "--data", str(data), "--run", str(tmp_path / "second"), *options,
                  "--transfer", str(tmp_path / "first")])  # fmt: skip
