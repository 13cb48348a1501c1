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
    "allowed": {"least_psnr_db": {"base_color": 45.0, "height": 38.0}, "most_normal_degrees": 1.0},
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
BAD = {**FIGURES["differences"], "psnr_db": {"base_color": 50.0, "height": 12.0}}
REPORT = {
    "model": {"id": "tiny", "version": "1.0.0", "digest": "d" * 64},
    "machine": {"cores": 2, "load_at_the_end": None},
    "took_s": 3.0,
    "beside": {"small": {"id": "small", "version": "2.0.0", "digest": "e" * 64}},
    "compared": {"pictures": 4, "edge_px": 256, "shown": 2},
    "auto": {"device": "cpu", "reason": "nothing is faster"},
    "candidates": {
        "cpu": FIGURES,
        "bad": {
            **FIGURES,
            "verdict": "broken",
            "broken": ["height has <12> dB"],
            "differences": BAD,
            "latency_ms": {"256 px x 1": FAILED},
        },
        "cuda": {"verdict": "absent", "reason": "no NVIDIA driver", "hint": "get one", "graph_bytes": 1},
        "cuda:fp16": {"verdict": "absent", "reason": "no NVIDIA driver", "hint": "get one", "graph_bytes": 1},
        "cpu of small": {**FIGURES, "of": "small", "beside": BAD, "allowed": {"height": 0.002}},
    },
}


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
        if tag not in ("meta", "img", "br", "wbr", "rect", "line"):
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
        "10.0, 12.5 <span class=small>1.00x</span>",
        "0.30°",
        "2 within tolerance, 1 out of it, 2 not on this machine",
        "small, held to its own fp32",
        "Differences from tiny",
    ):
        assert wanted in text


def test_what_is_asked_for_stands_beside_what_was_found():
    """A value out of tolerance is marked; one beside another package's is not, for nothing is asked of it."""
    text = made()
    assert "at least 38 dB" in text
    assert "largest at most 0.002" in text
    assert text.count("<b class=bad>12.0 dB</b>") == 1
    assert text.count("12.0 dB") == 3, "the least of all in the verdicts, the difference, and beside the first"


def test_of_models_without_height_or_seams_there_is_no_column_for_them():
    plain = {name: value for name, value in FIGURES["differences"].items() if "normal" not in name}
    cpu = {**FIGURES, "seam": None, "differences": plain, "allowed": {"base_color": 0.002}}
    text = page({**REPORT, "candidates": {"cpu": cpu}}, {}, OUTPUTS)
    assert "normals, mean" in made()
    assert "<th>seam</th>" in made()
    assert "normals" not in text.lower()
    assert "seam" not in text.lower()


def test_small_pictures_are_enlarged_in_hard_pixels():
    pixels = np.zeros((1, 2, 2), np.float32)
    pixels[0, 0, 1] = 1
    text = page(REPORT, {"cpu": {"sprite": pixels}}, OUTPUTS)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert shown.shape == (128, 128)
    assert np.array_equal(shown, np.kron(pixels[0], np.ones((64, 64))) * 255)


def test_what_is_absent_for_one_reason_is_one_line():
    assert "<td class=wide>cuda, cuda:fp16</td><td class=wide>no NVIDIA driver<br>" in made()


def test_texts_are_no_markup():
    text = made()
    assert "height has &lt;12&gt; dB" in text
    assert "no &amp; memory" in text


def test_pictures_are_those_of_the_maps_and_differences_are_enlarged():
    found = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', made())
    shown = {alt: Image.open(io.BytesIO(base64.b64decode(data))) for alt, data in found}
    assert len(found) == 6, "two maps, and of the other both and how they differ"
    assert shown["base_color"].getpixel((0, 0)) == (133, 133, 133)  # of the second, 0.52
    assert shown["height, difference"].getpixel((0, 0)) == round(0.02 * 16 * 255)


def test_pictures_that_are_not_finite_are_shown_too():
    broken = pictures(0.5)
    broken["height"][0, 0, 0] = np.nan
    assert "data:image/png" in page(REPORT, {"cpu": broken}, OUTPUTS)
