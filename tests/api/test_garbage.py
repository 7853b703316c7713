"""A request leaves nothing to the garbage collector, whose rounds keep all others waiting."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from api.context import RequestContext
from api.meter import Charge
from tests.api.conftest import Api, StartApi, eventually
from tests.api.keyed import ADMIN, bearer, start_keyed
from tests.api.stub_host import StubHost, refuse

pytestmark = pytest.mark.anyio
ROUNDS = 10
OPENAI = {"model": "qna-demo", "messages": [{"role": "user", "content": "Capital of India?"}]}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat", {"user_prompt": "q"}),
    "chat, streamed": ("/chat", {"user_prompt": "q", "stream": True}),
    "batch": ("/chat/batch", {"chats": [{"user_prompt": "q"}, {"user_prompt": " "}]}),
    "openai": ("/v1/chat/completions", OPENAI),
    "openai, streamed": ("/v1/chat/completions", OPENAI | {"stream": True}),
    "refused": ("/chat", {"user_prompt": ""}),
}


class Left:
    """What requests since its making have left of what every request has one."""

    def __init__(self) -> None:
        gc.collect()
        # Kept, so that none of these makes room for another at its place. A test that failed
        # before keeps all that its frames held.
        self._before = ours()

    def is_little(self, api: Api) -> bool:
        """The last one of each connection, which the connection still knows, is."""
        known = {id(one) for one in self._before}
        counts = Counter(type(one).__name__ for one in ours() if id(one) not in known)
        return not api.parts.lifecycle.running and max(counts.values(), default=0) <= 2


def ours() -> list[object]:
    # By type alone: `isinstance` asks some objects for `__class__`, and one of torch's warns then.
    return [one for one in gc.get_objects() if issubclass(type(one), RequestContext | Charge)]


@pytest.fixture
def left() -> Iterator[Left]:
    """While nothing is collected."""
    made = Left()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_that_has_ended_is_gone(start_api: StartApi, left: Left, name: str) -> None:
    api = await start_keyed(start_api, key_requests_per_minute=1000)
    path, body = REQUESTS[name]
    for _ in range(ROUNDS):
        answer = await api.client.post(path, json=body, headers=bearer(ADMIN))
        assert answer.status_code in (200, 400), answer.text
    await eventually(lambda: left.is_little(api))


async def test_nor_does_one_that_failed_or_whose_client_left(
    start_api: StartApi, host: StubHost, left: Left
) -> None:
    api = await start_keyed(start_api, key_requests_per_minute=1000)
    host.always = refuse(500, "internal_error")
    for path, body in REQUESTS.values():
        await api.client.post(path, json=body, headers=bearer(ADMIN))
    for _ in range(ROUNDS):
        assert (await api.client.post("/chat", json={})).status_code == 401
    host.always, host.delay_s = None, 30
    for _, (path, body) in zip(range(5), REQUESTS.values(), strict=False):
        asking = asyncio.create_task(api.client.post(path, json=body, headers=bearer(ADMIN)))
        await eventually(lambda: host.running)
        asking.cancel()
        await eventually(lambda: not host.running)
    await eventually(lambda: left.is_little(api))
