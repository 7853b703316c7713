"""Routes by a model's name, on every route that takes one, and what keys and usage make of it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.conftest import Api, error_of
from tests.api.fleet import Fleet, completion, running_fleet
from tests.api.keyed import ADMIN, bearer, new_key
from tests.api.stub_host import StubHost

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    async with running_fleet(tmp_path, monkeypatch) as made:
        yield made


async def test_each_model_has_its_host(fleet: Fleet) -> None:
    large, small = await fleet.host("large"), await fleet.host("small")
    fleet.write(
        fleet.model("large", "large", aliases=["gpt-4o"]),
        fleet.model("small", "small", served_name="Org/small"),
    )
    api = await fleet.api()
    for model, host, served in (
        ("large", large, "large"),
        ("gpt-4o", large, "large"),
        ("small", small, "Org/small"),
    ):
        for stream in (False, True):
            answer = await completion(api, model, stream=stream)
            assert answer.status_code == 200
            assert host.generated[-1].body["model"] == served
            assert answer.headers["x-served-by-model"] == ("small" if host is small else "large")
    answer = await api.chat(user_prompt="q", model="small")
    assert answer.json()["response"] == "echo: q"
    assert answer.headers["x-served-by-model"] == "small"
    assert "model" not in small.generated[-1].body
    streamed = await api.chat(user_prompt="q", model="small", stream=True)
    assert streamed.headers["x-served-by-model"] == "small"
    assert fleet.counts() == {"large": 4, "small": 4}


async def test_who_names_no_model_gets_the_first(fleet: Fleet) -> None:
    await fleet.host("first"), await fleet.host("second")
    fleet.write(fleet.model("first", "first"), fleet.model("second", "second"))
    api = await fleet.api()
    assert (await api.chat(user_prompt="q")).headers["x-served-by-model"] == "first"


async def test_an_unknown_model_is_a_404_that_names_what_there_is(fleet: Fleet) -> None:
    await fleet.host("a")
    fleet.write(fleet.model("one", "a"), fleet.model("two", "a"))
    api = await fleet.api()
    for answer in (
        await completion(api, "secret"),
        await api.chat(user_prompt="q", model="secret"),
    ):
        assert answer.status_code == 404
        error = error_of(answer)
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "one, two" in error["message"]
        assert "secret" not in answer.text
    assert fleet.counts() == {"a": 0}
    assert (await api.client.get("/chats")).json()["chats"] == []


async def test_one_host_without_a_file_takes_any_name(api: Api, host: StubHost) -> None:
    assert (await completion(api, "whatever")).status_code == 200
    assert host.generated[-1].body["model"] == "whatever"
    answer = await api.chat(user_prompt="q", model="whatever")
    assert answer.status_code == 200
    assert "x-served-by-model" not in answer.headers


async def test_models_are_listed_with_what_their_hosts_say(fleet: Fleet) -> None:
    large = await fleet.host("large")
    await fleet.host("small")
    large.context = 4096
    fleet.write(
        fleet.model("large", "large", aliases=["gpt-4o"]),
        fleet.model("small", "small"),
        {"name": "gone", "addresses": ["http://127.0.0.1:1"]},
    )
    api = await fleet.api(retry_attempts=0)
    data = (await api.client.get("/v1/models")).json()["data"]
    assert [one["id"] for one in data] == ["large", "small", "gone"]
    assert [one.get("max_model_len") for one in data] == [4096, 1024, None]
    assert [one["available"] for one in data] == [True, True, False]
    assert data[0]["aliases"] == ["gpt-4o"]


async def test_many_who_list_the_models_ask_each_host_once(fleet: Fleet) -> None:
    host = await fleet.host("a")
    fleet.write(fleet.model("one", "a"))
    api = await fleet.api()
    answers = await asyncio.gather(*(api.client.get("/v1/models") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len([one for one in host.seen if one.path == "/openai/v1/models"]) == 1


async def test_history_fits_the_context_of_the_model_that_is_asked(fleet: Fleet) -> None:
    await fleet.host("large")
    small = await fleet.host("small")
    small.context = 40
    fleet.write(fleet.model("large", "large"), fleet.model("small", "small"))
    api = await fleet.api()
    for n in range(6):
        answer = await api.chat(chat_id="1", user_prompt=f"question {n} has some words")
        assert answer.headers["x-history-turns-dropped"] == "0"
    answer = await api.chat(chat_id="1", user_prompt="and now?", model="small")
    assert answer.status_code == 200
    assert int(answer.headers["x-history-turns-dropped"]) > 0


async def test_text_completions_go_by_name_too(fleet: Fleet) -> None:
    await fleet.host("large"), await fleet.host("small")
    fleet.write(fleet.model("large", "large"), fleet.model("small", "small", served_name="Org/s"))
    api = await fleet.api()
    answer = await api.client.post("/v1/completions", json={"model": "small", "prompt": "q"})
    assert answer.status_code == 200
    assert fleet.counts() == {"large": 0, "small": 1}
    assert fleet.hosts["small"].generated[-1].body["model"] == "Org/s"
    answer = await api.client.post("/v1/completions", json={"model": "none", "prompt": "q"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


async def test_another_answer_may_come_from_another_model(fleet: Fleet) -> None:
    await fleet.host("large"), await fleet.host("small")
    fleet.write(fleet.model("large", "large"), fleet.model("small", "small"))
    api = await fleet.api()
    assert (await api.chat(chat_id="1", user_prompt="q")).status_code == 200
    again = await api.client.post("/chats/1/regenerate", json={"model": "small"})
    assert again.status_code == 200
    assert again.headers["x-served-by-model"] == "small"
    assert fleet.counts() == {"large": 1, "small": 1}
    refused = await api.client.post("/chats/1/regenerate", json={"model": "none"})
    assert (refused.status_code, error_of(refused)["code"]) == (404, "model_not_found")
    (turn,) = (await api.client.get("/chats/1")).json()["items"]
    assert turn["status"] == "complete"


async def test_items_of_a_batch_go_their_own_ways(fleet: Fleet) -> None:
    await fleet.host("large"), await fleet.host("small")
    fleet.write(fleet.model("large", "large"), fleet.model("small", "small"))
    api = await fleet.api()
    chats = [{"user_prompt": "q", "model": name} for name in ("large", "small", "none")]
    answers = (await api.client.post("/chat/batch", json={"chats": chats})).json()
    assert [answer.get("response") for answer in answers] == ["echo: q", "echo: q", None]
    assert answers[2]["error"]["code"] == "model_not_found"
    assert fleet.counts() == {"large": 1, "small": 1}


async def test_one_model_is_told_by_its_name_or_an_alias(fleet: Fleet) -> None:
    await fleet.host("a")
    fleet.write(fleet.model("Org/one", "a", aliases=["gpt-4o"]), fleet.model("two", "a"))
    api = await fleet.api()
    for name in ("Org/one", "Org%2Fone", "gpt-4o"):
        answer = await api.client.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["id"]) == (200, "Org/one")
    missing = await api.client.get("/v1/models/three")
    assert missing.status_code == 404
    assert "Org/one, two" in error_of(missing)["message"]


async def test_a_keys_models_and_the_usage_of_each(fleet: Fleet) -> None:
    await fleet.host("large"), await fleet.host("small")
    fleet.write(
        fleet.model("large", "large", aliases=["gpt-4o"]),
        fleet.model("small", "small", served_name="Org/small"),
    )
    api = await fleet.api(auth="on", admin_key=ADMIN)
    small, _ = await new_key(api, models=["small"])
    both, _ = await new_key(api, models=["small", "gpt-4o"])
    listed = {}
    for key in (small, both):
        data = (await api.client.get("/v1/models", headers=bearer(key))).json()["data"]
        listed[key] = [one["id"] for one in data]
    assert listed == {small: ["small"], both: ["large", "small"]}

    async def chat(key: str, **body: str) -> int:
        answer = await api.client.post(
            "/chat", json={"user_prompt": "q"} | body, headers=bearer(key)
        )
        return answer.status_code

    # The first model answers who names none, and that is not the key's.
    assert [await chat(small), await chat(small, model="large")] == [403, 403]
    assert [await chat(small, model="small"), await chat(both, model="gpt-4o")] == [200, 200]
    # A right to a model is one to its aliases, and to asking it by no name.
    large, _ = await new_key(api, models=["large"])
    assert [await chat(large, model="gpt-4o"), await chat(large)] == [200, 200]
    # And a right to an alias is one to the model, which is listed by its name.
    assert [await chat(both, model="large"), await chat(both)] == [200, 200]
    body = {"model": "small", "messages": [{"role": "user", "content": "q"}]}
    for stream in (False, True):
        answer = await api.client.post(
            "/v1/chat/completions", json=body | {"stream": stream}, headers=bearer(small)
        )
        assert answer.status_code == 200
    assert fleet.counts() == {"large": 5, "small": 3}
    usage = await api.client.get("/admin/usage?group_by=model", headers=bearer(ADMIN))
    assert {row["model"]: row["requests"] for row in usage.json()["rows"]} == {
        "large": 5,
        "small": 3,
    }


async def test_usage_is_the_model_that_answered(fleet: Fleet) -> None:
    await fleet.host("small")
    fleet.write(
        {"name": "large", "addresses": ["http://127.0.0.1:1"], "fallback": "small"},
        fleet.model("small", "small"),
    )
    api = await fleet.api(auth="on", admin_key=ADMIN)
    key, _ = await new_key(api)
    for stream in (False, True):
        answer = await api.client.post(
            "/chat",
            json={"user_prompt": "q", "model": "large", "stream": stream},
            headers=bearer(key),
        )
        assert answer.status_code == 200
    usage = await api.client.get("/admin/usage?group_by=model", headers=bearer(ADMIN))
    assert [(row["model"], row["requests"]) for row in usage.json()["rows"]] == [("small", 2)]
