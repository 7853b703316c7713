"""The list of chats: its pages, and what it does when it cannot be had."""

import asyncio
from pathlib import Path

import pytest
from playwright.sync_api import expect

from api.history import SqlStore
from api.history.search import PAGE_TURNS
from tests.api.stores import fill
from tests.page.conftest import Opener
from tests.page.sites import Site, cable, in_two_parts, never_ends, stub_site

MANY = 35


@pytest.mark.parametrize("size", ["desktop"])
def test_older_chats_come_when_asked_for(opener: Opener, tmp_path: Path) -> None:
    with stub_site(tmp_path) as site:
        for number in range(MANY):
            site.ask(f"chat-{number}", f"Question number {number}")
        chat = opener(site.url)
        expect(chat.chats).to_have_count(30)
        expect(chat.chats.first).to_have_text(f"Question number {MANY - 1}")
        chat.button("Older chats").click()
        expect(chat.chats).to_have_count(MANY)
        expect(chat.chats.last).to_have_text("Question number 0")
        expect(chat.button("Older chats")).to_have_count(0)
        chat.sidebar.get_by_role("searchbox").fill("number 7")
        expect(chat.chats).to_have_text(["Question number 7"])


@pytest.mark.parametrize("size", ["desktop"])
def test_a_list_that_cannot_be_had_is_said_and_had_later(opener: Opener, tmp_path: Path) -> None:
    with stub_site(tmp_path) as site, cable(site) as line:
        site.ask("one", "Capital of France?")
        chat = opener(line.url)
        expect(chat.chats).to_have_text(["Capital of France?"])
        line.cut()
        search = chat.sidebar.get_by_role("searchbox")
        search.fill("Capital")
        expect(chat.page.locator(".toast")).to_contain_text("cannot be searched")
        # What was there before is still there.
        expect(chat.chats).to_have_text(["Capital of France?"])
        chat.page.evaluate("location.hash = '#/chat/one'")
        again = chat.page.get_by_role("main").get_by_role("button", name="Try again")
        expect(again).to_be_visible()
        line.mend()
        again.click()
        expect(chat.prose).to_have_text("The capital of France is Paris.")
        chat.page.close()


@pytest.mark.parametrize("size", ["desktop"])
def test_a_search_goes_on_where_the_server_stopped(opener: Opener, tmp_path: Path) -> None:
    with stub_site(tmp_path) as site:
        store = site.api.parts.store
        assert isinstance(store, SqlStore)
        # The server looks through so many turns for one page of a search.
        site.portal.call(fill, store, "long", PAGE_TURNS * 2)
        site.ask("short", "Capital of France?")
        chat = opener(site.url)
        expect(chat.chats).to_have_count(2)
        search = chat.sidebar.get_by_role("searchbox")
        search.fill(f"q{PAGE_TURNS * 2 - 1}")
        expect(chat.chats).to_have_text(["q0"])
        search.fill(f"q{PAGE_TURNS * 2}")
        expect(chat.sidebar.get_by_text("No chat holds these words.")).to_be_visible()


@pytest.mark.parametrize("size", ["desktop"])
def test_a_new_chat_is_listed_while_its_first_answer_arrives(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    rest = asyncio.Event()
    site.host.faults = [in_two_parts("one", "two", rest)]
    chat.send("A question that is new here")
    expect(chat.chats.first).to_have_text("A question that is new here")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    site.say(rest)
    chat.finished()


def test_a_chat_can_be_deleted_while_it_is_answered(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.ask("A question to delete")
    address = chat.page.url
    site.host.faults = [never_ends("It goes on")]
    chat.send("And a long one")
    expect(chat.prose).to_have_text("It goes on")
    chat.option("A question to delete", "Delete")
    chat.dialog.get_by_role("button", name="Delete").click()
    expect(chat.page.locator(".toast")).to_have_text("Chat deleted")
    expect(chat.answers).to_have_count(0)
    expect(chat.chats.filter(has_text="A question to delete")).to_have_count(0)
    site.settle(lambda: site.host.running == 0)
    chat.page.goto(address)
    expect(chat.page.get_by_text("There is no such chat")).to_be_visible()
