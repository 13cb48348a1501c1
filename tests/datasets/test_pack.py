"""Packing a folder: what is stored, what is refused and why, and that nothing half-made is left behind."""

import errno
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assetgen.datasets import cli
from assetgen.datasets.ingest import Candidate, candidates
from assetgen.datasets.pack import pack, split_of
from assetgen.datasets.tiles import read_index
from assetgen.errors import DataInvalid, OutputUnwritable
from assetgen.types import MapKind
from tests.helpers.tiny_runs import picture, save, write_folder, write_map_set


@pytest.fixture
def tree(tmp_path):
    return write_folder(tmp_path / "tree", sets=2)


def manifest(folder, *records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"items": records}), encoding="utf-8")
    return folder


def reasons(folder, tmp_path, **options):
    """Reason of every refusal, by id; one good picture keeps the folder usable."""
    report = pack(folder, tmp_path / "out.zip", license="CC0-1.0", **options)
    return {entry.id: entry.reason for entry in report.refused}


def test_the_same_folder_gives_the_same_bytes(tree, tmp_path):
    reports = [pack(tree, tmp_path / name, license="CC0-1.0") for name in ("a.zip", "b.zip")]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert reports[0].sha256 == reports[1].sha256
    assert reports[0].classes == {"brick": 7, "metal": 7}


def test_pictures_are_kept_byte_for_byte(tree, tmp_path):
    pack(tree, tmp_path / "a.zip", license="CC0-1.0")
    item = next(item for item in read_index(tmp_path / "a.zip")["items"] if item["id"] == "metal/set1")
    assert set(item["maps"]) == {"base_color", "normal", "roughness", "height", "metallic"}
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        stored = archive.read(item["maps"]["height"]["file"])
    assert stored == (tree / "metal/set1/x_height.png").read_bytes()


def test_packing_into_the_folder_itself_changes_nothing(tree, tmp_path):
    pack(tree, tree / "data.zip", license="CC0-1.0")
    first = (tree / "data.zip").read_bytes()
    report = pack(tree, tree / "data.zip", license="CC0-1.0")
    assert (tree / "data.zip").read_bytes() == first
    assert report.refused == ()


def test_both_layouts_say_the_same(tree, tmp_path):
    records = [{"id": "p", "class": "brick", "file": "brick/p0.png"}]
    records.append({"id": "s", "class": "brick", "dir": "brick/set0", "maps": {"diff": "x_albedo.png"}})
    records[1]["maps"] |= {"nor": "x_normal.png", "rough": "x_roughness.png", "disp": "x_height.png"}
    from_tree = {c.id: c.maps for c in candidates(tree)}
    from_manifest = {c.id: c.maps for c in candidates(manifest(tree, *records))}
    assert from_manifest == {"p": from_tree["brick/p0.png"], "s": from_tree["brick/set0"]}


def test_what_the_manifest_says_is_kept_to_the_end(tmp_path):
    save(tmp_path / "f" / "a.png", picture(0, 40))
    record = {"id": "a", "class": "brick", "file": "a.png", "licence": "CC-BY-4.0", "author": "Ada", "source": "here"}
    report = pack(manifest(tmp_path / "f", record | {"group": "wall", "tier": "2k"}), tmp_path / "a.zip")
    (item,) = read_index(tmp_path / "a.zip")["items"]
    assert item["id"] == "2k/a"
    assert (item["license"], item["group"], item["class"]) == ("CC-BY-4.0", "wall", "brick")
    assert item["facts"]["author"] == "Ada"
    assert item["facts"]["source"] == "here"
    assert report.licenses == {"CC-BY-4.0": 1}


