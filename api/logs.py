"""The log's form: one line per record, JSON or text, with no prompt, answer, key or query string
in it.

An exception is logged by its type and its frames; its message is left out, because messages of
libraries may hold what a client sent.
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import orjson

FIELDS = "fields"


def event(logger: logging.Logger, level: int, message: str, **values: Any) -> None:
    """Log `message` with named values, which the JSON form keeps apart from the text."""
    logger.log(level, message, extra={FIELDS: values})


def frames_of(error: BaseException) -> list[str]:
    stack = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in stack]


def _values(record: logging.LogRecord) -> dict[str, Any]:
    values = dict(getattr(record, FIELDS, {}))
    if record.exc_info and record.exc_info[1]:
        values["exception"] = type(record.exc_info[1]).__name__
        values["frames"] = frames_of(record.exc_info[1])
    return values


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        return orjson.dumps(line | _values(record), default=str).decode()


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        text = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        values = " ".join(f"{key}={value!r}" for key, value in _values(record).items())
        return f"{when} {record.levelname.lower():7} {text} {values}".rstrip()


def configure(level: str, form: str) -> None:
    """Send the whole process's log to standard error in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write a line per request with its address, which our own access log already does.
    for name in ("httpx", "httpcore", "alembic", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
