"""Answers of stored text, sent in pieces as the client takes them.

uvicorn holds whatever it is given, and waits for the client only before the next piece. What is not
taken in time, or cannot be read to its end, is broken off: nothing looks whole and is not.
"""

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Send

PIECE_BYTES = 64 * 1024


class BrokenOff(Exception):
    """The rest of what is being sent cannot be read, or is not taken."""


class InPieces(StreamingResponse):
    def __init__(
        self,
        content: AsyncIterator[bytes],
        *,
        within_s: float,
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        """`within_s` is how long the client may take for each part that `content` gives."""
        super().__init__(content, media_type=media_type, headers=headers)
        self._within_s = within_s

    async def stream_response(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        async for part in self.body_iterator:
            await self._send_part(memoryview(part), send)  # type: ignore[arg-type]  # bytes only
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_part(self, part: memoryview, send: Send) -> None:
        try:
            async with asyncio.timeout(self._within_s):
                for start in range(0, len(part), PIECE_BYTES):
                    piece = part[start : start + PIECE_BYTES]
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError as error:
            raise BrokenOff from error
