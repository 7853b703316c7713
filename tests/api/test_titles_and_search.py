"""What a chat is called, and how it is found again, on both databases."""

import asyncio

import pytest

from api.history import search as looking
from tests.api.conftest import Api, error_of, eventually
from tests.api.stub_host import StubHost, holds

pytestmark = pytest.mark.anyio


async def title(api: Api, chat_id: str = "1") -> str:
    made: str = (await api.client.get(f"/chats/{chat_id}")).json()["title"]
    return made


async def found(api: Api, search: str, **more: str) -> list[str]:
    """Ids of every chat that a search finds, over all its pages."""
    ids: list[str] = []
    params = {"search": search, "limit": "2"} | more
    while True:
        answer = await api.client.get("/chats", params=params)
        assert answer.status_code == 200, answer.text
        ids += [chat["chat_id"] for chat in answer.json()["chats"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return ids
        params["cursor"] = cursor


# ---- titles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Capital of India?", "Capital of India?"),
        ("  two\n lines\t here ", "two lines here"),
        ("a\x01b", "a b"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 79 + "…"),
        ("word " * 40, " ".join(["word"] * 15) + "…"),
    ],
)
async def test_a_title_is_made_of_the_first_question(
    shared_api: Api, question: str, expected: str
) -> None:
    chat_id = f"title{hash(question)}"
    await shared_api.chat(chat_id=chat_id, user_prompt=question)
    await shared_api.chat(chat_id=chat_id, user_prompt="another")
    assert await title(shared_api, chat_id) == expected
    assert len(expected) <= 80


async def test_a_title_that_was_given_stays(kept_api: Api) -> None:
    await kept_api.chat(chat_id="1", user_prompt="q")
    await kept_api.chat(chat_id="2", user_prompt="later")
    answer = await kept_api.client.patch("/chats/1", json={"title": "Ferien 🏝 100 %"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["chat_id"], answer.json()["title"]) == ("1", "Ferien 🏝 100 %")
    listed = (await kept_api.client.get("/chats")).json()["chats"]
    assert [chat["title"] for chat in listed] == ["later", "Ferien 🏝 100 %"]
    await kept_api.chat(chat_id="1", user_prompt="more")
    assert await title(kept_api) == "Ferien 🏝 100 %"
    export = await kept_api.client.get("/chats/1/export", params={"format": "markdown"})
    assert export.text.startswith("# Ferien 🏝 100 %\n")
    assert (await kept_api.client.get("/chats/1/export")).json()["title"] == "Ferien 🏝 100 %"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": None},
        {"title": ""},
        {"title": "x" * 201},
        {"title": "  "},
        {"title": "a\nb"},
        {"title": "a\u0085b"},
        {"title": "a\0b"},
        {"title": 1},
        {"title": ["a"]},
    ],
)
async def test_a_title_that_cannot_be_is_named(shared_api: Api, body: dict[str, object]) -> None:
    await shared_api.chat(chat_id="named", user_prompt="q")
    answer = await shared_api.client.patch("/chats/named", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "title")
    assert await title(shared_api, "named") == "q"


async def test_renaming_needs_a_chat_and_json(shared_api: Api) -> None:
    answer = await shared_api.client.patch("/chats/none", json={"title": "t"})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "chat_not_found")
    answer = await shared_api.client.patch("/chats/none", content=b'{"title": "t"}')
    assert answer.status_code == 415
    answer = await shared_api.client.patch("/chats/none", json={"title": "t", "more": 1})
    assert error_of(answer)["code"] == "unknown_field"


async def test_a_chat_can_be_renamed_while_it_is_answered(kept_api: Api, host: StubHost) -> None:
    released = asyncio.Event()
    host.faults = [holds(released)]
    asking = asyncio.create_task(kept_api.chat(chat_id="1", user_prompt="q"))
    await eventually(lambda: host.running == 1)
    assert (await kept_api.client.patch("/chats/1", json={"title": "t"})).status_code == 200
    released.set()
    assert (await asking).status_code == 200
    assert await title(kept_api) == "t"


