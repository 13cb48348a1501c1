"""The comparison with peers, on our own server and the bare one; peers have environments of their own."""

import json
import math
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.helpers.serving import write_model
from tests.load import peers, peers_page

PLAN = peers.Plan(
    calls=3, clients=2, closed_s=0.2, loads=(1.0, 3.0), open_s=0.5, limit=1000.0, connections=4, raw_s=0.05, rounds=1
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peers are compared on Linux")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "slow", channels=96)
    return peers.compare({}, 1, PLAN, folder, 64)


def test_every_server_is_measured_in_every_way(found):
    servers = {"assetgen", "bare gRPC"}
    assert set(found["in_turn"]) == servers | {"raw", "own session"}
    assert set(found["closed"]) == servers
    assert set(found["open"]) == {"1", "3"}
    assert all(set(by_server) == servers | {"ideal queue"} for by_server in found["open"].values())
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(found, allow_nan=False))


def test_figures_are_in_units_of_the_session(found):
    assert found["in_turn"]["raw"]["p50"] == 1.0
    assert found["raw"]["p50_ms"] > 0
    for figures in (*found["in_turn"].values(), *found["closed"].values()):
        assert figures["p50"] <= figures["p95"] <= figures["p99"]
    for figures in found["closed"].values():
        assert figures["throughput"] > 0
        assert figures["p99_of_ideal"] == pytest.approx(figures["p99"] / PLAN.clients, abs=0.001)


def test_calls_that_had_no_answer_in_time_count_in_the_quantiles(found):
    for by_server in found["open"].values():
        for name in ("assetgen", "bare gRPC"):
            figures = by_server[name]
            assert figures["calls"] > 0
            assert 0 < figures["in_time"] <= 1
            assert figures["goodput"] > 0
            known = [figures[key] for key in ("p50", "p95", "p99") if figures[key] is not None]
            assert known == sorted(known)
            assert all(0 < value <= PLAN.limit for value in known)
            assert (figures["p50"] is None) == (figures["in_time"] < 0.5)


def test_shares_have_the_value_worked_out_by_hand():
    assert peers.in_units([2.0, 4.0, math.inf], 2.0) == {"p50": 2.0, "p95": None, "p99": None}
    assert peers.in_units([1.0] * 99 + [5.0], 0.5) == {"p50": 2.0, "p95": 2.0, "p99": 2.0}


def test_differences_are_those_of_one_round():
    waits = iter([0.01, 0.02] * 50)
    found = peers.in_turn({"raw": lambda: None, "other": lambda: next(waits) and None}, 3)
    assert found["raw"]["p50"] == 1.0
    assert found["other"]["above_p25_ms"] <= found["other"]["above_p50_ms"] <= found["other"]["above_p75_ms"]


def test_rounds_drawn_anew_give_what_few_calls_decide():
    raw = [1.0] * 1000
    assert peers.between([3.0] * 1000, raw) == (2.0, 2.0)
    low, high = peers.between([2.0] * 990 + [12.0] * 10, raw)  # the tenth of the slowest decides: often it is not drawn
    assert (low, high) == (1.0, 11.0)
    assert peers.between(raw, raw) == (0.0, 0.0)


def test_rounds_stay_whole():
    """A spell that met both at once is no difference."""
    spells = [1.0] * 900 + [50.0] * 100
    assert peers.between([each + 1.0 for each in spells], spells) == (1.0, 1.0)


def page(folder, found):
    (folder / "images").mkdir()
    text = f"# Peers\nbefore\n{peers_page.BEGIN}old\n{peers_page.END}after\n"
    (folder / "peers.md").write_text(text, encoding="utf-8")
    peers_page.write(found, folder)
    return (folder / "peers.md").read_text(encoding="utf-8")


def test_the_page_gets_tables_and_keeps_what_stands_around_them(found, tmp_path):
    text = page(tmp_path, found)
    assert text.startswith("# Peers\nbefore\n")
    assert text.endswith("after\n")
    assert "\nold\n" not in text
    rows = [line for line in text.splitlines() if line.startswith("| **assetgen** |")]
    assert [row.count("|") for row in rows] == [7, 5, 4, 4]
    assert json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["closed"] == found["closed"]
    peers_page.write(found, tmp_path)
    assert (tmp_path / "peers.md").read_text(encoding="utf-8") == text


def test_the_plot_has_a_line_a_server_and_figure_within_its_panels(found, tmp_path):
    page(tmp_path, found)
    root = ET.parse(tmp_path / "images" / "peers.svg").getroot()
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 3 + 3 + 2
    width, height = float(root.get("width")), float(root.get("height"))
    for line in lines:
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        assert len(points) == len(PLAN.loads)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points)
        assert points == sorted(points)


def test_a_page_without_marks_is_refused_and_nothing_is_written(found, tmp_path):
    (tmp_path / "peers.md").write_text("# Peers\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the lines"):
        peers_page.write(found, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["peers.md"]


def test_what_the_commands_write_is_the_page_that_is_there():
    text = (peers_page.DOCS / "peers.md").read_text(encoding="utf-8")
    measured = json.loads((peers_page.DOCS / "peers.json").read_text(encoding="utf-8"))
    assert peers_page.tables(measured) in text
    assert (peers_page.DOCS / "images" / "peers.svg").read_text(encoding="utf-8") == peers_page.plot(measured)
