"""Sorting pixel art: the first rule decides, nothing blank or of another grid gets through, no colour is added."""

import json

import numpy as np
import pytest
from PIL import Image

from assetgen.datasets import cli
from assetgen.datasets.pack import pack
from assetgen.datasets.sprites import SHIPPED_RULES, Rule, read_rules, scale2x, sort_sprites
from assetgen.datasets.tiles import load
from assetgen.errors import ConfigInvalid, DataInvalid, OutputUnwritable
from tests.helpers.tiny_runs import save


def thing(edge, color=(200, 30, 60), side=None):
    side = side or edge * 3 // 4
    pixels = np.zeros((edge, edge, 4), np.uint8)
    pixels[:side, :side] = (*color, 255)
    return pixels


@pytest.fixture
def folder(tmp_path):
    sprites = {
        "a/sword_1": (thing(32), "weapon"),
        "a/sword_2": (thing(32, (1, 2, 3)), "weapon"),
        "a/sword_overlay": (thing(32), "weapon"),
        "b/gem": (thing(16), "gem"),
        "b/dot": (thing(16, side=3), "gem"),
        "b/odd": (thing(24), "gem"),
        "b/misc": (thing(16), "misc"),
    }
    items = []
    for name, (pixels, label) in sprites.items():
        save(tmp_path / f"in/{name}.png", pixels)
        items.append({"domain": name[0], "label": label, "file": f"{name}.png", "licence": "CC0-1.0", "author": "A"})
    (tmp_path / "in/manifest.json").write_text(json.dumps({"items": items}), encoding="utf-8")
    return tmp_path / "in"


RULES = (Rule(name="overlay"), Rule("weapon", label="weapon"), Rule("gem", domain="b", label="gem"))


def test_the_first_rule_that_fits_decides_and_what_is_left_out_is_named(folder, tmp_path):
    report = sort_sprites(folder, tmp_path / "out", RULES)
    assert report.classes == {"weapon": 2, "gem": 1}
    reasons = {entry.id: entry.reason for entry in report.refused}
    assert reasons.keys() == {"b_dot", "b_odd"}
    assert "3 x 3 px only" in reasons["b_dot"]
    assert "24 x 24: 32 px, or half of it, is needed" in reasons["b_odd"]
    pack(tmp_path / "out", tmp_path / "data.zip")
    items = load(tmp_path / "data.zip", alpha=True)
    assert {item.id for item in items} == {"a_sword_1", "a_sword_2", "b_gem"}
    assert {next(iter(item.maps.values())).shape for item in items} == {(32, 32, 4)}
    assert {(item.license, item.author) for item in items} == {("CC0-1.0", "A")}


@pytest.mark.parametrize(("apart", "groups"), [(False, {"a_sword"}), (True, {"a_sword_1", "a_sword_2"})])
def test_sprites_that_differ_in_a_number_stay_on_one_side_of_the_split(folder, tmp_path, apart, groups):
    sort_sprites(folder, tmp_path / "out", [Rule(name="overlay"), Rule("weapon", label="weapon", apart=apart)])
    items = json.loads((tmp_path / "out/manifest.json").read_text("utf-8"))["items"]
    assert {item["group"] for item in items} == groups


def test_edges_become_hard(folder, tmp_path):
    pixels = thing(32)
    pixels[0, :24, 3], pixels[1, :24, 3] = 127, 128
    save(folder / "a/sword_1.png", pixels)
    sort_sprites(folder, tmp_path / "out", RULES)
    with Image.open(tmp_path / "out/weapon/a_sword_1.png") as picture:
        made = np.asarray(picture)
    assert (made[0] == 0).all()
    assert (made[1, :24] == [200, 30, 60, 255]).all()


def test_scale2x_is_known_by_hand():
    """A diagonal becomes a smooth one; a straight edge stays straight."""
    a, b = [0, 0, 0, 0], [255, 9, 9, 255]
    diagonal = np.array([[a, a, b], [a, b, b], [b, b, b]], np.uint8)
    made = scale2x(diagonal)[..., 3] > 0
    assert made.tolist() == [
        [False, False, False, False, True, True],
        [False, False, False, True, True, True],
        [False, False, False, True, True, True],
        [False, True, True, True, True, True],
        [True, True, True, True, True, True],
        [True, True, True, True, True, True],
    ]
    straight = np.array([[a, b], [a, b]], np.uint8)
    assert np.array_equal(scale2x(straight), straight.repeat(2, axis=0).repeat(2, axis=1))


def test_scale2x_adds_no_colour():
    pixels = np.random.default_rng(1).choice(np.array([0, 80, 255], np.uint8), (16, 16, 4))
    colors = {tuple(color) for color in pixels.reshape(-1, 4)}
    assert {tuple(color) for color in scale2x(pixels).reshape(-1, 4)} <= colors


def test_the_shipped_rules_can_be_read_and_others_are_refused_if_they_cannot(tmp_path):
    rules = read_rules(SHIPPED_RULES)
    assert len({rule.class_name for rule in rules} - {""}) == 12
    for text in ("", "rule = 3", '[[rule]]\nclas = "a"', '[[rule]]\nname = "("', "\x00"):
        (tmp_path / "r.toml").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigInvalid, match="holds no rules"):
            read_rules(tmp_path / "r.toml")


def test_the_command_line_sorts(folder, tmp_path, capsys):
    (tmp_path / "r.toml").write_text('[[rule]]\nlabel = "weapon"\nclass_name = "weapon"\n', encoding="utf-8")
    words = ["sprites", str(folder), "-o", str(tmp_path / "out"), "--rules", str(tmp_path / "r.toml")]
    assert cli.main(words) == 0
    assert "classes: weapon 3" in capsys.readouterr().out


def test_folders_that_cannot_be_used_are_refused(folder, tmp_path):
    with pytest.raises(DataInvalid, match="cannot be read"):
        sort_sprites(tmp_path, tmp_path / "out", RULES)
    with pytest.raises(DataInvalid, match="is left"):
        sort_sprites(folder, tmp_path / "out2", [Rule("lava", label="lava")])
    with pytest.raises(OutputUnwritable, match="not empty"):
        sort_sprites(folder, folder, RULES)
