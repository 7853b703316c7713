"""Tenants: nobody sees, changes or notices another one's chats, nor shares a prefix cache."""

import random
import statistics
import time

import pytest

from api.keys.records import Caller
from api.keys.salt import cache_salt
from tests.api.conftest import Api, StartApi
from tests.api.keyed import bearer, new_key, start_keyed
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


@pytest.fixture
async def keyed(start_api: StartApi, database_url: str) -> Api:
    return await start_keyed(start_api, database_url=database_url, key_cache_s=60)


async def test_a_chat_belongs_to_its_tenant(keyed: Api) -> None:
    mine, _ = await new_key(keyed, "a")
    also_mine, _ = await new_key(keyed, "a")
    theirs, _ = await new_key(keyed, "b")
    body = {"chat_id": "1", "user_prompt": "q", "system_prompt": "secret"}
    assert (await keyed.client.post("/chat", json=body, headers=bearer(mine))).status_code == 200
    for key, status in ((mine, 200), (also_mine, 200), (theirs, 404)):
        for path in ("/chats/1", "/chats/1/export", "/chats/1/export?format=markdown"):
            answer = await keyed.client.get(path, headers=bearer(key))
            assert answer.status_code == status
    assert (await keyed.client.get("/chats", headers=bearer(theirs))).json()["chats"] == []
    gone = await keyed.client.delete("/chats/1", headers=bearer(theirs))
    assert gone.status_code == 404
    # The same id is another chat for another tenant.
    other = await keyed.client.post(
        "/chat", json={"chat_id": "1", "user_prompt": "q2", "details": True}, headers=bearer(theirs)
    )
    assert other.json()["history"]["turns_sent"] == 0
    assert len((await keyed.client.get("/chats/1", headers=bearer(mine))).json()["items"]) == 1


async def test_a_foreign_chat_looks_like_none(keyed: Api) -> None:
    mine, _ = await new_key(keyed, "a")
    theirs, _ = await new_key(keyed, "b")
    await keyed.client.post(
        "/chat", json={"chat_id": "there", "user_prompt": "q"}, headers=bearer(theirs)
    )
    for method, path in (
        ("GET", "/chats/{}"),
        ("GET", "/chats/{}/export"),
        ("DELETE", "/chats/{}"),
    ):
        bodies = []
        for chat_id in ("there", "nowhere"):
            headers = bearer(mine) | {"X-Request-Id": "same"}
            answer = await keyed.client.request(method, path.format(chat_id), headers=headers)
            assert answer.status_code == 404
            bodies.append(answer.content)
        assert bodies[0] == bodies[1]


async def test_a_foreign_chat_takes_as_long_as_none(keyed: Api) -> None:
    mine, _ = await new_key(keyed, "a")
    theirs, _ = await new_key(keyed, "b")
    await keyed.client.post(
        "/chat", json={"chat_id": "there", "user_prompt": "q" * 50_000}, headers=bearer(theirs)
    )
    seconds: dict[str, list[float]] = {"there": [], "nowhere": []}
    for _ in range(60):
        for chat_id in random.sample(sorted(seconds), 2):
            began = time.perf_counter()
            answer = await keyed.client.get(f"/chats/{chat_id}", headers=bearer(mine))
            seconds[chat_id].append(time.perf_counter() - began)
            assert answer.status_code == 404
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    noise = statistics.stdev(sorted(seconds["nowhere"])[:50])
    assert abs(medians["there"] - medians["nowhere"]) < max(3 * noise, 0.2 * medians["nowhere"])


