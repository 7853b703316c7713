"""Keys over HTTP: who is let in, what each key may do, and how keys begin and end."""

import asyncio
import threading
from typing import Any

import openai
import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.keyed import ADMIN, METRICS, bearer, new_key, start_keyed
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio
QUESTION = {"chat_id": "1", "user_prompt": "q"}


@pytest.fixture
async def keyed(start_api: StartApi, database_url: str) -> Api:
    return await start_keyed(start_api, database_url=database_url)


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", ADMIN)],
        [("Authorization", f"Basic {ADMIN}")],
        [("Authorization", "Bearer")],
        [("Authorization", f"Bearer {ADMIN} {ADMIN}")],
        [("Authorization", f"Bearer {ADMIN}"), ("Authorization", f"Bearer {ADMIN}")],
        [("Authorization", "Bearer \xff\xfe")],
        [("Authorization", "Bearer ' OR 1=1 --")],
        [("Authorization", "")],
    ],
)
async def test_a_header_of_another_shape_is_401(
    start_api: StartApi, headers: list[tuple[str, str]]
) -> None:
    api = await start_keyed(start_api)
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = await api.client.get("/chats", headers=raw)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_scopes(keyed: Api) -> None:
    chat, _ = await new_key(keyed)
    metrics, _ = await new_key(keyed, scopes=["metrics"])
    table = {
        "/chats": {ADMIN: 200, METRICS: 403, chat: 200, metrics: 403},
        "/v1/models": {ADMIN: 200, METRICS: 403, chat: 200, metrics: 403},
        "/metrics": {ADMIN: 200, METRICS: 200, chat: 403, metrics: 200},
        "/load": {ADMIN: 200, METRICS: 200, chat: 403, metrics: 200},
        "/admin/keys": {ADMIN: 200, METRICS: 403, chat: 403, metrics: 403},
        "/nothing": {ADMIN: 404, METRICS: 403, chat: 404, metrics: 403},
    }
    for path, by_key in table.items():
        for key, status in by_key.items():
            answer = await keyed.client.get(path, headers=bearer(key))
            assert answer.status_code == status, (path, key[:12])
            if status == 403:
                assert error_of(answer)["code"] == "scope_missing"


async def test_the_scheme_may_be_written_in_any_case(keyed: Api) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        headers = {"Authorization": f"{scheme} {ADMIN}"}
        assert (await keyed.client.get("/chats", headers=headers)).status_code == 200


async def test_a_key_is_shown_once_and_stored_as_a_hash(keyed: Api) -> None:
    key, key_id = await new_key(keyed, name="laptop")
    listed = await keyed.client.get("/admin/keys", headers=bearer(ADMIN))
    one = await keyed.client.get(f"/admin/keys/{key_id}", headers=bearer(ADMIN))
    assert listed.json()["keys"] == [one.json()]
    assert one.json()["name"] == "laptop"
    secret = key.split("_")[2]
    assert secret not in listed.text + one.text

    def dump(connection: Any) -> str:
        return repr(list(connection.exec_driver_sql("SELECT * FROM api_keys")))

    stored = await keyed.parts.store.run("dump", dump)  # type: ignore[attr-defined]
    assert key_id in stored
    assert secret not in stored


