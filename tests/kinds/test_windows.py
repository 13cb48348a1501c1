"""Windows cover a picture once, and computing in them changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.kinds import texture
from assetgen.kinds.windows import count_windows, run_in_windows, spans
from assetgen.runtime import open_session
from assetgen.types import Request
from tests.helpers.serving import write_model


@given(cells=st.integers(1, 400), halo=st.integers(1, 12), room=st.integers(1, 64), stride=st.sampled_from([1, 4, 16]))
def test_spans_cover_the_axis_once(cells: int, halo: int, room: int, stride: int) -> None:
    window = room + 2 * halo
    parts = spans(cells * stride, window * stride, halo * stride, stride)
    covered = [px for part in parts for px in range(part.start_px, part.start_px + part.length_px)]
    assert covered == list(range(cells * stride))
    assert all(part.length_px + 2 * part.margin_px <= window * stride for part in parts)
    assert all(part.start_px % stride == 0 and part.length_px % stride == 0 for part in parts)
    assert all((part.margin_px == 0) == (len(parts) == 1) for part in parts)


def test_no_window_is_the_whole() -> None:
    assert [(part.length_px, part.margin_px) for part in spans(4096, 0, 0, 16)] == [(4096, 0)]


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (6, 6), (7, 6), (5, 19), (20, 33)])
def test_windows_give_what_the_whole_gives(tmp_path: Path, rows: int, columns: int) -> None:
    package = write_model(tmp_path)
    session = open_session(package, "cpu", threads=1)
    manifest = replace(package.manifest, size=replace(package.manifest.size, window_px=256, halo_px=64))
    request = Request(manifest.id, seed=rows, width_px=16 * columns, height_px=16 * rows)
    inputs = texture.prepare(manifest, texture.resolve(manifest, request), 0)
    whole, windowed = session.run(inputs), run_in_windows(session.run, manifest, inputs)
    for name, values in whole.items():
        assert np.abs(values - windowed[name]).max() <= 1e-6
    expected = len(spans(16 * rows, 256, 64, 16)) * len(spans(16 * columns, 256, 64, 16))
    assert count_windows(manifest, 16 * rows, 16 * columns) == expected
