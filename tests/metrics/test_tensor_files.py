"""Tensors from files of others: everything that does not fit is refused, by the library or by us."""

import pytest
import safetensors
import torch
from safetensors.torch import save_file

from assetgen.metrics.tensor_files import load_tensors
from tests.helpers.hostile_tensors import HOSTILE, SOUND, frame

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64)


@pytest.mark.parametrize("dtype", [*KINDS, torch.int64, torch.uint8, torch.bool])
def test_what_is_sound_comes_back_whatever_its_type(tmp_path, dtype):
    path = tmp_path / "t.safetensors"
    given = {"a": torch.arange(6).reshape(2, 3).to(dtype), "scalar": torch.tensor(1).to(dtype), "none": torch.zeros(0)}
    save_file(given, path)
    loaded = load_tensors(path)
    assert loaded.keys() == given.keys()
    for name, values in given.items():
        assert (loaded[name].dtype, loaded[name].shape) == (values.dtype, values.shape)
        assert loaded[name].flatten().tolist() == values.flatten().tolist()


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_found(tmp_path, dtype, value):
    path = tmp_path / "t.safetensors"
    tensor = torch.ones(3, 5)
    tensor[1, 3] = value
    save_file({"sound": torch.ones(2), "b.weight": tensor.to(dtype)}, path)
    with pytest.raises(ValueError, match=r"tensor 'b\.weight' holds values that are not finite"):
        load_tensors(path)


@pytest.mark.parametrize(("data", "rule"), HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_breaks_a_rule_is_refused(tmp_path, data, rule):
    path = tmp_path / "t.safetensors"
    path.write_bytes(data)
    with pytest.raises((ValueError, safetensors.SafetensorError), match=rule):
        load_tensors(path)


def test_the_hostile_files_differ_from_a_sound_one(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(SOUND)
    assert {name: values.tolist() for name, values in load_tensors(path).items()} == {"a": [0.0] * 4, "b": [0.0] * 4}


def test_a_header_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(frame(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))
    with pytest.raises(safetensors.SafetensorError, match="recursion limit"):
        load_tensors(path)
