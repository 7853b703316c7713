"""Many questions at once: /generate/batch, :predict and V2 infer.

Owns that one bad item fails alone. All items are given to the engine at once. Knows no HTTP.
Event loop only.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from model.errors import HostError, InternalError, InvalidRequest, Retryable, TooBusy
from model.generation import Answer, Generator, Job
from model.logs import failure
from model.parsing import validate
from model.prompt import Prompt
from model.schemas import Query

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ItemResult:
    """Exactly one of answer and error."""

    chat_id: str
    answer: Answer | None = None
    error: HostError | None = None
    details: bool = False

    def as_json(self, request_id: str) -> dict[str, Any]:
        if self.answer is None:
            return {"chat_id": self.chat_id, "error": self.error_json(request_id)}
        return render(self.chat_id, self.answer, details=self.details)

    def error_json(self, request_id: str) -> dict[str, Any]:
        error = self.error or InternalError()
        body: dict[str, Any] = error.envelope(request_id)["error"]
        if isinstance(error, TooBusy):  # an item has no header to say it in
            body["retry_after_s"] = error.retry_after_s
        return body


async def answer_all(
    generator: Generator, items: Sequence[Any], deadline: float, tenant: str | None = None
) -> list[ItemResult]:
    ones = (_answer(generator, item, deadline, tenant) for item in items)
    return list(await asyncio.gather(*ones))


def raise_when_nothing_was_done(results: Sequence[ItemResult]) -> None:
    """Say it where a client's retries look, and send it away for the longest of the times."""
    retryable = [result.error for result in results if isinstance(result.error, Retryable)]
    if len(retryable) == len(results):
        raise max(retryable, key=lambda error: error.retry_after_s)


async def _answer(
    generator: Generator, item: Any, deadline: float, tenant: str | None
) -> ItemResult:
    chat_id = _chat_id(item)
    try:
        query = validate(Query, item)
        answer = await generator.answer(job_of(query, deadline, tenant))
    except HostError as error:
        return ItemResult(chat_id, error=error)
    except Exception as error:  # noqa: BLE001 - its neighbours keep their answers, whatever it did
        logger.error("an item of a batch failed", extra=failure(error))
        return ItemResult(chat_id, error=InternalError())
    return ItemResult(chat_id, answer, details=bool(query.details))


def _chat_id(item: Any) -> str:
    """The caller's where it is one, else one that we make: also for items that are refused."""
    given = item.get("chat_id") if isinstance(item, Mapping) else None
    usable = isinstance(given, str) and 1 <= len(given) <= 256 and "\0" not in given
    return str(given) if usable else str(uuid4())


def job_of(query: Query, deadline: float, tenant: str | None = None) -> Job:
    if query.timeout_ms is not None:
        deadline = min(deadline, time.monotonic() + query.timeout_ms / 1000)
    prompt = Prompt(query.prompt_param, messages=query.as_messages())
    return Job(prompt=prompt, sampling=query, deadline=deadline, tenant=tenant)


def check_count(items: Sequence[Any], limit: int, param: str) -> None:
    if len(items) > limit:
        raise InvalidRequest(
            f"{param}: must have at most {limit} items, not {len(items)}", param=param
        )


def render(chat_id: str, answer: Answer, *, details: bool) -> dict[str, Any]:
    """The answer of /generate, of an item, and of a stream's last event."""
    body: dict[str, Any] = {"chat_id": chat_id, "response": answer.text}
    if details:
        body |= details_of(answer)
    if answer.logprobs:
        body["logprobs"] = [
            {
                "token": item.token.text,
                "logprob": item.token.logprob,
                "top": [{"token": one.text, "logprob": one.logprob} for one in item.top],
            }
            for item in answer.logprobs
        ]
    return body


def details_of(answer: Answer) -> dict[str, Any]:
    end = answer.end
    return {
        "finish_reason": end.finish_reason,
        "usage": {
            "prompt_tokens": end.prompt_tokens,
            "completion_tokens": end.completion_tokens,
            "total_tokens": end.prompt_tokens + end.completion_tokens,
            "cached_tokens": end.cached_tokens,
        },
        "timing": {
            "queue_ms": round(end.timing.queue_s * 1000, 3),
            "prefill_ms": round(end.timing.prefill_s * 1000, 3),
            "decode_ms": round(end.timing.decode_s * 1000, 3),
            "batch_size": end.timing.batch_size,
        },
    }
