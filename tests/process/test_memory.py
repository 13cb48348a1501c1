"""Memory that two processes share: layouts, lending, and letting go."""

import gc
import os

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from assetgen.process import memory
from assetgen.process.memory import Slabs, layout_from, layout_of, views

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.dictionaries(
    st.text(max_size=8),
    st.sampled_from(memory.TYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES)),
    max_size=5,
)


def descriptors():
    return psutil.Process().num_fds()


@given(ARRAYS)
def test_arrays_arrive_as_they_were(given_arrays):
    layout = layout_of(given_arrays)
    assert layout_from(layout.text) == layout
    slab = Slabs().take(layout.size_bytes)
    slab.fill(layout, given_arrays)
    found = views(slab.bytes(), layout)
    assert list(found) == list(given_arrays)
    for name, values in given_arrays.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}x",
        b'[["a", "|O8", [1]]]',
        b'[["a", "<f4", [-1]]]',
        b'[["a", "<f4", [4294967296, 4294967296]]]',
        b'[["a", "<f4"]]',
        b'[["a", "<f4", 3]]',
    ],
)
def test_a_layout_that_is_none_is_refused(text):
    with pytest.raises((ValueError, TypeError)):
        layout_from(text)


def test_arrays_that_do_not_fit_are_refused():
    layout = layout_of({"a": np.zeros(memory.STEP_BYTES, np.float32)})
    with pytest.raises(ValueError, match="do not fit"):
        views(Slabs().take(1).bytes(), layout)


def test_lent_memory_is_used_again_when_nobody_holds_it():
    slabs = Slabs()
    layout = layout_of({"a": np.zeros(3, np.float32), "b": np.zeros(5, np.uint8)})
    slab = slabs.take(layout.size_bytes)
    slab.bytes()[:] = 7
    lent = slabs.lend(slab, layout)
    part = lent["b"][1:]
    del lent
    assert slabs.take(layout.size_bytes) is not slab
    assert part.tolist() == [7] * 4
    del part
    gc.collect()
    assert slabs.take(layout.size_bytes) is slab


def test_what_is_too_much_to_keep_is_let_go_and_told():
    slabs, before = Slabs(), descriptors()
    taken = [slabs.take(memory.KEPT_BYTES // 2 + step) for step in range(3)]
    for slab in taken:
        slab.was_sent()
    assert descriptors() == before + 3
    numbers = {slab.number for slab in taken}
    while taken:
        slabs.give_back(taken.pop())
    del slab
    told = {slabs.dropped() for _ in range(4)}
    assert len(told & numbers) == 2
    assert 0 in told
    assert descriptors() == before + 1


def test_nobody_can_shrink_it_or_ask_for_it_by_name():
    slab = Slabs().take(1)
    assert os.fstat(slab.descriptor).st_nlink == 0
    assert not os.get_inheritable(slab.descriptor)
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(slab.descriptor, 0)
