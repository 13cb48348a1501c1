"""The manifest: what it may say, its rules one by one, and its bytes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen.errors import PackageInvalid
from assetgen.manifest import FileEntry, InputSpec, Manifest, is_file_name, is_model_id
from assetgen.package import MAX_MANIFEST_BYTES, manifest_from_bytes, manifest_to_bytes, read_manifest
from tests.helpers.style_package import style_manifest
from tests.helpers.tiny_package import tiny_manifest

HOSTILE_IDS = [
    *("..", "../x", "a/../b", "/etc", "a/b", "a\\b", "C:\\x", "con ", ".hidden", "", "a" * 64, "\uff21", "a\0", "a\n"),
    *("%2e%2e", "a%00", "a.", "-a", "a-", "models/x", "a\u2013b", "~", "$(x)", "A", " ..", "a/", "\xe4"),
    *("con", "nul", "com1", "lpt9", "aux"),
]


def manifest(**changes: Any) -> Manifest:
    files = (FileEntry("generator.onnx", 10, "0" * 64),)
    return replace(tiny_manifest(), files=files, **changes)


def document(**changes: Any) -> dict[str, Any]:
    return json.loads(manifest_to_bytes(manifest())) | changes


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_round_trip_keeps_everything():
    data = manifest_to_bytes(manifest())
    again = manifest_from_bytes(data)
    assert again == manifest()
    assert manifest_to_bytes(again) == data


def look_inputs(**shapes: Any) -> tuple[InputSpec, ...]:
    """The inputs of a model that mixes styles and has a slider."""
    roles = {"z_2": ("second_latent", 8), "mix": ("mix", 2), "warmth": ("slider", 1)}
    return tuple(InputSpec(name, role, shapes.get(name, ("n", size))) for name, (role, size) in roles.items())  # type: ignore[arg-type]


def test_round_trip_keeps_mixing_and_sliders():
    inputs = (*tiny_manifest().inputs, *look_inputs(), InputSpec("grit", "slider", ("n", 1)))
    assert manifest_from_bytes(manifest_to_bytes(manifest(inputs=inputs))).inputs == inputs


@pytest.mark.parametrize(
    ("inputs", "rule"),
    [
        (look_inputs(z_2=("n", 9)), r"inputs\[z_2\].shape"),
        (look_inputs(mix=("n", 3)), r"inputs\[mix\].shape"),
        (look_inputs(warmth=("n", 2)), r"inputs\[warmth\].shape"),
        (look_inputs(warmth=("n", 1, "h", "w")), r"inputs\[warmth\].shape"),
        (look_inputs()[:1], "mix and second_latent', allowed is both or neither"),
        (look_inputs()[1:], "mix and second_latent', allowed is both or neither"),
        ((*look_inputs(), InputSpec("z_3", "second_latent", ("n", 8))), "2 of role second_latent"),
    ],
)
def test_inputs_of_mixing_and_sliders_are_checked(inputs, rule):
    with pytest.raises(ValueError, match=rule):
        manifest_from_bytes(manifest_to_bytes(manifest(inputs=(*tiny_manifest().inputs, *inputs))))


def style(**changes: Any) -> Manifest:
    """A model that takes a picture: no latent."""
    return replace(style_manifest(), files=(FileEntry("generator.onnx", 10, "0" * 64),), **changes)


def test_a_model_that_takes_a_picture_needs_no_latent():
    assert manifest_from_bytes(manifest_to_bytes(style())) == style()


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (style(kind="texture"), "1 of role image', allowed is 0 in kind 'texture'"),
        (style(inputs=style_manifest().inputs[1:]), "0 of role image', allowed is 1 in kind 'style'"),
        (
            style(inputs=(*style_manifest().inputs, InputSpec("other", "image", ("n", 3, "h", "w"), 1))),
            "2 of role image",
        ),
        (style(inputs=(InputSpec("image", "image", ("n", 4, "h", "w"), 1),)), r"inputs\[image\].shape"),
        (style(inputs=(InputSpec("image", "image", ("n", 3, 64, 64), 1),)), r"inputs\[image\].shape"),
        (style(inputs=(InputSpec("image", "image", ("n", 3, "h", "w")),)), r"inputs\[image\].stride_px"),
        (style(latent_dimension=-1), "latent_dimension"),
        (manifest(kind="style"), "0 of role image"),
    ],
)
def test_inputs_that_are_pictures_are_checked(value, rule):
    with pytest.raises(ValueError, match=rule):
        manifest_from_bytes(manifest_to_bytes(value))


def test_bytes_do_not_depend_on_the_order_of_mappings():
    one = manifest(provenance={"a": 1, "b": 2})
    other = manifest(provenance={"b": 2, "a": 1})
    assert manifest_to_bytes(one) == manifest_to_bytes(other)


def test_digest_is_the_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(manifest_to_bytes(manifest()))
    found, digest = read_manifest(path)
    assert found == manifest()
    # An independent reader of the same bytes.
    tool = subprocess.run(
        [
            sys.executable,
            "-c",
            "import hashlib,sys; print(hashlib.sha256(open(sys.argv[1],'rb').read()).hexdigest())",
            path,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert digest == tool.stdout.strip()
    assert read_manifest(path, digest) == (found, digest)


def test_another_digest_is_refused_before_parsing(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(b"not JSON at all")
    with pytest.raises(PackageInvalid, match=r"digest is .*, expected 00"):
        read_manifest(path, "0" * 64)


@pytest.mark.parametrize("model_id", HOSTILE_IDS)
def test_hostile_ids_are_refused(tmp_path, model_id):
    assert not is_model_id(model_id)
    with pytest.raises(PackageInvalid, match="id: got"):
        read_manifest(write(tmp_path / "manifest.json", document(id=model_id)))


@pytest.mark.parametrize("model_id", ["a", "stone-tiles", "0", "a" * 63, "a--b", "console"])
def test_good_ids_pass(tmp_path, model_id):
    assert read_manifest(write(tmp_path / "manifest.json", document(id=model_id)))[0].id == model_id


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a/b", "a\\b", "..", ".", ".x", "x.", "", "nul.onnx", "CON", "a\n", "a:b"]
)
def test_hostile_file_names_are_refused(tmp_path, name):
    assert not is_file_name(name)
    files = [{"path": name, "size_bytes": 1, "sha256": "0" * 64}, *document()["files"]]
    with pytest.raises(PackageInvalid, match=r"files.path: got"):
        read_manifest(write(tmp_path / "manifest.json", document(files=files)))


def changed(section: str, index: int | None = None, **changes: Any) -> dict[str, Any]:
    value = document()
    target = value[section] if index is None else value[section][index]
    target.update(changes)
    return value


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (document(schema=2), "schema: got 2, this version reads 1"),
        (document(schema="1"), "schema: got '1'"),
        (document(schema=True, future=1), "schema: got True"),
        (document(surprise=1), "surprise: unknown key"),
        ([], "the document: got"),
        ({"schema": 1}, "missing"),
        (document(version="1"), "version"),
        (document(version="1.0.0\n"), "version"),
        (document(kind="Texture"), "kind"),
        (document(display_name=""), "display_name"),
        (document(license=""), "license"),
        (document(description="x" * 1001), "description"),
        (document(graph="other.onnx"), "graph: got 'other.onnx'"),
        (document(graph="../generator.onnx"), "graph"),
        (document(files=[]), "graph"),
        (document(files=document()["files"] * 2), "each name once"),
        (document(files=[document()["files"][0] | {"path": "manifest.json"}]), "every file but the manifest"),
        (document(files=[{"path": f"{i}.md", "size_bytes": 1, "sha256": "0" * 64} for i in range(99)]), "at most 32"),
        (changed("files", 0, size_bytes=-1), "size_bytes"),
        (changed("files", 0, size_bytes=1 << 40), "size_bytes"),
        (changed("files", 0, size_bytes=1.0), "size_bytes"),
        (changed("files", 0, sha256="F" * 64), "sha256"),
        (changed("files", 0, sha256="0" * 63), "sha256"),
        (changed("size", stride_px=0), "size.stride_px"),
        (changed("size", min_px=0), "size.min_px"),
        (changed("size", max_px=1000), "size.max_px"),
        (changed("size", max_px=1 << 20), "size.max_px"),
        (changed("size", default_px=16), "size.default_px"),
        (document(latent_dimension=9), r"inputs\[z\].shape"),
        (document(latent_dimension=0), "latent_dimension"),
        (document(classes=[]), "class_weights"),
        (changed("classes", 0, name="steel"), "each name once"),
        (changed("classes", 0, name="../x"), "classes.name"),
        (changed("classes", 0, relief_px=0), "relief_px"),
        (changed("inputs", 3, shape=["n", 0, "h", "w"]), r"inputs\[grid\].shape"),
        (changed("inputs", 3, shape=["n", 4097, "h", "w"]), r"inputs\[grid\].shape"),
        (changed("inputs", 3, shape=["n", "c", "h", "w"]), r"inputs\[grid\].shape"),
        (changed("inputs", 4, shape=["n", 7, "h", "w"]), r"inputs\[layout_0\].shape"),
        *(
            (changed("classes", 0, layout=layout), rf"classes\[clay\].layout.{next(iter(layout))}")
            for layout in (
                {"shares": [0, 0, 0, 0, 0]},
                {"shares": [1, 1, -1, 1, 1]},
                {"pitch": [0, 4]},
                {"pitch": [8, 4]},
                {"pitch": [4, 2048]},
                {"aspect": [0, 1]},
                {"jitter": [0, 0.5]},
                {"turned": 1.1},
            )
        ),
        (changed("classes", 0, layout={"shares": [1, 1, 1]}), r"layout.shares: .* a list of 5"),
        (changed("inputs", 0, role="seed"), "role"),
        (changed("inputs", 0, name="grid"), "each name once"),
        (changed("inputs", 0, shape=[1, 8]), r"inputs\[z\].shape"),
        (changed("inputs", 0, shape=["n", 8, "h"]), r"inputs\[z\].shape"),
        (changed("inputs", 0, stride_px=16), "stride_px"),
        (changed("inputs", 3, stride_px=0), "stride_px"),
        (changed("inputs", 3, stride_px=32), "stride_px"),
        (changed("inputs", 4, role="grid", shape=["n", 8, "h", "w"]), "at most one of each role"),
        (document(outputs=[]), "outputs"),
        (changed("outputs", 0, channels=5), "channels"),
        (changed("outputs", 0, map_kind="height"), "each name once"),
        (changed("parameters", 0, name="Class"), "parameters.name"),
        (changed("parameters", 0, default="wood"), "default"),
        (changed("parameters", 0, values=["clay", "clay"]), "each name once"),
        (changed("parameters", 0, type="image"), "media_types"),
        (changed("parameters", 1, default=2.0), "default"),
        (changed("parameters", 1, default=None), "default"),
        (changed("parameters", 1, default="1"), "default"),
        (changed("parameters", 1, type="int", default=0.5), "default"),
        (changed("parameters", 1, type="int", default=0, minimum=-0.5), "whole numbers"),
        (document(tolerance={"fp32": {"height": -1}}), "tolerance"),
        (document(tolerance={"fp32": 1}), "tolerance"),
    ],
)
def test_each_rule_is_named(tmp_path, value, rule):
    with pytest.raises(PackageInvalid, match=rule) as caught:
        read_manifest(write(tmp_path / "manifest.json", value))
    assert str(tmp_path / "manifest.json") in caught.value.message


def test_a_long_manifest_is_refused_before_parsing(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_bytes(b" " * (MAX_MANIFEST_BYTES - 2) + b"{}")
    with pytest.raises(PackageInvalid, match=r"missing"):
        read_manifest(path)
    path.write_bytes(b" " * (MAX_MANIFEST_BYTES - 1) + b"{}")
    with pytest.raises(PackageInvalid, match="more than 1048576 bytes"):
        read_manifest(path)


def test_an_unreadable_manifest_is_an_error_of_ours(tmp_path):
    with pytest.raises(PackageInvalid, match="cannot be read"):
        read_manifest(tmp_path / "manifest.json")
    with pytest.raises(PackageInvalid, match="cannot be read"):
        read_manifest(tmp_path)


@given(st.data())
def test_any_single_change_of_a_byte_gives_a_manifest_or_a_value_error(data):
    original = manifest_to_bytes(manifest())
    position = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255))
    altered = original[:position] + bytes([byte]) + original[position + 1 :]
    try:
        read = manifest_from_bytes(altered)
    except ValueError:
        return
    assert manifest_from_bytes(manifest_to_bytes(read)) == read


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_value_in_any_field_gives_a_manifest_or_a_value_error(value):
    whole = json.loads(manifest_to_bytes(manifest()))
    for key in whole:
        with contextlib.suppress(ValueError):
            manifest_from_bytes(json.dumps(whole | {key: value}).encode())


def test_reading_needs_the_standard_library_only():
    code = "import sys, assetgen.package; print([m for m in ('numpy', 'onnx', 'grpc', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def rounded(**changes: Any) -> dict[str, Any]:
    """What a manifest says of one smaller precision."""
    least = {output.name: 45.0 for output in tiny_manifest().outputs}
    return {"graph": "generator.fp16.onnx", "least_psnr_db": least, "most_normal_degrees": 1.0} | changes


def with_precisions(precisions: dict[str, Any]) -> dict[str, Any]:
    files = [*document()["files"], document()["files"][0] | {"path": "generator.fp16.onnx"}]
    return document(files=files, precisions=precisions)


def test_graphs_of_other_precisions_are_told_by_name(tmp_path):
    written = with_precisions({"fp16": rounded(), "bf16": rounded(graph="")})
    found, _ = read_manifest(write(tmp_path / "manifest.json", written))
    assert found.graphs == {"fp32": "generator.onnx", "fp16": "generator.fp16.onnx"}
    assert manifest_from_bytes(manifest_to_bytes(found)) == found


@pytest.mark.parametrize(
    ("precisions", "rule"),
    [
        ({"fp8": rounded()}, "one of fp16, bf16, int8"),
        ({"fp16": rounded(graph="other.onnx")}, r"precisions\[fp16\].graph: got 'other.onnx'"),
        ({"fp16": rounded(graph="generator.onnx")}, "each name once"),
        ({"fp16": rounded(least_psnr_db={})}, r"precisions\[fp16\].least_psnr_db: .* every output"),
        ({"fp16": rounded(least_psnr_db=rounded()["least_psnr_db"] | {"height": 0})}, r"least_psnr_db\[height\]"),
        ({"fp16": rounded(most_normal_degrees=-1)}, "most_normal_degrees"),
        ({"fp16": rounded(surprise=1)}, "surprise: unknown key"),
        ({"fp16": "generator.fp16.onnx"}, "expected an object"),
    ],
)
def test_a_broken_rule_of_a_precision_is_named(tmp_path, precisions, rule):
    with pytest.raises(PackageInvalid, match=rule):
        read_manifest(write(tmp_path / "manifest.json", with_precisions(precisions)))