def test_a_manifest_may_say_domain_and_name_no_ids(tmp_path):
    save(tmp_path / "f" / "a" / "1.png", picture(0, 16))
    save(tmp_path / "f" / "b.png", picture(0, 40))
    records = [{"domain": "block16", "file": "a/1.png", "label": "wood"}]
    records.append({"class": "brick", "domain": "photo", "file": "b.png", "id": "wall"})
    pack(manifest(tmp_path / "f", *records), tmp_path / "a.zip", license="X")
    items = read_index(tmp_path / "a.zip")["items"]
    assert [(item["id"], item["class"], item["group"]) for item in items] == [
        ("a/1.png", "block16", "a/1.png"),
        ("wall", "brick", "wall"),
    ]
    assert items[0]["facts"] == {"label": "wood"}
    assert items[0]["maps"]["base_color"]["width_px"] == 16


def test_a_licence_is_required(tree, tmp_path):
    with pytest.raises(DataInvalid) as caught:
        pack(tree, tmp_path / "a.zip")
    assert "no licence" in caught.value.hint
    report = pack(tree, tmp_path / "a.zip", allow_unlicensed=True)
    assert report.licenses == {"none": report.items}


@given(st.dictionaries(st.text(max_size=8), st.integers(1, 3), max_size=30), st.floats(0, 0.5))
def test_a_group_is_never_cut_and_never_moves(groups, share):
    for group in groups:
        assert split_of(group, share) in ("train", "validation")
        if split_of(group, share) == "validation":  # a larger share takes more, and keeps what was taken
            assert split_of(group, 0.5) == "validation"
    assert {split_of(group, 0.0) for group in groups} <= {"train"}


def test_the_share_is_about_what_was_asked_for():
    taken = sum(split_of(f"g{i}", 0.2) == "validation" for i in range(2000))
    assert 320 < taken < 480


def test_the_split_is_stable_when_data_is_added(tmp_path):
    records = []
    for i in range(12):
        save(tmp_path / "f" / f"{i}.png", picture(i, 40))
        records.append({"id": str(i), "class": "brick", "file": f"{i}.png", "group": f"g{i % 6}", "licence": "X"})
    splits = []
    for count in (6, 12):
        pack(manifest(tmp_path / "f", *records[:count]), tmp_path / "a.zip", validation_share=0.4)
        splits.append({item["group"]: item["split"] for item in read_index(tmp_path / "a.zip")["items"]})
        for item in read_index(tmp_path / "a.zip")["items"]:
            assert item["split"] == splits[-1][item["group"]]
    assert splits[0] == splits[1]
    assert set(splits[1].values()) == {"train", "validation"}


def test_damaged_pictures_are_refused(tmp_path):
    folder = tmp_path / "f"
    good = save(folder / "brick" / "good.png", picture(0, 40)).read_bytes()
    (folder / "brick" / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "brick" / "text.png").write_text("this is no picture")
    (folder / "brick" / "empty.png").write_bytes(b"")
    (folder / "brick" / "bmp.png").write_bytes(b"BM" + good)
    found = reasons(folder, tmp_path)
    assert set(found) == {f"brick/{name}.png" for name in ("cut", "text", "empty", "bmp")}
    assert all("cannot be read" in reason for reason in found.values())


