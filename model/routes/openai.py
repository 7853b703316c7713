"""OpenAI's chat completions, text completions and models."""

import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from model import __version__
from model.body_reader import parsed
from model.deadline import deadline_of
from model.errors import ModelNotFound
from model.generation import Answer, Delta, Job, whole
from model.host import Host
from model.openai_answers import Chat, Form, Text, usage
from model.openai_schemas import ChatCompletionRequest, Completion, CompletionRequest
from model.prompt import Prompt
from model.responses import DONE, EventStream, Json, event, timing_headers, while_connected
from model.routes.documentation import answers, body, errors
from model.streams import merged
from model.tenant import tenant_of


def create_router(host: Host) -> APIRouter:
    router = APIRouter(prefix="/openai/v1", tags=["OpenAI"])

    @router.post(
        "/chat/completions",
        summary="OpenAI chat completions",
        openapi_extra=body(ChatCompletionRequest),
        responses=answers({"type": "object"}, "OpenAI's chat.completion", streams=True),
    )
    async def chat_completions(request: Request) -> Response:
        host.check()
        asked = await parsed(ChatCompletionRequest, request)
        texts = asked.take_texts()
        prompts = [Prompt("messages", messages=texts, add_special_tokens=asked.add_special_tokens)]
        return await _complete(host, request, asked, prompts, Chat())

    @router.post(
        "/completions",
        summary="OpenAI text completions",
        openapi_extra=body(CompletionRequest),
        responses=answers({"type": "object"}, "OpenAI's text_completion", streams=True),
    )
    async def completions(request: Request) -> Response:
        host.check()
        asked = await parsed(CompletionRequest, request)
        prompts = [
            Prompt(param, text=item, add_special_tokens=asked.add_special_tokens)
            if isinstance(item, str)
            else Prompt(param, token_ids=item)
            for param, item in asked.prompts(host.settings.max_batch_queries)
        ]
        return await _complete(host, request, asked, prompts, _text_form(host, asked, prompts))

    @router.get("/models", summary="The served model", responses=errors(503))
    async def models() -> Response:
        return Json({"object": "list", "data": [_model(host)]})

    # Names of the Hub hold a slash: unknown here, and answered like every unknown name.
    @router.get("/models/{model:path}", summary="One model", responses=errors(404, 503))
    async def model(model: str) -> Response:
        if model != host.settings.model_name:
            raise ModelNotFound
        return Json(_model(host))

    return router


def _text_form(host: Host, asked: CompletionRequest, prompts: Sequence[Prompt]) -> Text:
    if not asked.echo:
        return Text()
    return Text(lambda index: host.generator.text_of(prompts[index // asked.count]))


def fingerprint(host: Host) -> str:
    """Changes with whatever may change what a seed gives, as OpenAI's does."""
    settings = host.settings
    parts = (__version__, settings.model, settings.dtype, settings.quantize, settings.kernels)
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _model(host: Host) -> dict[str, Any]:
    return {
        "id": host.settings.model_name,
        "object": "model",
        "created": host.created,
        "owned_by": "qna",
        "max_model_len": host.info.max_model_len,
    }


async def _complete(
    host: Host,
    request: Request,
    asked: ChatCompletionRequest | CompletionRequest,
    prompts: Sequence[Prompt],
    form: Form,
) -> Response:
    asked.check_model(host.settings.model_name)
    deadline = deadline_of(request.headers, host.settings.request_timeout_s, asked.timeout_ms)
    tenant = tenant_of(request.headers)
    sampling, call = asked.sampling(), uuid4().hex
    jobs = [
        Job(
            prompt=prompt,
            sampling=sampling,
            deadline=deadline,
            tenant=tenant,
            call=call,
            min_tokens=asked.min_tokens or 0,
            ignore_eos=bool(asked.ignore_eos),
            max_tokens_param=asked.max_tokens_param,
        )
        for prompt in prompts
    ]
    head = {
        "id": f"{form.prefix}-{uuid4().hex}",
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": fingerprint(host),
    }
    if asked.stream:
        return EventStream(_events(host, jobs, asked, form, head))
    results = await while_connected(request.receive, _answers(host, jobs, asked.count))
    content = {
        **head,
        "object": form.whole,
        "choices": [form.choice(index, answer) for index, answer in enumerate(results)],
        "usage": usage(results, asked.count),
    }
    return Json(content, headers=timing_headers(results[0]))


async def _answers(host: Host, jobs: Sequence[Job], count: int) -> list[Answer]:
    deltas: dict[int, list[Delta]] = {}
    async with contextlib.aclosing(_choices(host, jobs, count)) as choices:
        async for index, delta in choices:
            deltas.setdefault(index, []).append(delta)
    return [whole(deltas[index]) for index in sorted(deltas)]


async def _choices(
    host: Host, jobs: Sequence[Job], count: int
) -> AsyncGenerator[tuple[int, Delta]]:
    """The pieces of every choice of every prompt; choices are numbered through the prompts."""
    generator = host.generator
    sources = [generator.choices(job, count) for job in jobs]
    async with contextlib.aclosing(merged(sources)) as items:
        async for prompt, (choice, delta) in items:
            yield prompt * count + choice, delta


async def _events(
    host: Host, jobs: Sequence[Job], asked: Completion, form: Form, head: dict[str, Any]
) -> AsyncGenerator[bytes]:
    extra = {"usage": None} if asked.include_usage else {}
    deltas: dict[int, list[Delta]] = {}

    def chunk(choice: dict[str, Any]) -> bytes:
        return event({**head, "object": form.chunk, "choices": [choice], **extra})

    async with contextlib.aclosing(_choices(host, jobs, asked.count)) as choices:
        async for index, delta in choices:
            if index not in deltas:
                deltas[index] = []
                for choice in form.opening(index):
                    yield chunk(choice)
            deltas[index].append(delta)
            for choice in form.pieces(index, delta):
                yield chunk(choice)
    if asked.include_usage:
        results = [whole(deltas[index]) for index in sorted(deltas)]
        content = {
            **head,
            "object": form.chunk,
            "choices": [],
            "usage": usage(results, asked.count),
        }
        yield event(content)
    yield DONE
