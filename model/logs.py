"""Log lines: one JSON object or one text line each, on stderr.

Owns their form. They never hold a prompt, an answer, a query string or an exception's message:
an exception is logged as its type and the places it passed through.
"""

import json
import logging
import sys
import time
import traceback
from typing import Any

from transformers.utils.logging import disable_progress_bar

from model import tracing

# Attributes that every record has; whatever else stands on it was given as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if trace_id := tracing.current().trace_id:
        fields["trace_id"] = trace_id
    return fields


def failure(error: BaseException) -> dict[str, Any]:
    """What may be logged of an exception: not its message, which can hold a caller's text."""
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    where = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"exception": type(error).__name__, "where": where}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info and record.exc_info[1]:
            entry |= failure(record.exc_info[1])
        return json.dumps(entry, default=repr)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        extra = fields_of(record)
        if record.exc_info and record.exc_info[1]:
            extra |= failure(record.exc_info[1])
        # A newline must not forge a second line.
        tail = "".join(f" {name}={value!r}" for name, value in extra.items())
        message = record.getMessage().replace("\n", "\\n")
        return f"{time.strftime('%H:%M:%S')} {record.levelname.lower():7} {message}{tail}"


def configure(level: str, form: str, *, access: bool = True) -> None:
    """Send the logs of this project, uvicorn and KServe through one handler; `access`: a line for
    each request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("model").setLevel(level.upper())
    logging.getLogger("model.access").setLevel(logging.NOTSET if access else logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "kserve", "kserve.trace"):
        logger = logging.getLogger(name)
        # KServe configures logging itself unless its logger has a handler.
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    if not sys.stderr.isatty():
        disable_progress_bar()  # it would stand between the lines
