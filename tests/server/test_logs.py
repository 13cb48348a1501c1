"""Lines of JSON that any reader understands, with the id of the call they belong to."""

import contextvars
import json
import logging

from assetgen.server import logs


def formatted(**changes):
    record = logging.LogRecord(
        "assetgen.x", logging.WARNING, "x.py", 1, "%d\ncalls", (7,), changes.pop("exc_info", None)
    )
    for name, value in changes.items():
        setattr(record, name, value)
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_a_record_is_one_object_on_one_line():
    line = contextvars.Context().run(formatted)  # whatever call this thread was in before
    assert (line["level"], line["logger"], line["message"]) == ("warning", "assetgen.x", "7\ncalls")
    assert line["time"].endswith("+00:00")
    assert "request_id" not in line


def test_facts_stand_beside_each_other_and_the_request_id_is_known():
    token = logs.request_id.set("build-42")
    try:
        line = formatted(facts={"method": "Generate", "ms": {"graph": 1.5}})
    finally:
        logs.request_id.reset(token)
    assert line["ms"] == {"graph": 1.5}
    assert line["request_id"] == "build-42"
    assert "message" not in line


def test_an_exception_is_told_on_the_same_line():
    try:
        raise ZeroDivisionError("by nought")
    except ZeroDivisionError as error:
        line = formatted(exc_info=(type(error), error, error.__traceback__))
    assert "by nought" in line["exception"]