# ---- search -------------------------------------------------------------------------------------


async def test_a_search_looks_at_titles_questions_and_answers(kept_api: Api) -> None:
    await kept_api.chat(chat_id="question", user_prompt="Über die ÖPNV-Preise")
    await kept_api.chat(chat_id="answer", user_prompt="Capital of India?")
    await kept_api.chat(chat_id="later", user_prompt="first")
    await kept_api.chat(chat_id="later", user_prompt="then\n  straße")
    await kept_api.chat(chat_id="title", user_prompt="x")
    await kept_api.client.patch("/chats/title", json={"title": "Große Pläne"})
    assert await found(kept_api, "über DIE öpnv") == ["question"]
    assert await found(kept_api, "u\u0308ber") == ["question"]
    assert await found(kept_api, "NEW delhi") == ["answer"]
    assert await found(kept_api, "then STRASSE") == ["later"]
    assert await found(kept_api, "GROSSE PLÄNE") == ["title"]
    assert await found(kept_api, "nowhere") == []
    everything = ["title", "later", "answer", "question"]
    assert await found(kept_api, "") == everything
    assert await found(kept_api, "  ") == everything


@pytest.mark.parametrize(
    ("search", "expected"),
    [("%", ["percent"]), ("_", ["under"]), ("/", ["slash"]), ("\\", ["back"]), ("%%", []),
     ("a%c", []), ("a_c", []), ("'", ["quote"]), ("*", []), ("a/%c", [])],
)  # fmt: skip
async def test_signs_that_mean_something_to_a_database_are_text(
    shared_api: Api, search: str, expected: list[str]
) -> None:
    texts = {"percent": "5% x", "under": "snake_case", "slash": "either/or", "back": "c:\\d",
             "quote": "it's", "plain": "abc"}  # fmt: skip
    for chat_id, text in texts.items():
        if (await shared_api.client.get(f"/chats/{chat_id}")).status_code == 404:
            await shared_api.chat(chat_id=chat_id, user_prompt=text)
    assert [one for one in await found(shared_api, search) if one in texts] == expected


async def test_a_search_is_paged_and_gives_each_chat_once(
    kept_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough that one page takes several transactions, and one search several pages.
    monkeypatch.setattr(looking, "_CHATS", 3)
    for name in ("_LEAST_TURNS", "_MOST_TURNS"):
        monkeypatch.setattr(looking, name, 2)
    monkeypatch.setattr(looking, "PAGE_TURNS", 5)
    for number in range(13):
        word = "needle" if number % 4 == 0 else "hay"
        await kept_api.chat(chat_id=f"c{number:02}", user_prompt=word)
    assert await found(kept_api, "Needle") == ["c12", "c08", "c04", "c00"]
    assert await found(kept_api, "hay", limit="1") == [
        f"c{number:02}" for number in reversed(range(13)) if number % 4
    ]
    first = (await kept_api.client.get("/chats", params={"search": "nothing"})).json()
    assert first["chats"] == []
    assert first["next_cursor"] is not None


@pytest.mark.parametrize("search", ["x" * 201, "a\0b"])
async def test_a_search_that_cannot_be_is_named(shared_api: Api, search: str) -> None:
    answer = await shared_api.client.get("/chats", params={"search": search})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "search")


async def test_what_was_replaced_or_deleted_is_not_found(kept_api: Api, host: StubHost) -> None:
    await kept_api.chat(chat_id="1", user_prompt="Capital of India?")
    await kept_api.chat(chat_id="2", user_prompt="Capital of France?")
    await kept_api.client.delete("/chats/2")
    assert await found(kept_api, "paris") == []

    async def other(wire: object) -> None:
        await wire.json(200, {"chat_id": "1", "response": "Bombay", "finish_reason": "stop"})  # type: ignore[attr-defined]

    host.faults = [other]
    assert (await kept_api.client.post("/chats/1/regenerate", json={})).status_code == 200
    assert await found(kept_api, "delhi") == []
    assert await found(kept_api, "bombay") == ["1"]
