"""The command `assetgen sign`, as a technical artist and whoever gets the packages use it."""

from __future__ import annotations

import pytest

from assetgen.cli import main
from assetgen.package import SIGNATURE_NAME
from tests.helpers.tiny_package import write_tiny_package


@pytest.fixture
def models(tmp_path):
    for name in ("one", "two"):
        write_tiny_package(tmp_path / "models" / name, name)
    return tmp_path / "models"


def test_a_key_is_made_a_folder_signed_and_no_other_package_taken(models, tmp_path, capsys):
    key = tmp_path / "studio.key"
    assert main(["sign", "--new-key", str(key)]) == 0
    assert f"{key}: keep it to yourself\n{key}.pub: for those who check\n" == capsys.readouterr().out
    check = ["models", "--models", str(models), "--require-signature", f"{key}.pub"]
    assert main(check) == 2
    assert "one: not signed" in capsys.readouterr().err

    assert main(["sign", str(models), "--key", str(key)]) == 0
    assert capsys.readouterr().out == f"{models / 'one'}: signed\n{models / 'two'}: signed\n"
    assert main(check) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]

    (models / "two" / SIGNATURE_NAME).unlink()
    generate = ["generate", "--model", "one", "--size", "32", "--seed", "1", "-o", str(tmp_path / "out")]
    assert main([*generate, *check[1:]]) == 2
    assert "two: not signed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*generate, "--models", str(models / "one"), *check[3:]]) == 0


def test_the_password_comes_from_the_environment(models, tmp_path, capsys, monkeypatch):
    key = tmp_path / "studio.key"
    monkeypatch.setenv("ASSETGEN_KEY_PASSWORD", "a password")
    assert main(["sign", "--new-key", str(key)]) == 0
    assert main(["sign", str(models), "--key", str(key)]) == 0
    monkeypatch.delenv("ASSETGEN_KEY_PASSWORD")
    assert main(["sign", str(models), "--key", str(key)]) == 2
    assert "not with this password" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "studio.key"], "there is nothing to sign"),
        (["folder", "--new-key", "studio.key"], "--new-key signs nothing"),
        (["absent", "--key", "studio.key"], "absent: not a readable folder of models"),
    ],
)
def test_what_makes_no_sense_is_said(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["sign", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_server_has_its_own_keys(capsys):
    assert main(["models", "--server", "127.0.0.1:1", "--require-signature", "studio.key.pub"]) == 2
    assert "--require-signature and --server exclude each other" in capsys.readouterr().err
