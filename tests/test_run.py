"""run.py sets up an environment once, in an order that keeps the pins, and says what is wrong in two lines."""

import functools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import run

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Record commands and let them succeed, in an environment that lies in tmp_path."""
    commands: list[list[str]] = []
    monkeypatch.setattr(run, "VENV", tmp_path)
    monkeypatch.setattr(run, "make_venv", lambda: None)
    monkeypatch.setattr(run, "run", lambda command: commands.append(command) or 0)
    return commands


def test_tests_get_pins_then_torch_then_the_checkout(calls):
    assert run.main(["test", "-k", "pbr"]) == 0
    installs = [command[5:] for command in calls[:-1]]
    assert installs[0][:2] == ["--require-hashes", "--requirement"]
    assert Path(installs[0][2]) == ROOT / "requirements" / "test.txt"
    assert installs[1] == [run.TORCH]
    assert installs[2][-2:] == ["--editable", str(ROOT)]
    assert calls[-1][1:] == ["-m", "pytest", "-k", "pbr"]


def test_all_tests_run_in_several_processes_that_do_not_share_a_file(calls):
    assert run.main(["test"]) == 0
    command = calls[-1][1:]
    assert command[:4] == ["-m", "pytest", "-n", "auto"]
    assert command[-2:] == ["--dist", "loadfile"]


def test_the_demo_needs_no_torch(calls):
    assert run.main(["demo", "--seed", "7"]) == 0
    assert [run.TORCH] not in [command[5:] for command in calls]
    assert calls[-1][1:] == ["demo", "--seed", "7"]


def test_an_environment_that_is_ready_is_used_as_it_is(calls):
    run.main(["demo"])
    calls.clear()
    run.main(["demo"])
    assert len(calls) == 1


def test_changed_pins_are_installed(calls, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "requirements", tmp_path / "checkout" / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "checkout")
    monkeypatch.setattr(run, "ROOT", tmp_path / "checkout")
    run.main(["demo"])
    calls.clear()
    with (tmp_path / "checkout" / "requirements" / "demo.txt").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    run.main(["demo"])
    assert len(calls) == 3


def test_a_failed_install_is_no_stamp(calls, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "run", lambda command: 1)
    with pytest.raises(run.SetupError, match="pip failed at: packages of"):
        run.main(["demo"])
    assert list(tmp_path.iterdir()) == []


def test_the_exit_status_is_that_of_the_command(calls, monkeypatch):
    run.main(["demo"])
    monkeypatch.setattr(run, "run", lambda command: 3)
    assert run.main(["demo"]) == 3


def test_an_old_python_is_told_so(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(run.SetupError, match=r"this is Python 3\.9\.18; 3\.11 or newer is needed"):
        run.main(["demo"])


def test_a_python_without_venv_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(run.SetupError, match="ensurepip") as caught:
        run.make_venv()
    assert "python3-venv" in caught.value.hint


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["frob"], 2), (["--help"], 0)])
def test_usage(arguments, status):
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (status, run.USAGE, "")


def test_a_real_environment_is_made(monkeypatch, tmp_path):
    folder = tmp_path / "a folder with spaces" / ".venv"
    monkeypatch.setattr(run, "VENV", folder)
    monkeypatch.setattr(run, "PYTHON", folder / run.PYTHON.relative_to(ROOT / ".venv"))
    run.make_venv()
    made = run.PYTHON.stat().st_mtime_ns, (folder / "pyvenv.cfg").stat().st_mtime_ns
    run.make_venv()
    assert made == (run.PYTHON.stat().st_mtime_ns, (folder / "pyvenv.cfg").stat().st_mtime_ns)


@functools.cache
def locked() -> dict[str, set[str]]:
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    versions: dict[str, set[str]] = {}  # several where they depend on the version of Python
    for package in lock["package"]:
        versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


def test_torch_is_the_version_of_the_lock():
    name, version = run.TORCH.split("==")
    assert locked()[name] == {version}


@pytest.mark.parametrize("name", ["demo.txt", "test.txt"])
def test_requirements_are_those_of_the_lock(name):
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)
    assert len(pins) > 15
    assert not {pin for pin in pins if pin[1] not in locked()[pin[0]]}
    assert not {p for p, _ in pins if p.startswith(("torch", "nvidia-")) or p == "triton"}
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text, "an index does not belong here: machines differ in theirs"


def test_the_lock_names_public_places_only():
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    sources = [package["source"] for package in lock["package"]]
    registries = {source["registry"] for source in sources if "registry" in source}
    assert len(registries) == 1
    assert all(source == {"editable": "."} for source in sources if "registry" not in source)
    hosts = set(re.findall(r"(?:https?|file)://([^/\"]*)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert len(hosts) == 2
    assert all(re.fullmatch(r"[a-z]+\.(pythonhosted\.)?org", host) for host in hosts)


def test_ci_runs_the_test_command_of_the_readme():
    command = "python3 run.py test"
    assert f"exec {command}\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