@given(st.integers(0, 2**32 - 1))
def test_no_damage_ends_in_a_traceback(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("fuzz")
    data = bytearray(save(folder / "f" / "brick" / "good.png", picture(0, 32)).read_bytes())
    for place in rng.integers(8, len(data), size=rng.integers(1, 6)):
        data[place] = rng.integers(256)
    (folder / "f" / "brick" / "bad.png").write_bytes(bytes(data))
    report = pack(folder / "f", folder / "a.zip", license="X")
    assert report.items + len(report.refused) == 2


def test_sizes_are_limited(tmp_path):
    folder = tmp_path / "f"
    save(folder / "brick" / "good.png", picture(0, 16))
    save(folder / "brick" / "small.png", picture(0, 15))
    save(folder / "brick" / "large.png", np.zeros((32, 8193, 3), np.uint8))
    found = reasons(folder, tmp_path)
    assert found["brick/small.png"] == "small.png is 15 x 15: edges must be 16 to 8192 px"
    assert "8193 x 32" in found["brick/large.png"]
    assert set(found) == {"brick/small.png", "brick/large.png"}


def test_map_sets_that_make_no_sense_are_refused(tmp_path):
    folder = tmp_path / "f"
    save(folder / "brick" / "good.png", picture(0, 32))
    for name in ("sizes", "twice", "unknown", "colourless", "empty"):
        write_map_set(folder / "brick" / name, 1, 40)
    save(folder / "brick" / "sizes" / "x_height.png", picture(0, 48)[:, :, 0])
    save(folder / "brick" / "twice" / "x_basecolor.png", picture(0, 40))
    save(folder / "brick" / "unknown" / "x_glow.png", picture(0, 40))
    (folder / "brick" / "colourless" / "x_albedo.png").unlink()
    for file in (folder / "brick" / "empty").iterdir():
        file.unlink()
    (folder / "brick" / "notes.txt").write_text("hello")
    save(folder / "loose.png", picture(0, 40))
    found = reasons(folder, tmp_path)
    expected = {
        "brick/sizes": "differ in size",
        "brick/twice": "are the same map",
        "brick/unknown": "cannot tell which map x_glow.png is",
        "brick/colourless": "has no base colour map",
        "brick/empty": "holds no pictures",
        "brick/notes.txt": "not a picture",
        "loose.png": "outside a class folder",
    }
    assert set(found) == set(expected)
    assert all(text in found[name] for name, text in expected.items())


BAD_RECORDS = [
    ({"class": "brick", "file": "../secret.png"}, "does not lie inside the folder"),
    ({"class": "brick", "file": "/etc/secret.png"}, "does not lie inside the folder"),
    ({"class": "brick", "dir": "..", "maps": {"albedo": "secret.png"}}, "does not lie inside the folder"),
    ({"class": "brick", "file": "..\\secret.png"}, "does not lie inside the folder"),
    ({"class": "brick", "file": "C:\\secret.png"}, "does not lie inside the folder"),
    ({"class": "brick", "file": "C:secret.png"}, "does not lie inside the folder"),
    ({"class": "brick"}, "does not lie inside the folder"),
    ({"class": "brick", "maps": {"glow": "good.png"}}, "map 'glow' is not known"),
    ({"class": "brick", "maps": ["good.png"]}, '"maps" is not an object'),
    ({"class": "brick", "maps": {"albedo": "good.png", "color": "good.png"}}, "are the same map"),
    ({"class": "brick", "maps": {"normal": "good.png"}}, "has no base colour map"),
    ({"class": "brick", "file": "missing.png"}, "missing.png cannot be read"),
    ({"class": "brick", "file": "folder"}, "folder cannot be read"),
    ({"file": "good.png"}, "no class"),
    ({"class": "", "file": "good.png"}, "no class"),
    ({"class": 3, "file": "good.png"}, "no class"),
]


@pytest.mark.parametrize(("record", "reason"), BAD_RECORDS)
def test_bad_records_are_refused(tmp_path, record, reason):
    save(tmp_path / "secret.png", picture(0, 40))
    save(tmp_path / "f" / "good.png", picture(0, 40))
    (tmp_path / "f" / "folder").mkdir()
    folder = manifest(tmp_path / "f", {"id": "bad", **record}, {"id": "good", "class": "brick", "file": "good.png"})
    found = reasons(folder, tmp_path)
    assert set(found) == {"bad"}
    assert reason in found["bad"]


NO_MANIFEST = ["", "{", "[]", "{}", '{"items": 3}', '{"items": [3]}', '{"items": ["ab"]}', "\x00", "[" * 100_000]


@pytest.mark.parametrize("text", NO_MANIFEST)
def test_a_manifest_that_is_none_is_an_error(tmp_path, text):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "manifest.json").write_text(text)
    with pytest.raises(DataInvalid, match=r"manifest\.json cannot be read"):
        pack(tmp_path / "f", tmp_path / "a.zip")


