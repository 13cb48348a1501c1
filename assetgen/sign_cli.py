"""The command `assetgen sign`; imports signature, store and errors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from assetgen.errors import ConfigInvalid
from assetgen.signature import make_keys, sign_package
from assetgen.store import package_folders

PASSWORD_VARIABLE = "ASSETGEN_KEY_PASSWORD"  # noqa: S105 -- its name, not a password


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit status, or raises an error of ours."""
    parser = argparse.ArgumentParser(
        prog="assetgen sign",
        description="Sign packages with a key of your own; `assetgen serve --require-signature` then takes no others.",
        epilog=f"The password of a key is read from {PASSWORD_VARIABLE}.",
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="a package, or a folder of packages")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", type=Path, metavar="FILE", help="PEM file with the private key to sign with")
    what.add_argument("--new-key", type=Path, metavar="FILE", help="make a private key, and FILE.pub to be given away")
    options = parser.parse_args(argv)
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if options.new_key:
        if options.folders:
            raise ConfigInvalid("--new-key signs nothing", hint="make the key, then sign with --key")
        public = make_keys(options.new_key, password)
        print(f"{options.new_key}: keep it to yourself\n{public}: for those who check")  # noqa: T201
        return 0
    packages = [package for folder in options.folders for package in package_folders(folder)]
    if not packages:
        raise ConfigInvalid("there is nothing to sign", hint="give a package, or a folder of packages")
    for package in packages:
        sign_package(package, options.key, password)
        print(f"{package}: signed", flush=True)  # noqa: T201
    return 0
