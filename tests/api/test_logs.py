"""Log lines: small and single, whatever went wrong, and never a caller's text."""

import json
import logging

import pytest

from api.logs import JsonFormatter, TextFormatter, configure, event, frames_of
from api.tracing import Trace, entered

CANARY = "canary7f3a"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise ValueError(CANARY)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(JsonFormatter().format(record))


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.Logger("api.test")
    made.addHandler(Kept())
    return made


def lines(logger: logging.Logger) -> list[str]:
    (kept,) = logger.handlers
    assert isinstance(kept, Kept)
    return kept.lines


def test_an_exception_of_many_levels_is_one_small_line(logger: logging.Logger) -> None:
    with pytest.raises(ValueError, match=CANARY) as caught:
        deep(200)
    about = {"exception": "ValueError", "frames": frames_of(caught.value)}
    event(logger, logging.ERROR, "request failed", request_id="r" * 128, **about)
    logger.error("failed", exc_info=caught.value)
    for line in lines(logger):
        assert len(line) < 1200
        assert CANARY not in line
        assert json.loads(line)["exception"] == "ValueError"
        assert "api/test_logs.py" in line


def test_the_trace_stands_in_every_line_of_its_request(logger: logging.Logger) -> None:
    with entered(Trace(TRACE, {})):
        event(logger, logging.INFO, "within")
    event(logger, logging.INFO, "outside")
    within, outside = (json.loads(line) for line in lines(logger))
    assert within["trace_id"] == TRACE
    assert "trace_id" not in outside


def test_a_newline_cannot_forge_a_line() -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "fields": {"x": "c\nd"}})
    for formatter in (JsonFormatter(), TextFormatter()):
        assert "\n" not in formatter.format(record)


@pytest.mark.parametrize("access", [True, False])
def test_the_line_of_a_request_can_be_left_out(access: bool) -> None:
    configure("info", "json", access=access)
    assert logging.getLogger("api.access").isEnabledFor(logging.INFO) is access
    assert logging.getLogger("api.upstream").isEnabledFor(logging.INFO)
