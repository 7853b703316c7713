"""Log lines: one line each, and never a caller's text."""

import json
import logging

import pytest

from model.logs import JsonFormatter, TextFormatter, configure


def record(message: str, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("model", logging.ERROR, "x.py", 1, message, (), info)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_an_exception_is_logged_without_its_message(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("canary7f3a")
    except ValueError as error:
        line = formatter.format(record("failed", error))
    assert "canary7f3a" not in line
    assert "ValueError" in line
    assert "test_logs.py" in line


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise ValueError("canary7f3a")


def test_an_exception_of_many_levels_is_one_small_line() -> None:
    with pytest.raises(ValueError, match="canary7f3a") as caught:
        deep(200)
    assert len(JsonFormatter().format(record("failed", caught.value))) < 1200


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_newline_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    entry = record("one\ntwo")
    entry.__dict__["field"] = "three\nfour"
    assert "\n" not in formatter.format(entry)


@pytest.mark.parametrize("access", [True, False])
def test_the_line_of_a_request_can_be_left_out(access: bool) -> None:
    configure("info", "json", access=access)
    assert logging.getLogger("model.access").isEnabledFor(logging.INFO) is access
    assert logging.getLogger("model.host").isEnabledFor(logging.INFO)


def test_json_lines_are_json() -> None:
    entry = json.loads(JsonFormatter().format(record("hello")))
    assert (entry["level"], entry["message"]) == ("error", "hello")
