"""Log lines: one line each, and never a caller's text."""

import json
import logging

import pytest

from model.logs import JsonFormatter, TextFormatter


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


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_newline_cannot_forge_a_line(formatter: logging.Formatter) -> None:
    entry = record("one\ntwo")
    entry.__dict__["field"] = "three\nfour"
    assert "\n" not in formatter.format(entry)


def test_json_lines_are_json() -> None:
    entry = json.loads(JsonFormatter().format(record("hello")))
    assert (entry["level"], entry["message"]) == ("error", "hello")
