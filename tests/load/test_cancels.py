"""The command that cancels works; its figures are taken by hand, for a few hundred cancels say nothing of memory."""

import json

import pytest

from tests.helpers.serving import write_model
from tests.load import cancels


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    return folder


def test_calls_cancelled_at_random_moments_leave_nothing(models):
    found = cancels.cancel(200, "tiny", str(models), 1, rest_s=0.0)
    assert 200 <= found["cancels"] <= 200 + 2 * cancels.AT_ONCE
    assert found["golden_unchanged"]
    assert found["left"] == {}
    assert set(found["ended_before"]) <= {"OK", "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ({"slope_mib_per_1000": 0.99, "left": {}, "golden_unchanged": True}, 0),
        ({"slope_mib_per_1000": 1.0, "left": {}, "golden_unchanged": True}, 1),
        ({"slope_mib_per_1000": -0.1, "left": {"assetgen_calls_under_way": 1.0}, "golden_unchanged": True}, 1),
        ({"slope_mib_per_1000": 0.0, "left": {}, "golden_unchanged": False}, 1),
    ],
)
def test_the_exit_status_tells_what_grows_or_is_left(monkeypatch, capsys, found, status):
    monkeypatch.setattr(cancels, "cancel", lambda *_: found)
    assert cancels.main([]) == status
    assert json.loads(capsys.readouterr().out) == found
