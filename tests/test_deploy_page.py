"""The deploy report's page: whole by itself, honest about what is absent, and safe with any text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from assetgen.deploy_page import page

OUTPUTS = [("base_color", 3), ("height", 1)]
CELL = {"edge_px": 256, "batch": 1, "rounds": 5, "p50": 10.0, "p95": 12.5, "least": 9.0, "times_as_fast": 1.0}
FAILED = {"failed": "no & memory"}
FIGURES = {
    "verdict": "holds",
    "broken": [],
    "backend": "onnxruntime-1/cpu/fp32",
    "open_s": 0.5,
    "graph_bytes": 5_000_000,
    "halves": True,
    "determinism": "the same bytes three times",
    "seam": {"base_color": 0.0, "height": 1e-7},
    "differences": {
        "largest": {"base_color": 0.0, "height": 0.01},
        "mean": {"base_color": 0.0, "height": 0.001},
        "psnr_db": {"base_color": 200.0, "height": 51.2},
        "normal_degrees": 0.3,
        "largest_normal_degrees": 2.0,
    },
    "latency_ms": {"256 px x 1": CELL},
}
REPORT = {
    "model": {"id": "tiny", "version": "1.0.0", "digest": "d" * 64},
    "machine": {"cores": 2, "load_at_the_end": None},
    "took_s": 3.0,
    "auto": {"device": "cpu", "reason": "nothing is faster"},
    "candidates": {
        "cpu": FIGURES,
        "bad": {**FIGURES, "verdict": "broken", "broken": ["height has <12> dB"], "latency_ms": {"256 px x 1": FAILED}},
        "cuda": {"verdict": "absent", "reason": "no NVIDIA driver", "hint": "", "graph_bytes": 1},
    },
}  # fmt: skip


def pictures(value):
    return {"base_color": np.full((3, 8, 8), value, np.float32), "height": np.full((1, 8, 8), value, np.float32)}


def made():
    return page(REPORT, {"cpu": pictures(0.5), "bad": pictures(0.52)}, OUTPUTS)


class Balance(HTMLParser):
    """Counts opening and closing tags, and keeps what lies outside of the page."""

    def __init__(self):
        super().__init__()
        self.open, self.outside = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br", "rect", "line"):
            self.open.append(tag)
        self.outside += [
            value for name, value in attributes if name in ("src", "href") and not value.startswith("data:")
        ]

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_for_nothing():
    parser = Balance()
    parser.feed(made())
    assert (parser.open, parser.outside) == ([], [])


def test_it_says_what_was_found_and_what_is_absent():
    text = made()
    for wanted in (
        "no NVIDIA driver",
        "takes <b>cpu</b>",
        "51.2 dB",
        "equal",
        "10.0, 12.5 (1.00x)",
        "0.30°",
        ">absent<",
    ):
        assert wanted in text


def test_texts_are_no_markup():
    text = made()
    assert "height has &lt;12&gt; dB" in text
    assert "no &amp; memory" in text


def test_pictures_are_those_of_the_maps_and_differences_are_enlarged():
    found = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', made())
    shown = {alt: Image.open(io.BytesIO(base64.b64decode(data))) for alt, data in found}
    assert len(found) == 6
    assert shown["base_color"].getpixel((0, 0)) == (133, 133, 133)  # of the second, 0.52
    assert shown["height, difference times 16"].getpixel((0, 0)) == round(0.02 * 16 * 255)


def test_pictures_that_are_not_finite_are_shown_too():
    broken = pictures(0.5)
    broken["height"][0, 0, 0] = np.nan
    assert "data:image/png" in page(REPORT, {"cpu": broken}, OUTPUTS)