async def test_rotation_keeps_the_old_key_for_the_grace_time(keyed: Api) -> None:
    old, key_id = await new_key(keyed)
    assert (await keyed.client.get("/chats", headers=bearer(old))).status_code == 200
    path = f"/admin/keys/{key_id}/rotate"
    answer = await keyed.client.post(path, json={"grace_s": 1}, headers=bearer(ADMIN))
    new = answer.json()["key"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["key_id"] == key_id
    for key in (old, new):
        assert (await keyed.client.get("/chats", headers=bearer(key))).status_code == 200

    async def refused() -> bool:
        return (await keyed.client.get("/chats", headers=bearer(old))).status_code == 401

    await eventually(refused, 4)
    assert (await keyed.client.get("/chats", headers=bearer(new))).status_code == 200
    none = await keyed.client.post(path, json={"grace_s": 0}, headers=bearer(ADMIN))
    assert (await keyed.client.get("/chats", headers=bearer(new))).status_code == 401
    newest = none.json()["key"]
    assert (await keyed.client.get("/chats", headers=bearer(newest))).status_code == 200


async def test_a_revoked_key_ends_everywhere_within_the_cache_time(
    start_api: StartApi, database_url: str
) -> None:
    here = await start_keyed(start_api, database_url=database_url)
    there = await start_keyed(start_api, database_url=database_url)
    key, key_id = await new_key(here)
    for api in (here, there):
        assert (await api.client.get("/chats", headers=bearer(key))).status_code == 200
    answer = await here.client.delete(f"/admin/keys/{key_id}", headers=bearer(ADMIN))
    assert answer.json()["revoked_at"]
    assert (await here.client.get("/chats", headers=bearer(key))).status_code == 401

    async def refused() -> bool:
        return (await there.client.get("/chats", headers=bearer(key))).status_code == 401

    await eventually(refused, 2)
    again = f"/admin/keys/{key_id}/rotate"
    gone = await here.client.post(again, json={}, headers=bearer(ADMIN))
    assert (gone.status_code, error_of(gone)["code"]) == (404, "key_not_found")


async def test_a_key_ends_by_itself(keyed: Api) -> None:
    key, _ = await new_key(keyed, expires_in_s=1)
    assert (await keyed.client.get("/chats", headers=bearer(key))).status_code == 200

    async def refused() -> bool:
        return (await keyed.client.get("/chats", headers=bearer(key))).status_code == 401

    await eventually(refused, 3)


async def test_a_known_key_is_not_looked_up_again(start_api: StartApi) -> None:
    api = await start_keyed(start_api, key_cache_s=60)
    key, _ = await new_key(api)

    def look_ups() -> float:
        return sum(
            sample.value
            for metric in api.parts.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "qna_api_database_seconds_count"
            and sample.labels["operation"] == "find_key"
        )

    answers = await asyncio.gather(
        *(api.client.get("/v1/models", headers=bearer(key)) for _ in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert look_ups() == 1


async def test_a_database_that_is_away_lets_nobody_in(start_api: StartApi) -> None:
    api = await start_keyed(start_api, key_cache_s=0, database_timeout_s=0.3)
    key, _ = await new_key(api)
    let_go = threading.Event()

    def block(connection: Any) -> None:
        let_go.wait(20)

    running = asyncio.create_task(api.parts.store.run("block", block))  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    answer = await api.client.get("/v1/models", headers=bearer(key))
    assert (answer.status_code, error_of(answer)["code"]) == (503, "database_unavailable")
    # The settings' own key needs no database.
    assert (await api.client.get("/v1/models", headers=bearer(ADMIN))).status_code == 200
    let_go.set()
    await asyncio.gather(running, return_exceptions=True)


async def test_models_of_a_key(keyed: Api, host: StubHost) -> None:
    allowed, _ = await new_key(keyed, models=["qna-demo"])
    other, _ = await new_key(keyed, models=["another"])
    body = {"model": "qna-demo", "messages": [{"role": "user", "content": "q"}]}
    path = "/v1/chat/completions"
    assert (await keyed.client.post(path, json=body, headers=bearer(allowed))).status_code == 200
    seen = len(host.generated)
    refused = await keyed.client.post(path, json=body, headers=bearer(other))
    assert refused.status_code == 403
    assert error_of(refused)["code"] == "model_not_allowed"
    assert error_of(refused)["param"] == "model"
    assert len(host.generated) == seen
    lists = {
        key: [
            model["id"]
            for model in (await keyed.client.get("/v1/models", headers=bearer(key))).json()["data"]
        ]
        for key in (allowed, other)
    }
    assert lists == {allowed: ["qna-demo"], other: []}
    one = await keyed.client.get("/v1/models/qna-demo", headers=bearer(other))
    assert one.status_code == 403


async def test_a_key_is_changed(keyed: Api) -> None:
    key, key_id = await new_key(keyed)
    path = f"/admin/keys/{key_id}"
    changed = await keyed.client.patch(
        path, json={"scopes": ["metrics"], "limits": {"tokens_per_day": 7}}, headers=bearer(ADMIN)
    )
    assert changed.json()["scopes"] == ["metrics"]
    assert changed.json()["limits"]["tokens_per_day"] == 7
    assert (await keyed.client.get("/chats", headers=bearer(key))).status_code == 403
    back = await keyed.client.patch(
        path, json={"limits": {"tokens_per_day": None}}, headers=bearer(ADMIN)
    )
    assert back.json()["limits"]["tokens_per_day"] is None
    assert back.json()["scopes"] == ["metrics"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": "a" * 129}, "tenant"),
        ({"tenant": "a", "scopes": []}, "scopes"),
        ({"tenant": "a", "scopes": ["root"]}, "scopes[0]"),
        ({"tenant": "a", "models": []}, "models"),
        ({"tenant": "a", "models": ["x y"]}, "models[0]"),
        ({"tenant": "a", "limits": {"tokens_per_day": -1}}, "limits.tokens_per_day"),
        ({"tenant": "a", "limits": {"tokens_per_day": True}}, "limits.tokens_per_day"),
        ({"tenant": "a", "limits": {"tokens": 1}}, "limits.tokens"),
        ({"tenant": "a", "expires_in_s": 0}, "expires_in_s"),
        ({"tenant": "a", "expires_in_s": 10**11}, "expires_in_s"),
        ({"tenant": "a", "name": "\u0000"}, "name"),
        ({"tenant": "a", "more": 1}, "more"),
    ],
)
async def test_a_wrong_body_names_its_field(
    start_api: StartApi, body: dict[str, Any], param: str
) -> None:
    api = await start_keyed(start_api)
    answer = await api.client.post("/admin/keys", json=body, headers=bearer(ADMIN))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


async def test_pages_of_keys_and_tenants(keyed: Api) -> None:
    made = {(await new_key(keyed, tenant=f"t{number % 3}"))[1] for number in range(7)}
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = (await keyed.client.get("/admin/keys", params=query, headers=bearer(ADMIN))).json()
        seen += [key["key_id"] for key in page["keys"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len(seen) == 7
    assert set(seen) == made
    of_one = await keyed.client.get("/admin/keys?tenant=t0", headers=bearer(ADMIN))
    assert len(of_one.json()["keys"]) == 3
    put = await keyed.client.put(
        "/admin/tenants/t1", json={"tokens_per_minute": 9}, headers=bearer(ADMIN)
    )
    assert put.json()["limits"]["tokens_per_minute"] == 9
    wrong = await keyed.client.put("/admin/tenants/a%20b", json={}, headers=bearer(ADMIN))
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "tenant"
    tenants = (await keyed.client.get("/admin/tenants", headers=bearer(ADMIN))).json()["tenants"]
    assert [one["tenant"] for one in tenants] == ["t0", "t1", "t2"]
    assert tenants[1]["limits"]["tokens_per_minute"] == 9


async def test_without_keys_nobody_can_make_one(api: Api) -> None:
    assert (await api.client.get("/chats")).status_code == 200
    answer = await api.client.post("/admin/keys", json={"tenant": "a"})
    assert (answer.status_code, error_of(answer)["code"]) == (403, "auth_is_off")


async def test_openai_raises_its_own_exceptions(keyed: Api) -> None:
    metrics, _ = await new_key(keyed, scopes=["metrics"])
    chat, _ = await new_key(keyed)

    async def ask(key: str) -> str | None:
        async with openai.AsyncOpenAI(base_url=f"{keyed.url}/v1", api_key=key) as client:
            answer = await client.chat.completions.create(
                model="qna-demo", messages=[{"role": "user", "content": "Capital of India?"}]
            )
        return answer.choices[0].message.content

    with pytest.raises(openai.AuthenticationError) as wrong:
        await ask("sk-wrong")
    assert wrong.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError) as denied:
        await ask(metrics)
    assert denied.value.code == "scope_missing"
    assert await ask(chat)
