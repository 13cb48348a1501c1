"""``assetgen eval`` as it is typed."""

import hashlib
import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from assetgen import cli as assetgen
from assetgen.datasets.pack import pack
from assetgen.errors import CheckpointInvalid, ConfigInvalid, DataInvalid, OutputUnwritable, RuntimeMissing
from assetgen.package import write_manifest
from assetgen.training import cli, evaluate
from tests.helpers.alexnet import digest, lpips_of_mean_differences, write_alexnet
from tests.helpers.tiny_package import CLASSES, tiny_manifest, write_tiny_package
from tests.helpers.tiny_runs import DETAIL, PICTURE, TEXTURE, picture, save

RECIPE = replace(TEXTURE, classes=CLASSES, scan_px=80, crop_px=48, layouts={}, total_kimg=0.004)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A training file, a run and a package that know its classes."""
    folder = tmp_path_factory.mktemp("evaluate")
    for hue, name in enumerate(CLASSES):
        for n in range(8):
            save(folder / "pictures" / name / f"p{n}.png", picture(10 * hue + n, 80, hue))
    pack(folder / "pictures", folder / "data.zip", license="CC0-1.0", validation_share=0.3)
    settings = [f"--set={key}={json.dumps(value)}" for key, value in asdict(RECIPE).items()]
    cli.main(
        ["texture", "--data", str(folder / "data.zip"), "--run", str(folder / "run"), "--device", "cpu", *settings]
    )
    write_tiny_package(folder / "package")
    digest = hashlib.sha256((folder / "data.zip").read_bytes()).hexdigest()
    described(folder / "package", {"texture": {"recipe": asdict(RECIPE), "data": {"data_sha256": digest}}})
    return folder


def described(folder, provenance, **changes):
    write_manifest(folder, replace(tiny_manifest(), provenance=json.loads(json.dumps(provenance)), **changes))


def judge(place, what, *options, data="data.zip", classifier="none"):
    words = ["model", str(place / what), "--data", str(place / data), "--per-class", "8", "--classifier", classifier]
    return evaluate.main([*words, *options])


@pytest.mark.parametrize("what", ["run", "package"])
def test_an_untrained_model_is_judged_from_start_to_end(place, tmp_path, capsys, what):
    options = ("--json", str(tmp_path / "a.json"), "--sheet", str(tmp_path / "a.png"))
    assert judge(place, what, *options) == 0
    said = capsys.readouterr()
    assert "verdict: not good" in said.out
    assert "not judged: accuracy" in said.out
    assert "measuring steel" in said.err
    known = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert known["classes"].keys() == set(CLASSES)
    assert known["model"] == what
    assert known["verdict"]["good"] is False
    assert known["weights"] > 1000
    assert known["ms_per_picture"] > 0
    assert [note[:31] for note in known["notes"]] == ["note: 8 pictures a class are few"[:31]]
    assert known["all"]["swd"]["fake"] > known["all"]["swd"]["real"]
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.height == len(CLASSES) * 2 * 50
        pixels = np.asarray(sheet)
    # Twelve real pictures and generated ones, and below these their nearest: no cell stays empty.
    assert pixels[:48, 140:].std() > 5
    assert pixels[50:98, 140 + 8 * 50 :].std() > 5
    assert (pixels[50:98, 140 : 140 + 8 * 50 - 2] == 32).all()


def test_a_run_of_another_family_is_judged_too(place, tmp_path, capsys):
    changes = {**asdict(PICTURE), "classes": CLASSES, "scan_px": 80, "crop_px": 32, "total_kimg": 0.004}
    settings = [f"--set={key}={json.dumps(value)}" for key, value in {**changes, "family": "biggan"}.items()]
    cli.main(["texture", "--data", str(place / "data.zip"), "--run", str(tmp_path / "run"), *settings])
    words = ["model", str(tmp_path / "run"), "--data", str(place / "data.zip"), "--per-class", "8"]
    assert evaluate.main([*words, "--classifier", "none"]) == 0
    assert "verdict: not good" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_figures_and_another_others(place, tmp_path):
    files = [tmp_path / f"{n}.json" for n in range(3)]
    for file, seed in zip(files, ("5", "5", "6"), strict=True):
        judge(place, "run", "--seed", seed, "--json", str(file), "--classes", "clay")
    same, again, other = (json.loads(file.read_text("utf-8"))["classes"] for file in files)
    assert same.keys() == {"clay"}
    assert same == again
    assert same != other


def test_a_classifier_of_ones_own_adds_accuracy(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("assetgen.training.classifier.CHECKS", 1)
    own = tmp_path / "own.safetensors"
    words = ["eval", "classifier", "--data", str(place / "data.zip"), "--output", str(own), "--minutes", "0.01"]
    assert assetgen.main(words) == 0
    assert "share of validation crops told right" in capsys.readouterr().out
    with pytest.raises(ConfigInvalid, match="crops of 48 px at scan_px 80; the classifier knows crops of 64 px"):
        judge(place, "run", classifier=str(own))
    facts = json.loads(own.with_suffix(".json").read_text("utf-8"))
    own.with_suffix(".json").write_text(json.dumps({**facts, "crop_px": 48, "scan_px": 80}), "utf-8")
    assert judge(place, "run", "--json", str(tmp_path / "a.json"), classifier=str(own)) == 0
    known = json.loads((tmp_path / "a.json").read_text("utf-8"))
    assert known["all"]["accuracy"]["real"] is not None
    assert known["all"]["coverage"]["fake"] is not None
    assert known["classifier_sha256"] == facts["tensors_sha256"]


def test_inception_figures_need_the_library_and_stand_beside_those_of_reals(place, tmp_path, capsys, monkeypatch):
    weights = tmp_path / "inception.pth"
    weights.write_bytes(b"weights")
    options = ("--inception", str(weights), "--inception-sha256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(RuntimeMissing, match="torch-fidelity"):
        judge(place, "run", "--classes", "clay", *options)

    def calculate_metrics(input1, input2, **_):
        change = float(abs(input1.pictures.mean() - input2.pictures.mean()))
        return {"frechet_inception_distance": change, "kernel_inception_distance_mean": change / 100}

    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(calculate_metrics=calculate_metrics))
    judge(place, "run", "--classes", "clay", "--json", str(tmp_path / "a.json"), *options)
    known = json.loads((tmp_path / "a.json").read_text("utf-8"))["pretrained"]
    assert known["fid"]["fake"] > known["fid"]["real"]
    assert "fid " in capsys.readouterr().out


def test_lpips_stands_beside_that_of_training_crops(place, tmp_path, monkeypatch):
    options = ("--alexnet", str(write_alexnet(tmp_path)), "--alexnet-sha256", digest(tmp_path / "alexnet.pth"))
    monkeypatch.setitem(sys.modules, "lpips", lpips_of_mean_differences())
    judge(place, "run", "--classes", "clay", "--json", str(tmp_path / "a.json"), *options)
    known = json.loads((tmp_path / "a.json").read_text("utf-8"))["pretrained"]
    assert set(known) == {"lpips"}
    assert known["lpips"]["fake"] != known["lpips"]["real"]
    with pytest.raises(ConfigInvalid, match="has the SHA-256"):
        judge(place, "run", *options[:3], "0" * 64)


def test_data_that_the_model_did_not_learn_from_is_pointed_out(place, tmp_path, capsys):
    pack(place / "pictures", tmp_path / "data.zip", license="CC0-1.0", validation_share=0.4)
    judge(place, "run", "--classes", "clay", data=tmp_path / "data.zip")
    assert "note: the model was trained on another file" in capsys.readouterr().out


def test_texels_of_a_package_are_those_of_its_texture_network(place):
    """Four pixels a texel: the means over 4 x 4 px of what the package makes at 192 px."""
    from assetgen.local import open_local
    from assetgen.types import Artifact, Encoding, MapKind, OutputSpec, Request

    output = OutputSpec(maps=(MapKind.BASE_COLOR,), encoding=Encoding.RAW)
    parameters = {"class": "steel", "truncation": 1.0}
    request = Request("tiny", seed=1, count=8, width_px=192, height_px=192, parameters=parameters, output=output)
    with open_local([place / "package"]) as maker:
        made = [event.data for event in maker.generate(request) if isinstance(event, Artifact)]
    large = np.stack([np.frombuffer(data, np.uint8).reshape(192, 192, 3) for data in made]).astype(float)
    asked = SimpleNamespace(model=place / "package", per_class=8, seed=1, truncation=None)
    (found,), scale = evaluate._from_package(asked, RECIPE, CLASSES, ["steel"])
    assert scale == 4
    assert np.array_equal(found, large)


def test_texels_beyond_the_texture_network_are_judged_where_there_are_scans_in_full(place, tmp_path, capsys):
    for hue, name in enumerate(CLASSES):
        for n in range(8):
            save(tmp_path / "pictures" / name / f"p{n}.png", picture(10 * hue + n, 80, hue))
    for n in range(4):
        save(tmp_path / "pictures" / "steel" / f"full{n}.png", picture(50 + n, 320))
    pack(tmp_path / "pictures", tmp_path / "full.zip", license="CC0-1.0", validation_share=0.3)
    assert judge(place, "package", "--json", str(tmp_path / "a.json"), data=tmp_path / "full.zip") == 0
    assert "texels beyond the texture network: SWD of 1 px " in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text("utf-8"))["texels"]
    assert found["classes"] == {"steel": 4.0}
    assert found["fake"].keys() == found["real"].keys() == {"1", "2"}
    assert found["fake"]["1"] > 2 * found["real"]["1"], "it was never trained"


def test_bad_options_are_refused_before_any_work(place, tmp_path):
    with pytest.raises(ConfigInvalid, match="is not a folder"):
        judge(place, "nowhere")
    with pytest.raises(ConfigInvalid, match="neither a package"):
        judge(place, "pictures")
    with pytest.raises(ConfigInvalid, match="--per-class 3"):
        judge(place, "run", "--per-class", "3")
    with pytest.raises(ConfigInvalid, match="--seed -1"):
        judge(place, "run", "--seed", "-1")
    with pytest.raises(ConfigInvalid, match="--classes glass: not of this model; it knows clay, steel"):
        judge(place, "run", "--classes", "glass")
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        judge(place, "run", "--inception", str(tmp_path / "none.pth"))
    with pytest.raises(OutputUnwritable, match="folder does not exist"):
        judge(place, "run", "--json", str(tmp_path / "none" / "a.json"))
    with pytest.raises(ConfigInvalid, match="is not a classifier"):
        judge(place, "run", classifier=str(tmp_path / "none.safetensors"))


def test_data_without_the_classes_or_without_validation_is_refused(place, tmp_path):
    for name in (*CLASSES, "glass"):
        save(tmp_path / "pictures" / name / "p.png", picture(1, 80))
    pack(tmp_path / "pictures", tmp_path / "data.zip", license="CC0-1.0", validation_share=0)
    with pytest.raises(DataInvalid, match="no validation picture for clay, steel"):
        judge(place, "run", data=tmp_path / "data.zip")
    save(tmp_path / "others" / "glass" / "p.png", picture(1, 80))
    pack(tmp_path / "others", tmp_path / "other.zip", license="CC0-1.0")
    with pytest.raises(DataInvalid, match="'clay' is not in"):
        judge(place, "run", data=tmp_path / "other.zip")


def test_models_of_another_make_are_refused(place, tmp_path):
    write_tiny_package(tmp_path / "package")
    with pytest.raises(ConfigInvalid, match="does not say how its texture network was trained"):
        judge(place, tmp_path / "package")
    described(tmp_path / "package", {}, kind="sprite")
    with pytest.raises(ConfigInvalid, match="of kind 'sprite'"):
        judge(place, tmp_path / "package")
    described(tmp_path / "package", {"texture": {"recipe": asdict(replace(RECIPE, crop_px=16))}})
    with pytest.raises(ConfigInvalid, match="crops of 16 px"):
        judge(place, tmp_path / "package")
    state = json.loads((place / "run" / "checkpoint" / "state.json").read_text("utf-8"))
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    for name in ("state.json", "tensors.safetensors"):
        (tmp_path / "run" / "checkpoint" / name).write_bytes((place / "run" / "checkpoint" / name).read_bytes())
    altered = {**state, "recipe": asdict(DETAIL)}
    (tmp_path / "run" / "checkpoint" / "state.json").write_text(json.dumps(altered), "utf-8")
    with pytest.raises(CheckpointInvalid, match="is not a texture run"):
        judge(place, tmp_path / "run")


def test_the_command_line_knows_it(capsys):
    with pytest.raises(SystemExit) as stopped:
        assetgen.main(["eval", "--help"])
    assert stopped.value.code == 0
    assert "{model,classifier,compare,style}" in capsys.readouterr().out


def test_pictures_with_alpha_are_judged_on_grey_with_a_classifier_of_their_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("assetgen.training.classifier.CHECKS", 1)
    for hue, name in enumerate(CLASSES):
        for n in range(8):
            alpha = np.pad(np.full((24, 24, 1), 255, np.uint8), ((4, 4), (4, 4), (0, 0)))
            save(tmp_path / "pictures" / name / f"p{n}.png", np.dstack([picture(10 * hue + n, 32, hue), alpha]))
    data, run, own = (tmp_path / name for name in ("data.zip", "run", "own.safetensors"))
    pack(tmp_path / "pictures", data, license="CC0-1.0", validation_share=0.3)
    changes = {"classes": CLASSES, "width": 2, "latent": 12, "batch": 4, "total_kimg": 0.004, "precision": "fp32"}
    settings = [f"--set={key}={json.dumps(value)}" for key, value in changes.items()]
    cli.main(["sprite", "--family", "items", "--data", str(data), "--run", str(run), *settings])
    recipe = cli.RECIPES / "items.toml"
    words = ["classifier", "--data", str(data), "--output", str(own), "--minutes", "0.01", "--recipe", str(recipe)]
    assert evaluate.main(words) == 0
    figures = {}
    for bound in ("0.05", "2"):
        options = ["--truncation", bound, "--json", str(tmp_path / f"{bound}.json")]
        words = ["model", str(run), "--data", str(data), "--per-class", "8", "--classifier", str(own)]
        assert evaluate.main([*words, *options]) == 0
        figures[bound] = json.loads((tmp_path / f"{bound}.json").read_text("utf-8"))
    said = capsys.readouterr().out
    assert "edges: rim" in said
    assert all(known["all"]["accuracy"]["fake"] is not None for known in figures.values())
    pairs = [known["all"]["pair_distance"]["fake"] for known in figures.values()]
    assert pairs[0] < pairs[1]
    assert figures["2"]["edges"]["fake"].keys() == figures["2"]["edges"]["real"].keys()
    assert figures["2"]["truncation"] == 2.0
    assert figures["2"]["edges"]["real"]["partly"] == 0.0


@pytest.mark.parametrize("kind", ["run", "package"])
def test_less_of_its_variety_is_less_of_it_and_is_said(place, tmp_path, capsys, kind):
    pairs = []
    for share in ("0.0", "1.0"):
        assert judge(place, kind, "--truncation", share, "--json", str(tmp_path / "a.json")) == 0
        assert f"note: pictures were made with a truncation of {share}" in capsys.readouterr().out
        known = json.loads((tmp_path / "a.json").read_text("utf-8"))
        assert known["truncation"] == float(share)
        pairs.append(known["all"]["pair_distance"]["fake"])
    assert pairs[0] < pairs[1]
    judge(place, kind, "--json", str(tmp_path / "all.json"))
    assert "truncation" not in capsys.readouterr().out
    assert json.loads((tmp_path / "all.json").read_text("utf-8"))["all"] == known["all"], "all of it if none is named"


@pytest.mark.parametrize("kind", ["run", "package"])
@pytest.mark.parametrize("share", ["1.01", "-0.1", "nan"])
def test_more_than_all_of_the_variety_is_refused(place, kind, share):
    with pytest.raises(ConfigInvalid, match=f"--truncation {share} is not allowed; use 0 to 1"):
        judge(place, kind, f"--truncation={share}")
