"""The command line: arguments, and nothing that takes long to import before a command needs it; imports errors only."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assetgen import __version__
from assetgen.errors import AssetgenError, Cancelled, ConfigInvalid, FieldInvalid, RuntimeMissing

if TYPE_CHECKING:
    from assetgen.describe import ModelInfo
    from assetgen.local import Maker
    from assetgen.types import Request

DEFAULT_SERVER = "127.0.0.1:50051"
TOKEN_VARIABLE = "ASSETGEN_TOKEN"  # noqa: S105 -- its name, not a token
# Statuses of errors that are not the user's to repair.
_FAULTS = {"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNKNOWN"}
# Commands with a command line of their own: module, extra of its packages.
_DELEGATED = {
    "data": ("assetgen.datasets.cli", "train", "prepare training data"),
    "train": ("assetgen.training.cli", "train", "train a model"),
    "export": ("export.cli", "export", "turn a training run into a model package"),
    "sign": ("assetgen.sign_cli", "signing", "sign packages, so that a server can refuse all others"),
    "eval": ("assetgen.training.evaluate", "train", "judge a model by figures beside those of real pictures"),
    "experiment": ("assetgen.training.experiments.cli", "train", "show which objectives lose modes"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for errors of the user's, 1 for others, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in _DELEGATED:
            return _delegate(arguments[0], arguments[1:])
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        return status
    except AssetgenError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 130 if isinstance(error, Cancelled) else 1 if error.status in _FAULTS else 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _delegate(command: str, arguments: list[str]) -> int:
    name, extra, _ = _DELEGATED[command]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        if missing in ("assetgen", "export"):
            hint = "`assetgen export` needs a checkout of the repository; run it there"
        else:
            hint = f"run `uv sync --extra {extra}`, or `pip install 'assetgen[{extra}]'`"
        raise RuntimeMissing(
            f"{error.name or name} is not installed; `assetgen {command}` needs it", hint=hint
        ) from error
    status: int = module.main(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="assetgen", description="Tileable PBR materials from GANs, served to game engines over gRPC."
    )
    parser.add_argument("--version", action="version", version=f"assetgen {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_generate(commands)
    _add_job(commands)
    _add_models(commands)
    for name, (_, _, text) in _DELEGATED.items():
        commands.add_parser(name, help=text, add_help=False)
    _add_doctor(commands)
    _add_bench(commands)
    _add_optimize(commands)
    _add_demo(commands)
    _add_match(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="a package, or a folder of packages; may be repeated (default: those that come with assetgen)",
    )
    devices = "auto, cpu, cuda, openvino, tensorrt, ort-tensorrt, ort-tensorrt-rtx; :N, :fp16, :bf16, :int8 (auto)"
    parser.add_argument("--device", default="auto", help=devices)
    parser.add_argument("--threads", type=int, default=None, help="of the processor (one a physical core)")


def _add_signer_option(parser: argparse.ArgumentParser) -> None:
    text = "PEM file of a public key; packages that none has signed are refused; may be repeated"
    parser.add_argument("--require-signature", action="append", default=[], type=Path, metavar="FILE", help=text)


def _add_access_options(parser: argparse.ArgumentParser) -> None:
    known: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    parser.add_argument("--token-file", **known, help=f"token for the server ({TOKEN_VARIABLE})")
    parser.add_argument("--tls", action="store_true", help="encrypt; the server's authority is one known everywhere")
    parser.add_argument("--tls-ca", **known, help="PEM file: encrypt; the server's authority is this one")
    parser.add_argument("--tls-cert", **known, help="PEM file: this client's own certificate")
    parser.add_argument("--tls-key", **known, help="PEM file: the key of that certificate")


def _add_serve(commands: Any) -> None:
    parser = _command(commands, "serve", _serve, "start the gRPC server")
    from assetgen.server.config import add_options

    add_options(parser)


def _serve(options: argparse.Namespace) -> int:
    from assetgen.server.config import as_toml, settings

    chosen = settings(vars(options))
    if options.print_config:
        print(as_toml(chosen), end="")
        return 0
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines beside our errors would say the same less well
    from assetgen.server import logs
    from assetgen.server.app import open_configured, serve

    logs.set_up(chosen["log"], chosen["log_format"])
    service, config = open_configured(chosen)

    def ready(address: str) -> None:
        names = ", ".join(service.packages) or "no models"
        print(f"assetgen {__version__} serving on {address} ({service.device}): {names}", flush=True)

    serve(service, config, ready)
    service.close()
    logs.let_go()
    return 0


def _add_generate(commands: Any) -> None:
    parser = _command(commands, "generate", _generate, "make assets, in this process or on a server")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--server", metavar="HOST:PORT", help="let this server make them")
    where.add_argument("--local", action="store_true", help="make them in this process (default)")
    parser.add_argument("--model", default="", help="id; not needed where one model alone makes materials")
    parser.add_argument("--class", dest="class_name", metavar="NAME", help="the same as --param class=NAME")
    parser.add_argument("--seed", type=int, help="0 to 4294967295; without it one is drawn and reported")
    parser.add_argument("--count", type=int, default=1, help="number of assets (1)")
    parser.add_argument("--first-index", type=int, default=0, help="index of the first asset (0)")
    parser.add_argument("--size", type=int, default=0, help="width and height in pixels (the model's own)")
    parser.add_argument("--width", type=int, help="width in pixels")
    parser.add_argument("--height", type=int, help="height in pixels")
    parser.add_argument(
        "--param",
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="NAME=@FILE for a picture; may be repeated",
    )
    parser.add_argument("--sheet", action="store_true", help="all sprites on one sheet with its JSON, no single files")
    parser.add_argument("--profile", default="plain", help="plain, unreal, unity-urp, unity-hdrp, godot, blender, gltf")
    parser.add_argument("--maps", default="", help="such as base_color,normal (all)")
    parser.add_argument("--normal", choices=("y_up", "y_down"), help="green channel of normals (the profile's own)")
    parser.add_argument("--encoding", default="png", choices=("png", "raw"), help="PNG files or raw pixels (png)")
    parser.add_argument("--name", default="", help="base of the file names (class, seed and index)")
    parser.add_argument("--priority", default="generate", choices=("preview", "generate", "batch"), help="(generate)")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="give up after this time")
    parser.add_argument(
        "--patience", type=float, default=0.0, metavar="SECONDS", help="ask a server that is full or away again (0)"
    )
    parser.add_argument("--detach", action="store_true", help="let the server make them, and do not wait: see `job`")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    _add_access_options(parser)
    _add_model_options(parser)
    _add_signer_option(parser)


def _generate(options: argparse.Namespace) -> int:
    from assetgen.callers import Priority
    from assetgen.job_cli import detach, teller
    from assetgen.patience import patiently
    from assetgen.save import write_assets

    priority = Priority[options.priority.upper()]
    if options.detach and (not options.server or options.sheet or options.deadline is not None):
        raise ConfigInvalid("--detach needs --server, and goes neither with --sheet nor with --deadline")
    if options.patience and not options.server:
        raise ConfigInvalid("--patience needs --server: in this process nobody is in the way")
    with _maker(options) as maker:
        request = patiently(lambda: _request(options, maker), options.patience)
        if options.detach:
            detach(maker, request, priority, options.output, say, options.patience)
            return 0
        again = {"patience_s": options.patience} if options.server else {}
        events = maker.generate(request, options.deadline, priority=priority, **again)
        if options.sheet:
            from assetgen.sheet import on_one_sheet

            events = on_one_sheet(events)
        write_assets(events, options.output, teller(options.output, say))
    return 0


def _add_job(commands: Any) -> None:
    parser = _command(commands, "job", _job, "wait for a job that `generate --detach` began, and fetch its files")
    parser.add_argument("id", help="as `generate --detach` printed it")
    parser.add_argument("--server", metavar="HOST:PORT", default=DEFAULT_SERVER, help=f"({DEFAULT_SERVER})")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="say how it is, and end")
    what.add_argument("--cancel", action="store_true", help="stop it")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    _add_access_options(parser)
    parser.set_defaults(models=[], require_signature=[])


def _job(options: argparse.Namespace) -> int:
    from assetgen.job_cli import fetch, show

    with _maker(options) as client:
        if options.status or options.cancel:
            show(client, options.id, say, cancel=options.cancel)
        else:
            fetch(client, options.id, options.output, say)
    return 0


def _maker(options: argparse.Namespace) -> Any:
    """A client or a local maker; both are context managers."""
    if options.server:
        if options.models or options.require_signature:
            given = "--models" if options.models else "--require-signature"
            raise ConfigInvalid(f"{given} and --server exclude each other", hint="the server has its own models")
        from assetgen.client import Access, Client

        access = Access(_token(options.token_file), options.tls, options.tls_ca, options.tls_cert, options.tls_key)
        return Client(options.server, access=access)
    from assetgen.local import open_local

    return open_local(options.models, options.device, options.threads, options.require_signature)


def _token(path: Path | None) -> str:
    """The token in a file, or that of the environment; never an option, which every user of the machine could read."""
    if path is None:
        return os.environ.get(TOKEN_VARIABLE, "")
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"--token-file {path}: cannot be read: {error}") from error


def _request(options: argparse.Namespace, maker: Maker) -> Request:
    from assetgen.types import Encoding, NormalConvention, OutputSpec, Request

    model = _model(options.model, maker)
    given = dict(_split(text) for text in options.param)
    if options.class_name is not None:
        given["class"] = options.class_name
    if options.sheet:
        _check_sheet(options, model)
        given["sidecar"] = "on"
    return Request(
        model_id=model.id,
        seed=options.seed,
        count=_positive(options.count, "--count"),
        first_index=options.first_index,
        width_px=options.size if options.width is None else _positive(options.width, "--width"),
        height_px=options.size if options.height is None else _positive(options.height, "--height"),
        parameters={name: _typed(name, value, model) for name, value in given.items()},
        output=OutputSpec(
            maps=_maps(options.maps),
            profile=options.profile,
            normal_convention=NormalConvention(options.normal) if options.normal else None,
            encoding=Encoding.RAW if options.sheet else Encoding(options.encoding),
            name=options.name,
        ),
    )


def _check_sheet(options: argparse.Namespace, model: ModelInfo) -> None:
    if model.kind != "sprite":
        raise ConfigInvalid(
            f"--sheet is for sprites; model {model.id!r} is of kind {model.kind!r}", hint="leave it out"
        )
    if options.encoding == "raw":
        raise ConfigInvalid("--sheet and --encoding raw exclude each other", hint="a sheet is a PNG file")


def _model(model_id: str, maker: Maker) -> ModelInfo:
    if model_id:
        return maker.model(model_id)
    models = maker.models()
    materials = [model for model in models if model.kind == "texture"]
    likely = models if len(models) == 1 else materials
    if len(likely) != 1:
        ids = ", ".join(model.id for model in models) or "none"
        raise ConfigInvalid(
            f"there is not one model for materials but {len(materials)}; all models: {ids}",
            hint="choose one with --model",
        )
    return likely[0]


def _split(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ConfigInvalid(f"--param {text}: no NAME=VALUE", hint="write for example --param truncation=0.5")
    return name, value


def _positive(value: int, option: str) -> int:
    """0 stands for a default on the wire; who types it means something else."""
    if value == 0:
        raise ConfigInvalid(f"{option} 0 is not allowed", hint=f"leave {option} out for the default")
    return value


def _maps(text: str) -> tuple[Any, ...]:
    from assetgen.types import MapKind

    known = [kind.value for kind in MapKind]
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        if name not in known:
            raise FieldInvalid(f"--maps: {name!r} is no map; maps are {', '.join(known)}", field="output.maps")
    return tuple(MapKind(name) for name in names)


def _typed(name: str, text: str, model: ModelInfo) -> float | int | str | Path:
    """The text of a --param as its parameter wants it; the maker judges names and ranges."""
    types = {spec.name: spec.type for spec in model.parameters}
    if types.get(name) == "image":
        if not text.startswith("@"):
            raise FieldInvalid(
                f"parameters[{name}]: {text!r:.80} is no file",
                field=f"parameters[{name}]",
                hint=f"{name}=@FILE sends it",
            )
        return Path(text[1:])
    convert = {"float": float, "int": int}.get(types.get(name, ""), str)
    try:
        value: float | int | str = convert(text)
    except ValueError:
        raise FieldInvalid(
            f"parameters[{name}]: {text!r} is no {types[name]}", field=f"parameters[{name}]", hint="write a number"
        ) from None
    return value


def _add_models(commands: Any) -> None:
    parser = _command(commands, "models", _models, "list models and what they can be asked for")
    parser.add_argument("model", nargs="?", default="", help="id: show its parameters")
    parser.add_argument("--server", metavar="HOST:PORT", help="ask this server")
    parser.add_argument("--json", action="store_true", help="for programs")
    _add_access_options(parser)
    _add_model_options(parser)
    _add_signer_option(parser)


def _models(options: argparse.Namespace) -> int:
    from assetgen import report

    with _maker(options) as maker:
        models = [maker.model(options.model)] if options.model else maker.models()
    print(report.models_json(models) if options.json else report.models_text(models, details=bool(options.model)))
    return 0


def _add_doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", _doctor, "say what is installed and whether it works")
    _add_model_options(parser)


def _doctor(options: argparse.Namespace) -> int:
    from assetgen.doctor import examine

    return examine(options.models, options.device, options.threads, say)


def _add_bench(commands: Any) -> None:
    text = "measure this machine: server, sizes, memory, files, start; for runtimes side by side see optimize --runs"
    parser = _command(commands, "bench", _bench, text)
    parser.add_argument("--model", default="", help="id; not needed where one model alone makes materials")
    parser.add_argument("--only", default="", help="such as server,pixels: server, pixels, memory, encode, start (all)")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each measurement of the server (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    _add_model_options(parser)


def _bench(options: argparse.Namespace) -> int:
    from assetgen.bench import run

    only = tuple(name for name in options.only.split(",") if name)
    return run(options.models, options.model, options.device, options.threads, only, options.seconds, options.json, say)


def _add_optimize(commands: Any) -> None:
    text = "build and measure every runtime and precision here, and write the deploy report"
    parser = _command(commands, "optimize", _optimize, text)
    parser.add_argument("package", type=Path, help="folder of a model package")
    parser.add_argument("--device", default="all", help="one device, such as tensorrt:fp16, beside the reference (all)")
    parser.add_argument("--threads", type=int, default=None, help="of the processor (one a physical core)")
    parser.add_argument("--quick", action="store_true", help="one size and two batches, fewer pictures, no memory")
    parser.add_argument(
        "--runs", type=Path, nargs=2, metavar=("TEXTURE", "DETAIL"), help="runs behind it: PyTorch is measured, too"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="PACKAGE",
        help="another that makes the same from the same inputs, such as a student, in the same tables; may be repeated",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("deploy"), help="folder of the report (deploy)")


def _optimize(options: argparse.Namespace) -> int:
    from assetgen import optimize

    plan = optimize.QUICK if options.quick else optimize.FULL
    others: dict[str, Any] = {}
    if options.runs:
        from export.torch_session import openers

        texture, detail = options.runs
        manifest = optimize.one_package(options.package).manifest
        others = dict(openers(manifest, texture, detail, options.threads))
    return optimize.run(
        options.package, options.device, options.threads, plan, options.output, say, others, options.beside
    )


def _add_demo(commands: Any) -> None:
    parser = _command(commands, "demo", _demo, "start the server and make every class of every model")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    parser.add_argument("--seed", type=int, default=24, help="0 to 4294967295 (24)")
    parser.add_argument("--size", type=int, default=512, help="of materials, in pixels (512)")
    _add_model_options(parser)


def _demo(options: argparse.Namespace) -> int:
    from assetgen.demo import run

    return run(options.models, options.device, options.threads, options.output, options.seed, options.size, say)


def _add_match(commands: Any) -> None:
    parser = _command(commands, "match", _match, "find the seed and sliders that come nearest to a photo")
    parser.add_argument("photo", type=Path, help="PNG, JPEG or WebP; its middle square counts as one scan")
    parser.add_argument("--model", default="", help="id; not needed where one model alone makes materials")
    parser.add_argument("--class", dest="class_name", default="", metavar="NAME", help="search this class only (all)")
    parser.add_argument("--tries", type=int, default=16, help="seeds a class (16)")
    parser.add_argument("--seed", type=int, default=1, help="decides which seeds are tried (1)")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder (out)")
    _add_model_options(parser)


def _match(options: argparse.Namespace) -> int:
    from assetgen.local import open_local
    from assetgen.match import match

    with open_local(options.models, options.device, options.threads) as maker:
        model = _model(options.model, maker)
        names = {"class_name": options.class_name, "tries": options.tries, "seed": options.seed}
        best = match(maker, model, options.photo, options.output, say=say, **names)
    given = " ".join(f"--param {name}={value!s}" for name, value in best.parameters.items())
    found = "".join(f' --models "{folder}"' for folder in options.models)
    say(f"look at {options.output / 'match.png'}, or make it:")
    say(f"  assetgen generate --model {model.id} --seed {best.seed} {given}{found}")
    return 0


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)
