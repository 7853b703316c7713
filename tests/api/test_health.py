"""Probes: liveness asks nobody, readiness asks the database, neither depends on the model host."""

import sqlite3
from pathlib import Path

import pytest

from tests.api.conftest import Api, StartApi, error_of, eventually
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


async def test_live_and_ready_without_a_model_host(start_api: StartApi) -> None:
    api = await start_api(model_host_url="http://127.0.0.1:1")
    assert (await api.client.get("/livez")).json() == {"status": "live"}

    async def seen() -> bool:
        answer = await api.client.get("/readyz")
        assert answer.status_code == 200
        return bool(answer.json()["model_host"] == "unavailable")

    await eventually(seen)


async def test_readiness_shows_the_model_hosts_state(api: Api, host: StubHost) -> None:
    async def seen() -> bool:
        return bool((await api.client.get("/readyz")).json()["model_host"] == "ready")

    await eventually(seen)


async def test_without_the_database_live_but_not_ready(start_api: StartApi, tmp_path: Path) -> None:
    api = await start_api(database_timeout_s=0.2)
    blocker = sqlite3.connect(tmp_path / "chats.db", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    answer = await api.client.get("/readyz")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "database_unavailable")
    assert (await api.client.get("/livez")).status_code == 200
    answer = await api.chat(user_prompt="q")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "database_unavailable")
    assert "retry-after" in answer.headers
    blocker.execute("ROLLBACK")
    blocker.close()

    async def ready() -> bool:
        return (await api.client.get("/readyz")).status_code == 200

    await eventually(ready)


async def test_metrics_count_what_happened(api: Api, host: StubHost) -> None:
    await api.chat(chat_id="1", user_prompt="q")
    await api.chat(chat_id="1", user_prompt="q", stream=True)
    await api.chat(user_prompt=1)
    text = (await api.client.get("/metrics")).text
    assert 'qna_api_requests_total{outcome="ok",route="/chat"} 2.0' in text
    assert 'qna_api_requests_total{outcome="invalid_value",route="/chat"} 1.0' in text
    assert 'qna_api_turns_total{status="complete"} 2.0' in text
    assert 'qna_api_time_to_first_token_seconds_count{route="/chat"} 1.0' in text
    assert "qna_api_requests_in_flight 0.0" in text


async def test_the_start_page_names_routes_that_exist(api: Api) -> None:
    page = (await api.client.get("/", headers={"Accept": "application/json"})).json()
    document = (await api.client.get(page["openapi"])).json()
    assert (await api.client.get(page["docs"])).status_code == 200
    for route in page["routes"]:
        method, path = route.split()
        assert method.lower() in document["paths"][path]
