"""Parameters of a manifest act within what this version can do, or the package is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from assetgen.errors import PackageInvalid
from assetgen.kinds.declared import check_declared
from assetgen.manifest import InputSpec, ParameterSpec
from assetgen.package import VerifiedPackage
from tests.helpers.tiny_sprites import sprite_manifest

CHOICES = {"alpha": {"soft", "hard"}}
NUMBERS = {"palette": ("int", 0, 64), "blend": ("float", 0.0, 1.0)}
PALETTE = ParameterSpec("palette", "Colours", "", "int", minimum=0, maximum=64, default=0)
ALPHA = ParameterSpec("alpha", "Edge", "", "choice", default="soft", values=("soft", "hard"))
SIZE = ParameterSpec("size", "Size", "", "float", minimum=-1.0, maximum=1.0, default=0.0)


def check(*parameters, inputs=()):
    manifest = sprite_manifest()
    manifest = replace(manifest, parameters=parameters, inputs=(*manifest.inputs, *inputs))
    check_declared(VerifiedPackage(Path("items"), manifest, "00" * 32), "toy", CHOICES, NUMBERS)


def test_what_acts_is_accepted_and_may_be_narrower():
    check()
    check(PALETTE, ALPHA, SIZE)
    check(replace(PALETTE, minimum=2, maximum=16, default=8), replace(ALPHA, values=("hard",), default="hard"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (replace(PALETTE, maximum=65), "0 to 65; this version takes a int from 0 to 64"),
        (replace(PALETTE, minimum=-1), "from -1"),
        (replace(PALETTE, type="float"), "is a float"),
        (replace(ALPHA, values=("soft", "wavy")), "'wavy', which is none"),
        (
            replace(ALPHA, type="int"),
            "'alpha' of type 'int' is not one that this toy takes: alpha, palette, blend, size",
        ),
        (replace(SIZE, name="warmth"), "'warmth'"),
        (replace(SIZE, type="int"), "'size' of type 'int'"),
    ],
)
def test_what_does_not_act_is_refused_with_what_does(spec, said):
    with pytest.raises(PackageInvalid, match=said):
        check(spec)


@pytest.mark.parametrize("name", ["alpha", "palette"])
def test_a_slider_takes_no_others_name(name):
    with pytest.raises(PackageInvalid, match=f"{name!r} has the name of another"):
        check(inputs=(InputSpec(name, "slider", ("n", 1)),))
