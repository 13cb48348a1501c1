"""A borrowed detail network answers for a new class as it does for the one that this is like."""

import pytest
import torch

from assetgen.errors import CheckpointInvalid, ConfigInvalid
from assetgen.models.detail import DetailConfig, DetailNetwork
from assetgen.training.checkpoint import Checkpoint, Progress
from export import cli
from export.borrow import borrowed
from export.networks import read_runs
from tests.export.test_export import copy_of

KNOWN = ("brick", "metal", "rock")
METAL, JOINTED = (False, True, False), (True, False, False)


def network(classes, metal, jointed):
    return DetailNetwork(DetailConfig(len(classes), (6, 4, 4), 1), metal, jointed)


def trained():
    torch.manual_seed(0)
    made = network(KNOWN, METAL, JOINTED)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    tensors = {f"average.{name}": tensor for name, tensor in made.state_dict().items()}
    recipe = {"classes": KNOWN, "metal_classes": ["metal"], "jointed_classes": ["brick"]}
    facts = {"classes": list(KNOWN), "relief_px": {"brick": 3.0, "metal": 1.0, "rock": 8.0}}
    return made, Checkpoint(recipe=recipe, progress=Progress(), facts=facts, tensors=tensors)


def test_a_new_class_is_made_as_the_one_it_is_like():
    original, saved = trained()
    classes = ("old_metal", "rock", "cliff", "wall")
    like = {"old_metal": "metal", "cliff": "rock", "wall": "brick"}
    made = borrowed(saved, classes, like)
    own = network(classes, (False,) * 4, (False,) * 4)
    own.load_state_dict({name.removeprefix("average."): tensor for name, tensor in made.tensors.items()})
    picture, joints = torch.randn(1, 3, 6, 8), torch.rand(1, 1, 6, 8)
    noises = [torch.randn(1, 1, 12, 16), torch.randn(1, 1, 24, 32)]
    for number, name in enumerate(classes):
        other = KNOWN.index(like.get(name, name))
        with torch.no_grad():
            new = own(picture, torch.eye(4)[[number]], noises, joints)
            old = original(picture, torch.eye(3)[[other]], noises, joints)
        for key in ("base_color", "height", "roughness", "metallic"):
            assert torch.allclose(getattr(new, key), getattr(old, key), rtol=0, atol=1e-5), (name, key)
    assert made.facts["relief_px"] == {"old_metal": 1.0, "rock": 8.0, "cliff": 8.0, "wall": 3.0}
    assert made.recipe["metal_classes"] == ["old_metal"]
    assert made.recipe["jointed_classes"] == ["wall"]
    assert made.facts["classes_like"] == like, "the package tells"


def test_the_same_classes_need_nothing():
    saved = trained()[1]
    assert borrowed(saved, KNOWN, {}) is saved


def test_a_class_without_a_counterpart_is_refused():
    with pytest.raises(CheckpointInvalid, match="does not know cobbles, wall") as caught:
        borrowed(trained()[1], ("cobbles", "rock", "wall"), {})
    assert "--like cobbles=CLASS --like wall=CLASS, of brick, metal, rock" in caught.value.hint


@pytest.mark.parametrize(("like", "message"), [({"wal": "rock"}, "texture run .* 'wal'"), ({"wall": "rok"}, "'rok'")])
def test_names_that_are_not_there_are_refused(like, message):
    with pytest.raises(ConfigInvalid, match=message):
        borrowed(trained()[1], ("wall",), like)


def test_other_orders_are_put_right(runs, tmp_path):
    texture = copy_of(runs[0], tmp_path / "texture", facts={"classes": ["metal", "brick"]})
    assert read_runs(texture, runs[1]).detail.facts["classes"] == ["metal", "brick"]
    assert read_runs(*runs).detail.facts["classes"] == ["brick", "metal"]


def test_on_the_command_line_a_pair_is_needed(runs, tmp_path):
    arguments = [str(runs[0]), "--detail", str(runs[1]), "-o", str(tmp_path / "p"), "--like", "brick"]
    with pytest.raises(ConfigInvalid, match="--like brick is not CLASS=OTHER"):
        cli.main(arguments)
