"""`GET /usage` and `GET /admin/usage`: what was used, as JSON or CSV."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.clock import now_ms, time_text
from api.context import context_of
from api.errors import ApiError, InvalidRequest
from api.in_pieces import BrokenOff
from api.routes.admin import administrator
from api.routes.common import errors, owner_of, parts_of, stored_answer
from api.routes.pages import query
from api.usage.counts import COUNTED, DAY_MS, HOUR_MS, Asked

router = APIRouter(tags=["usage"])
GROUPS = ("hour", "day", "tenant", "key", "model")
MOST_ROWS = 10_000
CSV_PAGE = 2_000
DEFAULT_DAYS = 30
_TIME = {"type": "string", "format": "date-time"}

_Rows = Sequence[dict[str, Any]]


class UsageLine(BaseModel):
    hour: str | None = None
    day: str | None = None
    tenant: str | None = None
    key: str | None = None
    model: str | None = None
    requests: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class UsageReport(BaseModel):
    start: str
    end: str
    rows: list[UsageLine]
    truncated: bool = Field(description=f"There are more than {MOST_ROWS} rows; format=csv has all")


def _parameters(*more: str) -> dict[str, Any]:
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": text, "schema": _TIME}
            for name, text in (
                ("start", f"First hour, ISO 8601; {DEFAULT_DAYS} days ago when absent"),
                ("end", "First hour that is not counted; now when absent"),
            )
        ]
        + [
            query("group_by", "string", f"Of {', '.join(GROUPS)}, with commas between"),
            query("format", "string", "Form of the answer", enum=["json", "csv"]),
            *(query(name, "string", f"Only of this {name}") for name in more),
        ]
    }


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/UsageReport"}},
            "text/csv": {"schema": {"type": "string"}},
        }
    },
    **errors(400, 429, 503),
}


@router.get(
    "/usage",
    response_model=UsageReport,
    response_model_exclude_none=True,
    responses=_RESPONSES,
    openapi_extra=_parameters("key"),
    summary="What the caller's tenant used",
)
async def own_usage(request: Request) -> Response:
    return await _report(request, tenant=owner_of(request))


@router.get(
    "/admin/usage",
    response_model=UsageReport,
    response_model_exclude_none=True,
    responses=_RESPONSES,
    openapi_extra=_parameters("tenant", "key"),
    summary="What every tenant used",
)
async def all_usage(request: Request) -> Response:
    administrator(request)
    return await _report(request, tenant=_text(request, "tenant"))


async def _report(request: Request, *, tenant: str | None) -> Response:
    form = request.query_params.get("format", "json")
    if form not in ("json", "csv"):
        raise InvalidRequest("format: must be json or csv", param="format")
    now = now_ms()
    next_hour = now - now % HOUR_MS + HOUR_MS
    start = _when(request, "start", next_hour - DEFAULT_DAYS * DAY_MS)
    end = _when(request, "end", next_hour)
    groups = _groups(request)
    asked = Asked(start, end, groups, tenant, _text(request, "key"), MOST_ROWS + 1)
    usage = parts_of(request).meter.usage
    if form == "csv":
        pages = usage.read_all(replace(asked, limit=CSV_PAGE))
        # A database that is away is still an answer of its own.
        return _csv(request, groups, await anext(pages), pages)
    times = {"start": time_text(start), "end": time_text(end)}

    async def read() -> object:
        rows = [_line(row) for row in await usage.read(asked)]
        return times | {"rows": rows[:MOST_ROWS], "truncated": len(rows) > MOST_ROWS}

    return await stored_answer(request, read)


def _groups(request: Request) -> tuple[str, ...]:
    given = [name for name in request.query_params.get("group_by", "").split(",") if name]
    if len(set(given)) != len(given) or not set(given) <= set(GROUPS):
        raise InvalidRequest(f"group_by: must be of {', '.join(GROUPS)}", param="group_by")
    return tuple(given)


def _text(request: Request, name: str) -> str | None:
    text = request.query_params.get(name)
    if text is not None and (len(text) > 128 or "\0" in text):
        raise InvalidRequest(f"{name}: must have at most 128 characters", param=name)
    return text


def _when(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        # A + that was not encoded arrives as a space.
        when = datetime.fromisoformat(text.replace(" ", "+"))
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        milliseconds = int(when.timestamp() * 1000)
        time_text(milliseconds)  # in years that can be written in UTC
        return milliseconds
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{name}: must be a time such as 2026-01-31T12:00:00Z", param=name
        ) from None


def _line(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: time_text(int(row[name])) for name in ("hour", "day") if name in row}


def _csv(
    request: Request, groups: Sequence[str], first: _Rows, more: AsyncIterator[_Rows]
) -> Response:
    """All rows, page by page. One that ends in the middle is broken off, so that nobody takes a
    part for the whole.
    """

    async def pages() -> AsyncIterator[str]:
        yield _csv_lines(groups, first, head=True)
        try:
            async for rows in more:
                yield _csv_lines(groups, rows)
        except ApiError as error:
            context_of(request.scope).error_code = error.code
            raise BrokenOff from error

    headers = {"Content-Disposition": 'attachment; filename="usage.csv"'}
    return StreamingResponse(pages(), media_type="text/csv; charset=utf-8", headers=headers)


def _csv_lines(groups: Sequence[str], rows: _Rows, *, head: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*groups, *COUNTED])
    if head:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in _line(row).items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Spreadsheets run what begins like a formula; a model's name may."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
