"""An OpenAI server with known times: the first piece after one delay, the others after another."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

TTFT_S, ITL_S = 0.15, 0.03


class Stub:
    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.refuse = False
        self.url = ""

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.refuse:
            return web.json_response({"error": {"message": "too busy"}}, status=429)
        chat = request.path.endswith("chat/completions")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if chat:  # the role comes at once, and is no piece of the answer
            await self._send(response, {"choices": [{"delta": {"role": "assistant"}}]})
        await asyncio.sleep(TTFT_S)
        for number in range(body["max_tokens"]):
            if number:
                await asyncio.sleep(ITL_S)
            piece = {"delta": {"content": "x"}} if chat else {"text": "x"}
            await self._send(response, {"choices": [{"index": 0, **piece}]})
        usage = {"prompt_tokens": 7, "completion_tokens": body["max_tokens"]}
        await self._send(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _send(self, response: web.StreamResponse, data: object) -> None:
        await response.write(b": a comment\n\ndata: " + json.dumps(data).encode() + b"\n\n")


@contextmanager
def stub_server() -> Iterator[Stub]:
    stub = Stub()
    loop = asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/completions", stub.completions)
    app.router.add_post("/v1/chat/completions", stub.completions)
    runner = web.AppRunner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    stub.url = f"http://127.0.0.1:{loop.run_until_complete(start())}/v1"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
