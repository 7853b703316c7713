"""`Idempotency-Key`: what a key may look like, what makes two requests the same, and an answer told
again.

The turn holds the text of the answer; what else the client was told (`rest`) is kept with the key.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import orjson

from api.errors import InvalidRequest
from api.history import Once, StoredAnswer
from api.sse import DONE, Write, encode

HEADER = "Idempotency-Key"
DETAILS = ("finish_reason", "usage", "timing")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def once_of(keys: Sequence[str], route: str, body: object) -> Once | None:
    """`route` with the chat that a path names, `body` as JSON was read: its form does not count."""
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        raise InvalidRequest(
            f"{HEADER}: must be one key of 1 to 255 visible ASCII characters", param=HEADER
        )
    canonical = orjson.dumps([route, body], option=orjson.OPT_SORT_KEYS)
    return Once(keys[0], hashlib.sha256(canonical).hexdigest())


def rest_of(data: dict[str, Any], history: dict[str, int], headers: dict[str, str]) -> str:
    told = {key: data[key] for key in (*DETAILS, "logprobs") if key in data}
    return orjson.dumps({"data": told | {"history": history}, "headers": headers}).decode()


class Replay:
    """An answer that was given before: whole, or an EventSource for api.sse."""

    def __init__(self, stored: StoredAnswer, *, details: bool) -> None:
        rest = orjson.loads(stored.rest)
        self.headers: dict[str, str] = rest["headers"] | {"Idempotent-Replayed": "true"}
        self._answer = {"chat_id": stored.chat_id, "response": stored.response}
        self._data: dict[str, Any] = rest["data"]
        self._details = details

    def body(self) -> dict[str, Any]:
        left_out = () if self._details else (*DETAILS, "history")
        return self._answer | {k: v for k, v in self._data.items() if k not in left_out}

    async def relay(self, write: Write) -> None:
        if delta := self._answer["response"]:
            await write(encode({"chat_id": self._answer["chat_id"], "delta": delta}))
        left_out = () if self._details else ("history",)
        told = {k: v for k, v in self._data.items() if k not in left_out}
        await write(encode(self._answer | told))
        await write(DONE)

    async def aclose(self) -> None:
        """Holds nothing."""
