"""The report says what the log says, and the page shows it."""

import math
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

from assetgen.training import report
from assetgen.training.runlog import _append

WELL = {"kimg": 40.0, "elapsed_s": 600.0, "s_per_kimg": 15.0, "loss_d": 1.1, "loss_g": 0.9, "latent_effect": 0.2,
        "label_effect": 0.1, "diversity.brick": 0.9, "diversity.wood": 0.95, "memorised": 0.2}  # fmt: skip


def said(*events, **changes):
    return " ".join(report.report([{**WELL, **changes}], events))


def test_nothing_yet():
    assert report.report([], []) == ["Nothing has been trained yet."]


def test_a_young_run_is_not_judged():
    assert "Too early to judge: below 5 thousand pictures" in said(kimg=4.9)
    assert "Too early" not in said(kimg=5.0)


def test_a_good_run():
    text = said()
    assert "40.0 thousand pictures in 10.0 minutes at 15 s a thousand." in text
    assert "Every class has the variety of its reals (0.90 of it or more)." in text
    assert "assetgen eval" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"diversity.brick": 0.1}, "Alike whatever the seed (collapsed, or too young to tell): brick."),
        ({"diversity.brick": 0.1, "diversity.wood": 0.2}, "too young to tell): All classes."),
        ({"diversity.wood": 0.5}, "Less varied than reals: wood."),
        ({"latent_effect": 0.0}, "The seed changes nothing"),
        ({"label_effect": 0.0}, "The class changes nothing"),
        ({"memorised": 0.9}, "knows the training pictures by heart"),
        ({"loss_g": math.nan}, "Training broke down: loss_g are no numbers any more."),
    ],
)
def test_what_is_wrong_is_said(changes, sentence):
    assert sentence in said(**changes)


def test_events_are_counted():
    event = {"signal": "r1", "action": "slower", "kimg": 1.0, "text": "r1 is large"}
    assert "spoke 2 times: r1 (2); it acted: slower (1)." in said(event, {**event, "action": ""})


def test_the_page_holds_charts_events_and_the_newest_sheet(tmp_path):
    for kimg in (1.0, 2.0, 3.0):
        _append(tmp_path / "stats.jsonl", {**WELL, "kimg": kimg, "loss_d": None if kimg == 2 else kimg})
    _append(tmp_path / "events.jsonl", {"kimg": 2, "signal": "x", "text": "<b> & co", "action": ""})
    for name in ("sheet-000001000.png", "sheet-000003000.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    report.write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "sheet-000003000.png" in page
    assert "sheet-000001000.png" not in page
    assert "&lt;b&gt; &amp; co" in page
    assert 'http-equiv="refresh"' in page
    assert "http" not in page.replace("http-equiv", ""), "nothing is fetched from anywhere"
    start, end = page.index("<svg"), page.rindex("</svg>") + 6
    charts = ET.fromstring(f"<charts>{page[start:end]}</charts>")
    lines = charts.findall(".//polyline")
    assert len(lines) >= 5
    assert len(lines[0].get("points").split()) == 2, "a value that is no number is left out"


def test_a_chart_stays_within_its_frame():
    text = report.chart("t", {"a": [(0, -5), (10, 5)], "b": [(5, 0)], "c": []})
    for line in ET.fromstring(text).findall("polyline"):
        for point in line.get("points").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= report.CHART_PX[0]
            assert 0 <= y <= report.CHART_PX[1]
    assert report.chart("t", {"a": []}) == ""
