"""The model card: what was measured of sliders and variations can be read in it."""

from export.card import _look

SLIDER = {
    "name": "warmth",
    "r2": 0.446,
    "rising": 0.994,
    "down": 0.73,
    "up": 0.78,
    "effect": 7.6321,
    "unit": "b*",
    "offered": True,
}
VARIATION = {
    "name": "variation_2",
    "method": "sefa",
    "change": 8.04,
    "rising": 1.0,
    "new": 0.615,
    "most": "contrast",
    "effect": 0.8,
    "offered": False,
}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_sliders_and_variations_become_tables_with_a_cell_for_every_column():
    head, rule, warmth = rows(_look([SLIDER], []))
    assert len(head) == len(rule) == len(warmth)
    assert warmth == ["`warmth`", "0.45", "99%", "0.73, 0.78", "1.5", "7.63", r"b\*", "yes"]
    *_, weaker = rows(_look([SLIDER | {"reach": 1.0}], []))
    assert weaker[4] == "1"
    head, rule, second = rows(_look([], [VARIATION]))
    assert len(head) == len(rule) == len(second)
    assert second == ["`variation_2`", "sefa", "8.0", "62%", "contrast", "no"]


def test_a_model_without_either_has_no_section():
    assert _look([], []) == ""
    assert _look([SLIDER], [VARIATION]) == _look([SLIDER], []) + _look([], [VARIATION])
