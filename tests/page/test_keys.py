"""A server that asks for keys: the page asks its reader, keeps the key as told, and forgets it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.api.keyed import ADMIN, bearer
from tests.page.chat_page import ChatPage
from tests.page.conftest import Opener
from tests.page.sites import Site, stub_site

FRANCE = "The capital of France is Paris."


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with stub_site(tmp_path_factory.mktemp("keyed"), auth="on", admin_key=ADMIN) as site:
        yield site


def new_key(site: Site, tenant: str, **more: object) -> str:
    body = {"tenant": tenant, "scopes": ["chat"]} | more
    answer = site.portal.call(
        lambda: site.api.client.post("/admin/keys", json=body, headers=bearer(ADMIN))
    )
    assert answer.status_code == 201, answer.text
    key: str = answer.json()["key"]
    return key


def give(chat: ChatPage, key: str, *, remember: bool = False) -> None:
    expect(chat.dialog).to_contain_text("This server asks for a key")
    chat.dialog.get_by_label("API key").fill(key)
    if remember:
        chat.dialog.get_by_role("checkbox").check()
    chat.dialog.get_by_role("button", name="Use this key").click()


def test_a_key_is_asked_for_and_held_until_the_tab_closes(
    keyed: Site, opener: Opener, size: str
) -> None:
    key = new_key(keyed, f"tab-{size}")
    chat = opener(keyed.url)
    give(chat, "qna_wrong")
    expect(chat.dialog.get_by_role("alert")).to_be_visible()
    give(chat, key)
    expect(chat.dialog).to_have_count(0)
    chat.ask("Capital of France?")
    expect(chat.prose).to_have_text(FRANCE)
    chat.reload()
    expect(chat.prose).to_have_text(FRANCE)
    assert key not in chat.page.evaluate("JSON.stringify(localStorage)")
    assert key not in chat.page.url
    other = chat.page.context.new_page()
    other.goto(keyed.url)
    expect(other.locator("dialog[open]")).to_be_visible()


def test_a_key_is_remembered_when_asked_and_forgotten_when_asked(
    keyed: Site, opener: Opener, size: str
) -> None:
    key = new_key(keyed, f"device-{size}")
    chat = opener(keyed.url)
    give(chat, key, remember=True)
    chat.ask("Capital of France?")
    other = ChatPage(chat.page.context.new_page(), keyed.url, chat.phone, chat.guard)
    other.page.goto(keyed.url)
    other.show_chats()
    expect(other.chats.first).to_have_text("Capital of France?")
    other.page.close()
    chat.button("Settings").click()
    chat.dialog.get_by_role("button", name="Forget the key").click()
    chat.dialog.get_by_role("button", name="Cancel").click()
    # What was said under that key is not left on the screen either.
    expect(chat.answers).to_have_count(0)
    expect(chat.page.locator("body")).not_to_contain_text("France?")
    kept = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }])"
    assert key not in chat.page.evaluate(kept)
    chat.page.reload()
    expect(chat.dialog).to_contain_text("This server asks for a key")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_key_that_ends_in_mid_chat_loses_nothing(keyed: Site, opener: Opener) -> None:
    chat = opener(keyed.url)
    give(chat, new_key(keyed, "ends"))
    chat.ask("Capital of France?")
    chat.page.evaluate("sessionStorage.setItem('qna.key', JSON.stringify('qna_wrong'))")
    address = chat.page.url
    chat.question.fill("typed, not sent")
    chat.page.reload()
    expect(chat.dialog).to_be_visible()
    chat.dialog.get_by_role("button", name="Not now").click()
    expect(chat.question).to_have_value("typed, not sent")
    chat.send("Capital of Japan?")
    give(chat, new_key(keyed, "ends"))
    expect(chat.prose).to_have_text("The capital of Japan is Tokyo.")
    assert chat.page.url == address
    chat.finished()
    chat.reload()
    expect(chat.questions).to_have_text(["Capital of France?", "Capital of Japan?"])


@pytest.mark.parametrize("size", ["desktop"])
def test_a_key_that_is_bound_to_one_model_asks_it(keyed: Site, opener: Opener) -> None:
    chat = opener(keyed.url)
    give(chat, new_key(keyed, "bound", models=["qna-demo"]))
    expect(chat.dialog).to_have_count(0)
    for _ in range(2):
        chat.ask("Capital of France?")
        expect(chat.prose).to_have_text(FRANCE)
    chat.button("Another answer").click()
    chat.finished()
    expect(chat.prose).to_have_text(FRANCE)
    expect(chat.page.get_by_label("Model", exact=True)).to_have_count(0)


@pytest.mark.parametrize("size", ["desktop"])
def test_a_key_that_may_not_chat_is_told_so(keyed: Site, opener: Opener) -> None:
    body = {"tenant": "eyes", "scopes": ["metrics"]}
    made = keyed.portal.call(
        lambda: keyed.api.client.post("/admin/keys", json=body, headers=bearer(ADMIN))
    )
    chat = opener(keyed.url)
    give(chat, made.json()["key"])
    chat.send("Capital of France?")
    expect(chat.answer.locator(".note")).to_contain_text("scope")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_key_that_no_header_can_carry_is_refused_at_once(keyed: Site, opener: Opener) -> None:
    key = new_key(keyed, "quoted")
    chat = opener(keyed.url)
    expect(chat.dialog.get_by_label("API key")).to_be_focused()
    give(chat, f"{key[:9]}\u2013{key[9:]}")
    expect(chat.dialog.get_by_role("alert")).to_contain_text("not a valid key")
    # As a mail program writes it.
    give(chat, f" \u201c{key}\u201d\u200b ")
    expect(chat.dialog).to_have_count(0)
    chat.ask("Capital of France?")
    expect(chat.prose).to_have_text(FRANCE)
    # A page of before kept such a key.
    chat.page.evaluate("sessionStorage.setItem('qna.key', JSON.stringify('qna_\u201c'))")
    chat.page.reload()
    expect(chat.dialog).to_contain_text("This server asks for a key")
