"""Checkpoints on disk: whole or refused, and one is always there."""

import hashlib
import json
import math
import shutil

import pytest
import safetensors
import torch
from torch import nn

from assetgen.errors import CheckpointInvalid, OutputUnwritable
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Progress
from assetgen.training.loop import adam, adapt_augmentation
from tests.helpers.hostile_tensors import HOSTILE
from tests.helpers.tiny_runs import TEXTURE


def network(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    optimiser = adam(net, 0.01)
    net(torch.randn(2, 3, 3, 3)).square().sum().backward()
    optimiser.step()
    return net, optimiser


@pytest.fixture
def saved(tmp_path):
    net, optimiser = network()
    checkpoint.save(tmp_path / "c", {"seed": 1}, Progress(3, 12), {"classes": ["a"]}, {"net": net}, {"adam": optimiser})
    return tmp_path / "c"


def save_again(folder, step):
    net, optimiser = network(step)
    checkpoint.save(folder, {"seed": 1}, Progress(step), {}, {"net": net}, {"adam": optimiser})


def test_everything_comes_back(saved):
    loaded = checkpoint.load(saved)
    assert (loaded.progress, loaded.recipe, loaded.facts) == (Progress(3, 12), {"seed": 1}, {"classes": ["a"]})
    expected, former = network()
    net, optimiser = network(5)
    checkpoint.restore_module(net, loaded, "net")
    checkpoint.restore_optimiser(optimiser, loaded, "adam")
    for a, b in zip(net.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimiser.state[a][key], former.state[b][key])


@pytest.mark.parametrize("key", ["adam.9.exp_avg", "adam.-1.exp_avg", "adam.x.exp_avg", "adam.", "adam.4"])
def test_averages_of_other_weights_are_refused(saved, key):
    loaded = checkpoint.load(saved)
    loaded.tensors[key] = torch.zeros(1)
    with pytest.raises(CheckpointInvalid, match=f"tensor '{key}' does not fit the recipe: adam has 4 weights"):
        checkpoint.restore_optimiser(network(5)[1], loaded, "adam")


def test_a_restored_optimiser_goes_on_as_before_whatever_the_memory_format(tmp_path):
    """Fused Adam goes through weight and averages from end to end, whatever their strides say."""
    pictures = torch.randn(2, 3, 3, 3)

    def step(net, optimiser):
        optimiser.zero_grad()
        net(pictures).square().sum().backward()
        optimiser.step()

    former, net = (network(seed)[0].to(memory_format=torch.channels_last) for seed in (0, 5))
    optimiser, restored = adam(former, 0.01), adam(net, 0.01)
    step(former, optimiser)
    checkpoint.save(tmp_path / "c", {}, Progress(2), {}, {"net": former}, {"adam": optimiser})
    loaded = checkpoint.load(tmp_path / "c")
    checkpoint.restore_module(net, loaded, "net")
    checkpoint.restore_optimiser(restored, loaded, "adam")
    step(former, optimiser)
    step(net, restored)
    for a, b in zip(net.parameters(), former.parameters(), strict=True):
        assert torch.equal(a, b)
        assert restored.state[a]["exp_avg"].stride() == a.stride()


def test_no_pickle_is_written(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["state.json", "tensors.safetensors"]
    assert all(not path.read_bytes().startswith((b"\x80", b"PK")) for path in saved.iterdir())


def test_an_altered_tensor_is_found(saved):
    path = saved / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointInvalid, match=r"tensors\.safetensors was altered"):
        checkpoint.load(saved)


@pytest.mark.parametrize(("data", "rule"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tensors_are_refused_though_their_hash_is_right(saved, data, rule):
    (saved / "tensors.safetensors").write_bytes(data)
    state = json.loads((saved / "state.json").read_text())
    state["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointInvalid, match=rf"is not a checkpoint: .*{rule}"):
        checkpoint.load(saved)


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_missing_file_is_found(saved, name):
    (saved / name).unlink()
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        checkpoint.load(saved)


def test_another_format_is_refused(saved):
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps({**state, "format": 2}))
    with pytest.raises(CheckpointInvalid, match="has format 2; 1 is supported"):
        checkpoint.load(saved)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', "\x00", "null"])
def test_a_strange_state_is_refused(saved, text):
    (saved / "state.json").write_text(text)
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        checkpoint.load(saved)


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_a_state_nested_without_end_is_refused(saved, text):
    (saved / "state.json").write_text(text)
    with pytest.raises(CheckpointInvalid, match="nested deeper than 16 levels"):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("progress", '{"step": "many"}', "progress.step: got 'many'"),
        ("progress", '{"elapsed_s": NaN}', "NaN is not JSON"),
        ("progress", '{"elapsed_s": 1e999}', "1e999 is not finite"),
        ("facts", '"none"', "is not a checkpoint"),
        ("recipe", "7", "is not a checkpoint"),
        ("format", '1, "format": 1', "duplicate key 'format'"),
    ],
)
def test_a_state_that_is_not_what_it_should_be_is_refused(saved, key, value, rule):
    state = json.loads((saved / "state.json").read_text())
    text = json.dumps({**state, key: "HERE"}).replace('"HERE"', value)
    (saved / "state.json").write_text(text)
    with pytest.raises(CheckpointInvalid, match=rule):
        checkpoint.load(saved)


def test_unknown_progress_is_refused(saved):
    state = json.loads((saved / "state.json").read_text())
    (saved / "state.json").write_text(json.dumps({**state, "progress": {"leaps": 3}}))
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        checkpoint.load(saved)


def test_a_step_without_scores_leaves_a_state_that_can_be_read(tmp_path):
    progress = Progress(3, 12, sign_sum=1.0, sign_count=2)
    for signs in (math.nan, 1.0):
        progress = adapt_augmentation(progress, TEXTURE, signs)
    net, _ = network()
    checkpoint.save(tmp_path / "c", {}, progress, {}, {"net": net}, {})
    assert checkpoint.load(tmp_path / "c").progress == Progress(3, 12, sign_sum=2.0, sign_count=3)


def test_a_later_checkpoint_replaces_the_former(saved):
    save_again(saved, 9)
    assert checkpoint.load(saved).progress.step == 9
    assert [path.name for path in saved.parent.iterdir()] == ["c"]


def test_a_replacement_that_was_interrupted_leaves_the_former(saved):
    """Between the two renames: the old one stands aside, the new one is not yet in place."""
    shutil.copytree(saved, saved.with_name("c.partial"))
    saved.rename(saved.with_name("c.old"))
    assert checkpoint.load(saved).progress.step == 3
    save_again(saved, 9)
    assert checkpoint.load(saved).progress.step == 9
    save_again(saved, 10)
    assert checkpoint.load(saved).progress.step == 10
    assert [path.name for path in saved.parent.iterdir()] == ["c"]


def test_a_partial_checkpoint_is_never_read(saved):
    saved.rename(saved.with_name("c.partial"))
    with pytest.raises(CheckpointInvalid, match="is not a checkpoint"):
        checkpoint.load(saved)


def test_a_full_disk_is_an_error_of_ours(saved, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputUnwritable, match="No space left on device"):
        save_again(saved, 9)
    assert checkpoint.load(saved).progress.step == 3


def test_tensors_that_do_not_fit_are_refused(saved):
    loaded = checkpoint.load(saved)
    with pytest.raises(CheckpointInvalid, match="tensors of net do not fit the recipe"):
        checkpoint.restore_module(nn.Linear(2, 2), loaded, "net")
