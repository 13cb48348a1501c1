"""Strict JSON: one error for each broken rule, and what the standard library writes comes back unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.strictjson import MAX_DEPTH, StrictJsonError, build, loads


@dataclass(frozen=True)
class Leaf:
    kind: Literal["a", "b"]
    pair: tuple[int, int]
    value: float | int | str | None = None


@dataclass(frozen=True)
class Tree:
    name: str
    share: float
    flag: bool
    leaves: tuple[Leaf, ...] = ()
    table: Mapping[str, Mapping[str, float]] | Any = None
    limits: Mapping[str, float] = ()  # type: ignore[assignment]


LEAF: dict[str, Any] = {"kind": "a", "pair": [1, 2], "value": None}
TREE: dict[str, Any] = {"name": "x", "share": 0.5, "flag": True, "leaves": [LEAF], "limits": {"a": 1}}


def test_builds_what_was_written():
    tree = build(Tree, loads(json.dumps(TREE).encode()))
    assert tree == Tree("x", 0.5, True, (Leaf("a", (1, 2)),), None, {"a": 1.0})
    assert type(tree.limits["a"]) is float


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (b'{"a": 1, "a": 2}', "duplicate key"),
        (b'{"b": {"a": 1, "a": 2}}', "duplicate key"),
        (b"NaN", "not JSON"),
        (b"[-Infinity]", "not JSON"),
        (b"1e999", "not finite"),
        (b"1" * 10_000, "characters"),
        (b"1." + b"1" * 10_000, "characters"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b'"\xff"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "not JSON"),
        (b"{} {}", "not JSON"),
        (b'{"a": "\n"}', "not JSON"),
    ],
)
def test_refuses(text, rule):
    with pytest.raises(StrictJsonError, match=rule):
        loads(text)


def test_brackets_in_strings_are_no_depth():
    assert loads(json.dumps(["[" * 1000, '"' + "{" * 1000]).encode()) == ["[" * 1000, '"' + "{" * 1000]
    assert loads(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None


def test_a_megabyte_of_quotes_is_scanned_in_one_pass():
    with pytest.raises(StrictJsonError):  # quadratic scanning would run into the test's time limit
        loads(b'"' + b'\\"' * 500_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name: got 1, expected a text"),
        ({"name": None}, "name: got None"),
        ({"share": True}, "share: got True, expected a number"),
        ({"share": "0.5"}, "share: got '0.5'"),
        ({"flag": 1}, "flag: got 1, expected true or false"),
        ({"extra": 1}, "extra: unknown key; allowed are name"),
        ({"leaves": {}}, "leaves: got {}, expected a list"),
        ({"leaves": [1]}, r"leaves\[0\]: got 1, expected an object"),
        ({"leaves": [LEAF | {"kind": "c"}]}, r"leaves\[0\].kind: got 'c', expected one of a, b"),
        ({"leaves": [LEAF | {"pair": [1]}]}, r"leaves\[0\].pair: got \[1\], expected a list of 2"),
        ({"leaves": [LEAF | {"pair": [1, 2.0]}]}, r"pair\[1\]: got 2.0, expected a whole number"),
        ({"leaves": [LEAF | {"value": True}]}, "value: got True"),
        ({"leaves": [LEAF | {"value": []}]}, "value: got"),
        ({"limits": {"a": "x"}}, r"limits\[a\]: got 'x'"),
        ({"limits": []}, "limits: got"),
    ],
)
def test_refuses_a_wrong_type(change, message):
    with pytest.raises(StrictJsonError, match=message):
        build(Tree, TREE | change)


def test_refuses_a_missing_key():
    with pytest.raises(StrictJsonError, match=r"leaves\[0\].pair: missing"):
        build(Tree, TREE | {"leaves": [{"kind": "a"}]})


@given(
    st.builds(Leaf, st.sampled_from(["a", "b"]), st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 9)), st.text())
)
def test_round_trip(leaf):
    assert build(Leaf, loads(json.dumps(asdict(leaf)).encode())) == leaf


@given(st.binary(max_size=200) | st.text(alphabet='[]{}":,1e.\\u-nul', max_size=60).map(str.encode))
def test_any_bytes_give_a_value_or_the_one_error(data):
    try:
        value = loads(data)
    except StrictJsonError:
        return
    assert value == json.loads(data)
