"""Settings of ``assetgen serve``: defaults, then a file, the environment, and options, each over the one before.

Standard library and errors only: the command line reads the table of settings before anything is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assetgen.errors import ConfigInvalid

PREFIX = "ASSETGEN_"
CONFIG_VARIABLE = "ASSETGEN_CONFIG"
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}
MAX_FILE_BYTES = 2**20
# Memory is handed over by file descriptors, which Windows does not know.
WORKER = "thread" if sys.platform == "win32" else "process"


@dataclass(frozen=True)
class Setting:
    """One setting, named alike in the file, as ``ASSETGEN_NAME`` and as ``--name``.

    Attributes:
        default: also says the type: bool, int, float, str, a list of texts; ``None`` for a whole number or nothing.
        text: help for people.
        choices: allowed values; empty for any.
        low, high: smallest and largest number allowed.
        metavar: what stands for the value in the help.
    """

    name: str
    default: bool | float | str | list[str] | None
    text: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 1e9
    metavar: str | None = None


SETTINGS = (
    Setting("host", "127.0.0.1", "address to listen on; any but a loopback address needs TLS and tokens"),
    Setting("port", 50051, "0 lets the system choose", high=65535),
    Setting("models", [], "a package, or a folder of packages; may be repeated; those of assetgen", metavar="FOLDER"),
    Setting(
        "require_signature",
        [],
        "PEM file of a public key; packages that none has signed are refused; may be repeated",
        metavar="FILE",
    ),
    Setting("device", "auto", "auto, cpu, cuda, cuda:N, openvino or openvino:bf16"),
    Setting("threads", None, "of the processor; one a physical core", low=1, high=1024),
    Setting("lazy", False, "open a model at its first call, not at the start"),
    Setting("memory_mb", 0, "what open models may hold, by estimate, in MiB; 0 sets no limit"),
    Setting("worker", WORKER, "run models in a process of their own or in the server's", choices=("process", "thread")),
    Setting("worker_hang_s", 60.0, "seconds a run may take beyond what is usual before its process is ended", low=0.1),
    Setting("worker_growth_mb", 4096, "MiB that process may grow by before it is replaced; 0 sets no limit"),
    Setting("watch_s", 2.0, "seconds between looks for changed packages; 0 never looks", high=86400),
    Setting("max_calls", 64, "calls under way at once", low=1, high=4096),
    Setting("max_mpx", 64.0, "2**20 pixels of all assets under way at once", low=0.001, high=1e6),
    Setting("picture_mb", 256, "pictures that came with the calls under way, in MiB", low=1, high=1e6),
    Setting("call_cap_s", 600.0, "longest that a call may take, in seconds", low=0.001, high=86400),
    Setting("drain_s", 30.0, "how long calls may still take when the server stops, in seconds", high=86400),
    Setting("tls_cert", "", "PEM file with the server's certificate", metavar="FILE"),
    Setting("tls_key", "", "PEM file with the key of the certificate", metavar="FILE"),
    Setting("tls_client_ca", "", "PEM file; only clients with a certificate of these authorities", metavar="FILE"),
    Setting("tokens", "", "TOML file of tokens; calls without one are refused", metavar="FILE"),
    Setting("metrics_port", None, "port on the loopback address where Prometheus finds metrics", high=65535),
    Setting("otlp_endpoint", "", "where spans of calls go, such as http://127.0.0.1:4318/v1/traces", metavar="URL"),
    Setting("http_port", None, "port of Connect, gRPC-Web and files on HTTP/1.1", high=65535),
    Setting("http_hosts", [], "a name that HTTP clients may call the server by; may be repeated", metavar="NAME"),
    Setting("http_origins", [], "an origin whose web pages may call; may be repeated", metavar="URL"),
    Setting("blob_mb", 256, "what waits to be fetched over HTTP, in MiB", low=1, high=1e6),
    Setting("shared_mb", None, "shared memory for clients on this machine, in MiB; 256 where there is any", high=1e6),
    Setting("jobs_mb", 1024, "files of jobs, in MiB", low=1, high=1e6),
    Setting("jobs_keep_s", 3600.0, "how long a job is kept after its end, in seconds", low=0.001, high=86400),
    Setting("reflection", False, "let clients list services and messages"),
    Setting("log", "info", "detail of the log", choices=("debug", "info", "warning", "error")),
    Setting("log_format", "text", "lines of text or of JSON", choices=("text", "json")),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option a setting; those not given are ``None``."""
    parser.add_argument("--config", metavar="FILE", help=f"TOML file of settings ({CONFIG_VARIABLE})")
    parser.add_argument("--print-config", action="store_true", help="print the settings that would count, and end")
    for setting in SETTINGS:
        option = f"--{setting.name.replace('_', '-')}"
        default = f" ({setting.default})" if setting.default not in ("", None, [], False) else ""
        kind: dict[str, Any] = {"default": None, "dest": setting.name, "help": setting.text + default}
        if isinstance(setting.default, bool):
            kind["action"] = argparse.BooleanOptionalAction
        elif isinstance(setting.default, list):
            kind |= {"action": "append", "metavar": setting.metavar}
        else:
            kind |= {"metavar": setting.metavar or setting.name.upper(), "choices": setting.choices or None}
        parser.add_argument(option, **kind)


