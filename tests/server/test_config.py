"""Settings: each source over the one before, and what is wrong says where it stands."""

import argparse
import os
import tomllib

import pytest

from assetgen import cli
from assetgen.errors import ConfigInvalid
from assetgen.server.config import SETTINGS, add_options, as_toml, settings


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return vars(parser.parse_args(arguments))


def test_options_go_over_the_environment_that_over_the_file_and_that_over_defaults(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nmax_calls = 2\nlog = "error"\nreflection = true\nmodels = ["a", "b"]\n')
    environment = {"ASSETGEN_MAX_CALLS": "3", "ASSETGEN_LOG": "warning", "ASSETGEN_CONFIG": str(file)}
    found = settings(options("--log", "debug", "--no-reflection"), environment)
    assert (found["port"], found["max_calls"], found["log"], found["host"]) == (1, 3, "debug", "127.0.0.1")
    assert found["reflection"] is False
    assert found["models"] == ["a", "b"]
    assert settings(options("--config", str(file)), {"ASSETGEN_CONFIG": "absent"})["port"] == 1


def test_every_setting_has_an_option_and_a_variable_of_its_type():
    texts = {bool: "true", int: "7", float: "7.5", str: "x", list: os.pathsep.join("xy"), type(None): "7"}
    wanted = {bool: True, int: 7, float: 7.5, str: "x", list: ["x", "y"], type(None): 7}
    for setting in SETTINGS:
        if setting.choices:
            continue
        found = settings(options(), {f"ASSETGEN_{setting.name.upper()}": texts[type(setting.default)]})
        assert found[setting.name] == wanted[type(setting.default)], setting.name
        assert f"--{setting.name.replace('_', '-')}" in {
            option for action in parser_actions() for option in action.option_strings
        }


def parser_actions():
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser._actions


def test_what_is_printed_gives_the_same_settings_again(tmp_path, capsys):
    assert cli.main(["serve", "--print-config", "--port", "7", "--models", "C:\\x\ny", "--lazy"]) == 0
    text = capsys.readouterr().out
    file = tmp_path / "serve.toml"
    file.write_text(text)
    assert tomllib.loads(text)["models"] == ["C:\\x\ny"]
    assert as_toml(settings(options("--config", str(file)), {})) == text


WRONG = [
    ("port = 70000", "port"),
    ("port = true", "port"),
    ("port = 1.5", "port"),
    ('port = "1"', "port"),
    ("max_calls = 0", "max_calls"),
    ("drain_s = nan", "drain_s"),
    ('reflection = "yes"', "reflection"),
    ('log = "loud"', "log"),
    ("models = [1]", "models"),
    ("colour = 1", "colour"),
    ("port = [", "TOML"),
    ("host = 1", "host"),
]


@pytest.mark.parametrize(("text", "where"), WRONG)
def test_a_wrong_file_says_where(tmp_path, text, where):
    file = tmp_path / "serve.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match=where) as caught:
        settings(options("--config", str(file)), {})
    assert str(file) in caught.value.message


@pytest.mark.parametrize(
    ("name", "text"), [("PORT", "x"), ("PORT", "-1"), ("LAZY", "perhaps"), ("DRAIN_S", "soon"), ("LOG", "loud")]
)
def test_a_wrong_variable_says_its_name(name, text):
    with pytest.raises(ConfigInvalid, match=f"ASSETGEN_{name}"):
        settings(options(), {f"ASSETGEN_{name}": text})


def test_a_wrong_option_says_its_name_and_an_absent_file_too():
    with pytest.raises(ConfigInvalid, match="--port"):
        settings(options("--port", "many"), {})
    with pytest.raises(ConfigInvalid, match=r"absent\.toml"):
        settings(options("--config", "absent.toml"), {})
