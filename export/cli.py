"""``assetgen export``: the command line of export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from assetgen.errors import ConfigInvalid, RuntimeMissing
from assetgen.training.recipe import layouts_from_toml

LICENSES = {"Apache-2.0": Path(__file__).resolve().parent.parent / "LICENSE"}


def main(argv: list[str]) -> int:
    """Run ``assetgen export`` with the arguments after it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="assetgen export", description="Turn training runs into a model package.")
    parser.add_argument("texture", type=Path, help="run folder of assetgen train texture")
    parser.add_argument("--detail", type=Path, help="run folder of assetgen train detail; not for other families")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PACKAGE", help="package folder to write")
    parser.add_argument("--id", help="model id; the folder's name by default")
    parser.add_argument("--version", default="1.0.0", help="version of the package (1.0.0)")
    parser.add_argument("--name", help="name for people; the id by default")
    parser.add_argument("--license", default="Apache-2.0", metavar="SPDX", help="licence of the weights (Apache-2.0)")
    parser.add_argument("--license-file", type=Path, help="its text; needed for any other licence")
    parser.add_argument("--notes", type=Path, help="Markdown for the model card: what the model does well and badly")
    parser.add_argument(
        "--layouts",
        type=Path,
        help="TOML with a table [layouts]: patterns to draw by class instead of those trained on",
    )
    parser.add_argument(
        "--slider-samples",
        type=int,
        default=512,
        metavar="N",
        help="pictures a class to find sliders with (512); fewer are quicker, 0 makes no sliders, nor variations",
    )
    parser.add_argument(
        "--slider-steps", type=int, default=600, metavar="N", help="steps in which sliders are made exact (600)"
    )
    parser.add_argument(
        "--variations",
        type=int,
        default=3,
        metavar="N",
        help="directions found without labels that are measured, and offered beside the sliders (3); 0 for none",
    )
    parser.add_argument(
        "--variation-method",
        default="ganspace",
        metavar="METHOD",
        help="ganspace or sefa: how they are found (ganspace)",
    )
    arguments = parser.parse_args(argv)
    for name, least in (("slider_samples", 32), ("slider_steps", 0)):
        value = getattr(arguments, name)
        if value < least and (value or name != "slider_samples"):
            raise ConfigInvalid(f"--{name.replace('_', '-')} {value}: use {least} or more", hint="or 0 for no sliders")
    license_file = arguments.license_file or LICENSES.get(arguments.license)
    if license_file is None or not license_file.is_file():
        raise ConfigInvalid(f"no text for licence {arguments.license}", hint="give it with --license-file")
    try:
        notes = arguments.notes.read_text(encoding="utf-8") if arguments.notes else ""
    except OSError as error:
        raise ConfigInvalid(f"{arguments.notes} cannot be read: {error.strerror}") from error
    try:
        from assetgen.training import checkpoint
        from export.package_from_picture import package_from_picture
        from export.package_from_runs import package_from_runs
        from export.sliders import Effort
        from export.variations import VariationSettings
    except ImportError as error:
        raise RuntimeMissing(f"export needs {error.name}", hint="pip install 'assetgen[export,cpu]'") from error
    model_id = arguments.id or arguments.output.name
    told: dict[str, Any] = {
        "id": model_id,
        "version": arguments.version,
        "display_name": arguments.name or model_id,
        "license": arguments.license,
        "license_file": license_file,
        "notes": notes,
        "notify": lambda line: print(line, flush=True),  # noqa: T201
    }
    if "family" in checkpoint.load(arguments.texture / "checkpoint").recipe:
        if arguments.detail or arguments.layouts:
            raise ConfigInvalid("--detail and --layouts are not for a run of another family: it has neither")
        package_from_picture(arguments.texture, arguments.output, **told)
        return 0
    if arguments.detail is None:
        raise ConfigInvalid("--detail is missing", hint="train one: assetgen train detail")
    layouts = layouts_from_toml(arguments.layouts) if arguments.layouts else {}
    effort = Effort(arguments.slider_samples, arguments.slider_steps)
    variations = VariationSettings(arguments.variations, arguments.variation_method)
    told |= {"layouts": layouts, "effort": effort, "variations": variations}
    package_from_runs(arguments.texture, arguments.detail, arguments.output, **told)
    return 0