def test_a_folder_is_needed(tmp_path):
    with pytest.raises(DataInvalid, match="is not a folder"):
        pack(tmp_path / "nothing", tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataInvalid, match="holds nothing usable: 0 refused"):
        pack(tmp_path / "empty", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_folder_that_cannot_be_listed_is_not_blamed_on_the_output(tree, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(type(tree), "iterdir", refuse)
    with pytest.raises(DataInvalid, match="cannot be read: Permission denied"):
        pack(tree, tmp_path / "a.zip", license="X")


@pytest.mark.parametrize("share", [-0.1, 0.51, float("nan")])
def test_the_validation_share_is_limited(tree, tmp_path, share):
    with pytest.raises(DataInvalid, match="validation share"):
        pack(tree, tmp_path / "a.zip", validation_share=share)


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_leaves_nothing_under_the_final_name(tree, tmp_path, monkeypatch, after):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "a.zip").write_bytes(b"the former file")
    calls = []
    write = zipfile.ZipFile.writestr

    def full(archive, *arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(archive, *arguments)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(OutputUnwritable, match="No space left on device"):
        pack(tree, tmp_path / "o" / "a.zip", license="X")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["a.zip"]
    assert (tmp_path / "o" / "a.zip").read_bytes() == b"the former file"


def test_the_output_must_be_writable(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        pack(tree, tmp_path / "file" / "a.zip", license="X")


def test_the_command_line_reports_what_was_refused(tree, tmp_path, capsys):
    Image.new("RGB", (8, 8)).save(tree / "brick" / "tiny.png")
    arguments = ["pack", str(tree), "-o", str(tmp_path / "a.zip"), "--license", "CC0-1.0", "--validation", "0.3"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "14 items" in said
    assert "licences: CC0-1.0 14" in said
    assert "refused: 1\n  brick/tiny.png: tiny.png is 8 x 8" in said


def test_a_reason_that_holds_for_many_is_said_once(tree, tmp_path, capsys):
    (tree / "brick").rename(tree / "Old Brick")
    assert cli.main(["pack", str(tree), "-o", str(tmp_path / "a.zip"), "--license", "X", "--validation", "0"]) == 0
    said = capsys.readouterr().out
    assert said.count("is not a name") == 1
    assert "  Old Brick/p0.png, " in said
    assert " and 2 more: class 'Old Brick' is not a name" in said, said
    assert "note: no picture is kept for validation" in said


def test_the_last_word_of_a_file_name_decides(tmp_path):
    names = ["Wall-AmbientOcclusion", "wall_base_color", "wall_ambient_roughness", "Wall_NormalGL", "height"]
    for name in names:
        save(tmp_path / "f" / "brick" / "set" / f"{name}.png", picture(0, 32))
    (found,) = candidates(tmp_path / "f")
    assert isinstance(found, Candidate)
    assert {kind: path.stem for kind, path in found.maps.items()} == {
        MapKind.AMBIENT_OCCLUSION: names[0],
        MapKind.BASE_COLOR: names[1],
        MapKind.ROUGHNESS: names[2],
        MapKind.NORMAL: names[3],
        MapKind.HEIGHT: names[4],
    }


@pytest.mark.parametrize("name", ["Old Bricks", "9tiles", "ziegel-rot", "brick_", "Ä"])
def test_classes_are_named_as_packages_name_them(tmp_path, name):
    folder = tmp_path / "f"
    save(folder / name / "a.png", picture(0, 40))
    save(folder / "brick" / "a.png", picture(1, 40))
    assert list(reasons(folder, tmp_path)) == [f"{name}/a.png"]


def test_a_picture_that_is_transparent_everywhere_is_refused(tree, tmp_path):
    save(tree / "gem" / "nothing.png", np.zeros((32, 32, 4), np.uint8))
    save(tree / "gem" / "speck.png", np.pad(np.full((1, 1, 4), 255, np.uint8), ((0, 31), (0, 31), (0, 0))))
    assert "transparent everywhere" in reasons(tree, tmp_path)["gem/nothing.png"]
    assert "gem/speck.png" not in reasons(tree, tmp_path)
