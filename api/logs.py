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

from api import tracing

FIELDS = "fields"


def event(logger: logging.Logger, level: int, message: str, **values: Any) -> None:
    """Log `message` with named values, which the JSON form keeps apart from the text."""
    if logger.isEnabledFor(level):
        # Not by `logger.log`, which walks the stack for a line number that nobody sees.
        extra = {FIELDS: values}
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None, extra=extra))


def frames_of(error: BaseException) -> list[str]:
    stack = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in stack]


def _short(path: str) -> str:
    """The file in its folder: a dozen whole paths would be half of what a request may log."""
    return "/".join(path.split("/")[-2:])


def _values(record: logging.LogRecord) -> dict[str, Any]:
    values = dict(getattr(record, FIELDS, {}))
    if trace_id := tracing.current().trace_id:
        values["trace_id"] = trace_id
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


def configure(level: str, form: str, *, access: bool = True) -> None:
    """Send the whole process's log to standard error in one form; `access`: a line per request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These write a line per request with its address, which our own access log already does.
    for name in ("httpx", "httpcore", "alembic", "uvicorn.access", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("api.access").setLevel(logging.NOTSET if access else logging.WARNING)