async def test_many_tries_leak_nothing(keyed: Api) -> None:
    keys = {tenant: (await new_key(keyed, tenant))[0] for tenant in "abc"}
    random.seed(4)
    owned: dict[str, set[str]] = {tenant: set() for tenant in keys}
    for step in range(120):
        tenant = random.choice(sorted(keys))
        chat_id = str(random.randrange(6))
        headers = bearer(keys[tenant])
        match random.randrange(4):
            case 0:
                body = {"chat_id": chat_id, "user_prompt": f"{tenant} {step}"}
                answer = await keyed.client.post("/chat", json=body, headers=headers)
                assert answer.status_code == 200
                owned[tenant].add(chat_id)
            case 1:
                answer = await keyed.client.get(f"/chats/{chat_id}", headers=headers)
                assert answer.status_code == (200 if chat_id in owned[tenant] else 404)
                if chat_id in owned[tenant]:
                    asked = {turn["user_prompt"][0] for turn in answer.json()["items"]}
                    assert asked == {tenant}
            case 2:
                answer = await keyed.client.get("/chats", headers=headers)
                assert {chat["chat_id"] for chat in answer.json()["chats"]} == owned[tenant]
            case _:
                answer = await keyed.client.delete(f"/chats/{chat_id}", headers=headers)
                assert answer.status_code == (204 if chat_id in owned[tenant] else 404)
                owned[tenant].discard(chat_id)


async def test_each_tenant_has_a_salt_of_its_own(keyed: Api, host: StubHost) -> None:
    keys = {tenant: (await new_key(keyed, tenant))[0] for tenant in "ab"}
    openai = {"model": "qna-demo", "messages": [{"role": "user", "content": "q"}]}
    salts: dict[str, set[str]] = {}
    for tenant, key in keys.items():
        host.seen.clear()
        for path, body in (
            ("/chat", {"user_prompt": "q"}),
            ("/chat", {"user_prompt": "q", "stream": True}),
            ("/v1/chat/completions", openai),
            ("/v1/chat/completions", openai | {"stream": True}),
            ("/v1/completions", {"model": "qna-demo", "prompt": "q"}),
        ):
            await keyed.client.post(path, json=body, headers=bearer(key))
        salts[tenant] = {seen.body["cache_salt"] for seen in host.generated}
        assert len(host.generated) == 5
    assert len(salts["a"]) == len(salts["b"]) == 1
    assert salts["a"] != salts["b"]
    host.seen.clear()
    # A salt that a caller names makes a cache within the tenant's own.
    for key in keys.values():
        body = openai | {"cache_salt": next(iter(salts["a"]))}
        await keyed.client.post("/v1/chat/completions", json=body, headers=bearer(key))
    named = [seen.body["cache_salt"] for seen in host.generated]
    assert len({*named, *salts["a"], *salts["b"]}) == 4


async def test_whose_turn_it_is_no_caller_can_say(keyed: Api, host: StubHost) -> None:
    openai = {"model": "qna-demo", "messages": [{"role": "user", "content": "q"}]}
    tags: dict[str, set[str]] = {}
    for tenant in "ab":
        key, _ = await new_key(keyed, tenant)
        host.seen.clear()
        for number, (path, body) in enumerate(
            (
                ("/chat", {"user_prompt": "q"}),
                ("/chat", {"user_prompt": "q", "stream": True}),
                ("/chat/batch", {"chats": [{"user_prompt": "q"}]}),
                ("/v1/chat/completions", openai | {"cache_salt": "one"}),
                ("/v1/chat/completions", openai | {"cache_salt": "two", "stream": True}),
                ("/v1/completions", {"model": "qna-demo", "prompt": "q"}),
            )
        ):
            named = bearer(key) | {"X-Tenant": f"another-{number}"}
            answer = await keyed.client.post(path, json=body, headers=named)
            assert answer.status_code == 200
        assert len(host.generated) == 6
        tags[tenant] = {seen.headers["x-tenant"] for seen in host.generated}
        # It is neither the tenant's name nor its salt.
        salt = host.generated[0].body["cache_salt"]
        assert not tags[tenant] & {tenant, salt}
    assert len(tags["a"]) == len(tags["b"]) == 1
    assert tags["a"] != tags["b"]


async def test_without_keys_the_host_is_told_no_tenant(api: Api, host: StubHost) -> None:
    await api.client.post("/chat", json={"user_prompt": "q"}, headers={"X-Tenant": "mine"})
    assert "cache_salt" not in host.generated[0].body
    assert "x-tenant" not in host.generated[0].headers


def test_a_salt_cannot_be_put_together_by_names() -> None:
    salts = {cache_salt(Caller(tenant=t), o) for t, o in (("a", "b:c"), ("a:b", "c"), ("ab", "c"))}
    assert len(salts) == 3
    assert cache_salt(Caller(), "own") == "own"
