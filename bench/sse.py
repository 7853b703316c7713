"""The client's side of a stream of server-sent events, and the two forms of answer that we read.

Owns what counts as a piece of an answer, as `vllm bench serve` counts it: in text completions every
event with a choice, in chats every event with text (the role alone is none). Knows no schedule.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import orjson

from bench.driver import Record

READ_BUFFER = 2**20
"""Bytes; with a small buffer the client itself becomes the slow part."""


class AnswerFailed(Exception):
    """The server refused, or broke off."""


def session(connections: int = 0) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=connections, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=6 * 3600)
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, read_bufsize=READ_BUFFER, trust_env=False
    )


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The data of each event; comments and names are left out."""
    held = b""
    async for chunk in response.content.iter_any():
        held += chunk
        if b"\r" in held:
            held = held.replace(b"\r\n", b"\n")
        *blocks, held = held.split(b"\n\n")
        for block in blocks:
            for line in block.split(b"\n"):
                if line.startswith(b"data:"):
                    yield line[5:].strip()


async def ask(
    client: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    record: Record,
    headers: Mapping[str, str] | None = None,
) -> None:
    """One OpenAI stream, text or chat, into `record`."""
    async with client.post(url, data=orjson.dumps(body), headers=_headers(headers)) as response:
        await _check(response)
        async for data in events(response):
            if data == b"[DONE]":
                return
            event = orjson.loads(data)
            if "error" in event:
                raise AnswerFailed(str(event["error"])[:300])
            for choice in event.get("choices") or ():
                if "text" in choice or (choice.get("delta") or {}).get("content"):
                    record.piece()
            if usage := event.get("usage"):
                count(record, usage)
    raise AnswerFailed("the stream ended without [DONE]")


def count(record: Record, usage: Mapping[str, Any]) -> None:
    record.timing.prompt_tokens = usage["prompt_tokens"]
    record.timing.output_tokens = usage.get("completion_tokens") or 0
    details = usage.get("prompt_tokens_details") or {}
    record.timing.cached_tokens = details.get("cached_tokens") or 0


async def ask_llama_cpp(
    client: aiohttp.ClientSession, url: str, body: Mapping[str, Any], record: Record
) -> None:
    """llama-server's own /completion: the last event has `stop` and the counts."""
    async with client.post(url, data=orjson.dumps(body), headers=_headers(None)) as response:
        await _check(response)
        async for data in events(response):
            event = orjson.loads(data)
            if "error" in event:
                raise AnswerFailed(str(event["error"])[:300])
            if event.get("content") or event.get("tokens"):
                record.piece()
            if event.get("stop"):
                record.timing.prompt_tokens = event["tokens_evaluated"]
                record.timing.output_tokens = event["tokens_predicted"]
                record.timing.cached_tokens = event.get("timings", {}).get("cache_n", 0)
                return
    raise AnswerFailed("the stream ended without its last event")


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise AnswerFailed(f"HTTP {response.status}: {(await response.text())[:300]}")


def _headers(more: Mapping[str, str] | None) -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept": "text/event-stream", **(more or {})}