def settings(options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """All settings by name.

    Args:
        options: those of the command line, ``None`` where not given; ``config`` names the file.
        environment: by default that of the process.

    Raises:
        ConfigInvalid: a setting is unknown or wrong; the message says where it stands.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
    file = options.get("config") or environment.get(CONFIG_VARIABLE)
    for name, value in (_of_file(Path(file)) if file else {}).items():
        if name not in _BY_NAME:
            raise ConfigInvalid(f"{file}: there is no setting {name!r:.80}; settings are {', '.join(_BY_NAME)}")
        values[name] = _checked(_BY_NAME[name], value, f"{file}: {name}")
    for setting in SETTINGS:
        variable = PREFIX + setting.name.upper()
        if variable in environment:
            values[setting.name] = _checked(setting, _of_text(setting, environment[variable], variable), variable)
    for setting in SETTINGS:
        value = options.get(setting.name)
        if value is not None:
            option = f"--{setting.name.replace('_', '-')}"
            value = _of_text(setting, value, option) if isinstance(value, str) else value
            values[setting.name] = _checked(setting, value, option)
    return values


def as_toml(values: Mapping[str, Any]) -> str:
    """The settings as a file that gives them again; what is not set is left out."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _of_file(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise ConfigInvalid(f"{path}: has more than {MAX_FILE_BYTES} bytes")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path}: the settings cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{path}: no TOML: {error}", hint="see docs/serving.md") from error


def _of_text(setting: Setting, text: str, where: str) -> Any:
    """A value from an option or the environment."""
    default = setting.default
    if isinstance(default, bool):
        if text.lower() not in _TRUE | _FALSE:
            raise ConfigInvalid(f"{where}: {text!r:.80} is not allowed; use true or false")
        return text.lower() in _TRUE
    if isinstance(default, str):
        return text
    if isinstance(default, list):
        return [part for part in text.split(os.pathsep) if part]
    try:
        return float(text) if isinstance(default, float) else int(text)
    except ValueError:
        raise ConfigInvalid(
            f"{where}: {text!r:.80} is no {'number' if isinstance(default, float) else 'whole number'}"
        ) from None


def _checked(setting: Setting, value: Any, where: str) -> Any:
    """``value``, of the setting's type and range."""
    default = setting.default
    if isinstance(default, (str, list, bool)):
        wanted = {str: "a text", list: "a list of texts", bool: "true or false"}[type(default)]
        right = type(value) is type(default) and (not isinstance(value, list) or all(isinstance(v, str) for v in value))
        if not right:
            raise ConfigInvalid(f"{where}: {value!r:.80} is not allowed; use {wanted}")
        if setting.choices and value not in setting.choices:
            raise ConfigInvalid(f"{where}: {value!r:.80} is not allowed; use {', '.join(setting.choices)}")
        return value
    types = (int, float) if isinstance(default, float) else int
    if isinstance(value, bool) or not isinstance(value, types) or not setting.low <= value <= setting.high:
        raise ConfigInvalid(f"{where}: {value!r:.80} is not allowed; use {setting.low:g} to {setting.high:g}")
    return float(value) if isinstance(default, float) else value
