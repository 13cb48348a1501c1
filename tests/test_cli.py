"""The command line as people run it: a process, its output and its exit status."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from assetgen import cli, golden
from assetgen.errors import ConfigInvalid
from assetgen.golden import GoldenRequest
from assetgen.launch import ServerProcess
from assetgen.package import write_manifest
from assetgen.runtime import open_session
from tests.helpers.serving import write_model
from tests.helpers.style_package import photo, saved, style_manifest, write_style_package


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    package = write_model(folder)
    recorded = golden.record(open_session(package, "cpu", 1), package.manifest, [GoldenRequest(3)])
    (package.folder / golden.FILE_NAME).write_text(json.dumps(recorded))
    write_manifest(package.folder, package.manifest)
    return folder


def assetgen(*arguments, cwd=None):
    command = [sys.executable, "-m", "assetgen", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert "Traceback" not in done.stderr
    return done


def options(models):
    return ["--models", models, "--device", "cpu", "--threads", "1"]


def test_help_imports_next_to_nothing():
    code = (
        "import sys\nfrom assetgen.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('numpy', 'grpc', 'onnxruntime', 'PIL', 'google', 'torch', 'asyncio', 'deflate')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    commands = ("serve", "generate", "models", "data", "train", "export", "doctor", "bench", "demo")
    assert all(f"    {command} " in done.stdout for command in commands)


def test_version():
    assert assetgen("--version").stdout.startswith("assetgen 0.")


@pytest.mark.parametrize("command", ["serve", "generate", "models", "doctor", "bench", "demo"])
def test_every_command_has_help(command):
    done = assetgen(command, "--help")
    assert done.returncode == 0
    assert f"usage: assetgen {command}" in done.stdout


def test_patience_is_for_servers(models, tmp_path):
    here = assetgen("generate", "--patience", "5", "-o", tmp_path, *options(models))
    assert here.returncode == 2
    assert "--patience needs --server" in here.stderr


def test_generate_is_the_same_here_and_on_a_server(models, tmp_path):
    wanted = [
        "--class",
        "steel",
        "--seed",
        "5",
        "--count",
        "2",
        "--width",
        "64",
        "--height",
        "32",
        "--profile",
        "unreal",
    ]
    wanted += ["--param", "truncation=0.5", "--param", "variation_seed=9"]
    here = assetgen("generate", *wanted, "--local", "-o", tmp_path / "here", *options(models))
    assert here.returncode == 0, here.stderr
    with ServerProcess([str(option) for option in options(models)]) as server:
        there = assetgen("generate", *wanted, "--server", server.address, "--patience", "30", "-o", tmp_path / "there")
    assert there.returncode == 0, there.stderr
    made = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert sorted(made) == sorted(
        f"T_steel_5_{index}_{kind}.png" for index in (0, 1) for kind in ("D", "N", "ORM", "H")
    )
    assert here.stdout.startswith("seed 5 ")
    assert "done in" in here.stdout
    with Image.open(tmp_path / "here" / "T_steel_5_0_D.png") as picture:
        assert picture.size == (64, 32)


BAD = [
    (["--model", "absent"], "absent"),
    (["--class", "cheese"], "clay, steel"),
    (["--size", "33"], "multiples of 16"),
    (["--size", "-32"], "width_px"),
    (["--width", "0"], "--width 0"),
    (["--count", "0"], "--count 0"),
    (["--count", "65"], "count"),
    (["--seed", "-1"], "seed"),
    (["--seed", "4294967296"], "seed"),
    (["--param", "truncation=2"], "0 to 1"),
    (["--param", "truncation=much"], "no float"),
    (["--param", "truncation"], "NAME=VALUE"),
    (["--param", "glow=1"], "parameters[glow]"),
    (["--profile", "quake"], "unreal"),
    (["--maps", "normal,smell"], "smell"),
    (["--maps", "normal", "--profile", "unreal"], "output.maps"),
    (["--name", "../x"], "output.name"),
    (["--device", "abacus"], "abacus"),
    (["--threads", "0"], "threads"),
    (["--deadline", "0"], "deadline"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_mistakes_are_told_in_two_lines(models, tmp_path, arguments, said, capsys):
    from assetgen.cli import main

    given = ["generate", "-o", str(tmp_path / "out"), *(str(option) for option in options(models)), *arguments]
    assert main(given) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: "))
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_not_there(tmp_path):
    done = assetgen("generate", "--server", "127.0.0.1:1", "-o", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no assetgen server answers at 127.0.0.1:1")
    assert "hint: start one with `assetgen serve`" in done.stderr


def test_models_for_people_and_programs(models):
    assert assetgen("models", *options(models)).stdout.startswith("tiny  1.0.0  texture  ")
    details = assetgen("models", "tiny", *options(models)).stdout
    assert "multiples of 16 from 32 to 1024 px" in details
    assert "truncation" in details
    listed = json.loads(assetgen("models", "--json", *options(models)).stdout)
    assert [model["id"] for model in listed] == ["tiny"]
    assert listed[0]["parameters"][0]["values"] == ["clay", "steel"]


def test_doctor_replays_and_finds_what_is_broken(models, tmp_path):
    healthy = assetgen("doctor", *options(models))
    assert healthy.returncode == 0, healthy.stdout
    assert "seed 3 index 0" in healthy.stdout
    assert "bytes compared: ok" in healthy.stdout
    assert healthy.stdout.splitlines()[-1] == "all is well"
    package = write_model(tmp_path)
    (package.folder / package.manifest.graph).write_bytes(b"\x08altered")
    broken = assetgen("doctor", *options(tmp_path))
    assert broken.returncode == 1
    assert package.manifest.graph in broken.stdout
    assert assetgen("doctor", *options(tmp_path / "absent")).returncode == 1


def test_a_missing_extra_is_named():
    code = (
        "import sys\nsys.modules['torch'] = None\nsys.modules['assetgen.training.cli'] = None\n"
        "from assetgen.cli import main\nsys.exit(main(['train']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_of_meshes_all_other_shipped_models_are_well():
    code = (
        "import sys\nsys.modules['skimage'] = None\n"
        "from assetgen.cli import main\nsys.exit(main(['doctor', '--device', 'cpu']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "model props-3d: left out: meshes need skimage" in done.stdout
    assert "model starter-materials: opens on" in done.stdout


def test_data_is_handed_on():
    done = assetgen("data", "--help")
    assert done.returncode == 0
    assert "usage: assetgen data" in done.stdout


def test_the_demo_makes_every_class_and_a_picture(models, tmp_path):
    done = assetgen("demo", "--size", "64", "-o", tmp_path, *options(models))
    assert done.returncode == 0, done.stderr
    for name in ("clay", "steel"):
        assert len(list((tmp_path / "tiny" / name).glob("*.png"))) == 6
        assert f"tiny: {name}" in done.stdout
    with Image.open(tmp_path / "materials.png") as picture:
        assert picture.width > 512
        assert len(picture.getcolors(2**24)) > 1000
    assert "try next:" in done.stdout
    assert not list(tmp_path.rglob("*.part"))


def test_the_bench_measures_and_writes_json(models, tmp_path):
    figures = tmp_path / "bench.json"
    parts = "server,material,encode,memory"
    done = assetgen("bench", "--only", parts, "--seconds", "0.5", "--json", figures, *options(models))
    assert done.returncode == 0, done.stderr
    measured = json.loads(figures.read_text())
    assert measured["server"]["raw_p50_ms"] > 0
    assert measured["server"]["served_p50_ms"] > 0
    assert measured["material"]["pixels_p50_ms"] > measured["material"]["graph_p50_ms"] > 0
    assert 0.01 < measured["memory"]["peak_gb"] < 4
    assert measured["machine"]
    assert assetgen("bench", "--only", "speed", *options(models)).returncode == 2


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("painter")
    package = write_style_package(folder, style_manifest())
    recorded = golden.record(open_session(package, "cpu", 1), package.manifest, [GoldenRequest(3, 0, 64, 48)])
    (package.folder / golden.FILE_NAME).write_text(json.dumps(recorded))
    write_manifest(package.folder, package.manifest)
    (folder / "photo.png").write_bytes(saved(photo(48, 64)))
    return folder


def test_a_picture_is_sent_with_an_at_sign(painter, tmp_path):
    where = options(painter / "style")
    sent = ["--set", f"image=@{painter / 'photo.png'}", "--set", "strength=0", "--name", "wall", "-o", tmp_path]
    done = assetgen("generate", *where, *sent)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "wall_base_color.png") as made:
        assert (np.asarray(made) == photo(48, 64)).all()
    for text, message in ((str(painter / "photo.png"), "is no file"), ("@none.png", "cannot be read")):
        done = assetgen("generate", *where, "--set", f"image={text}")
        assert done.returncode == 2
        assert done.stderr.startswith("error: parameters[image]: ")
        assert message in done.stderr
    done = assetgen("generate", *where)
    assert done.returncode == 2
    assert "parameters[image]: model 'style' needs it" in done.stderr


def test_models_tell_of_pictures_and_doctor_checks_models_that_take_them(painter):
    done = assetgen("models", "style", *options(painter / "style"))
    assert "@FILE, image/png, image/jpeg, image/webp (required)" in done.stdout
    assert "(the picture's own)" in done.stdout
    done = assetgen("doctor", *options(painter / "style"))
    assert done.returncode == 0, done.stdout
    assert "bytes compared: ok" in done.stdout


@pytest.mark.parametrize(
    ("kinds", "chosen"),
    [(["texture"], 0), (["style"], 0), (["sprite", "texture", "style"], 1), (["sprite", "style"], None), ([], None)],
)
def test_without_a_name_the_only_model_counts_or_the_only_one_for_materials(kinds, chosen):
    models = [SimpleNamespace(id=f"m{number}", kind=kind) for number, kind in enumerate(kinds)]
    maker = SimpleNamespace(models=lambda: models)
    if chosen is not None:
        assert cli._model("", maker).id == f"m{chosen}"
        return
    with pytest.raises(ConfigInvalid, match="not one model for materials but 0") as caught:
        cli._model("", maker)
    assert caught.value.hint == "choose one with --model"
    assert ", ".join(model.id for model in models) in caught.value.message


def test_two_models_for_materials_must_be_told_apart():
    models = [SimpleNamespace(id=name, kind="texture") for name in ("old", "new")]
    with pytest.raises(ConfigInvalid, match="but 2; all models: old, new"):
        cli._model("", SimpleNamespace(models=lambda: models))
