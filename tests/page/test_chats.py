"""Chats with the real servers and the bundled demo model: asked, asked again, asked differently,
found, renamed, handed out, deleted.
"""

import json
import uuid
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.page.chat_page import ChatPage
from tests.page.conftest import Opener, Shot
from tests.page.sites import fetch

INDIA = "The capital of India is New Delhi."
JAPAN = "The capital of Japan is Tokyo."
FRANCE = "The capital of France is Paris."


def turns(chat: ChatPage, replaced: str = "") -> list[tuple[str, str, str]]:
    chat_id = chat.page.url.split("#/chat/")[1]
    view = json.loads(fetch(f"{chat.url}/chats/{chat_id}{replaced}"))
    return [(item["user_prompt"], item["response"], item["status"]) for item in view["items"]]


def renamed(chat: ChatPage, old: str) -> str:
    """Give the latest chat a title that no other test knows."""
    title = f"Trip {uuid.uuid4().hex[:8]}"
    chat.option(old, "Rename")
    field = chat.sidebar.get_by_label("Title of the chat")
    expect(field).to_be_focused()
    field.fill(title)
    field.press("Enter")
    expect(chat.chats.filter(has_text=title)).to_have_count(1)
    return title


def test_a_chat_is_kept(real: str, opener: Opener, shot: Shot) -> None:
    chat = opener(real)
    chat.button("Capital of India?").click()
    expect(chat.prose).to_have_text(INDIA)
    chat.finished()
    chat.ask("And of Japan?")
    expect(chat.prose).to_have_text(JAPAN)
    expect(chat.answer.locator(".figures")).to_contain_text("to the first token")
    expect(chat.answer.locator(".figures")).to_contain_text("tokens/s")
    expect(chat.page.get_by_role("heading", level=1)).to_have_text("Capital of India?")
    expect(chat.page).to_have_title("Capital of India? · qna")
    shot(chat, "chat")
    chat.reload()
    expect(chat.answers).to_have_count(2)
    expect(chat.prose).to_have_text(JAPAN)
    chat.show_chats()
    expect(chat.chats.first).to_have_text("Capital of India?")
    expect(chat.chats.first).to_have_attribute("aria-current", "page")


def test_another_answer_takes_the_place_of_the_last(real: str, opener: Opener) -> None:
    chat = opener(real)
    chat.ask("Capital of India?")
    chat.ask("Capital of France?")
    chat.button("Another answer").click()
    expect(chat.answer.locator(".figures")).to_contain_text("to the first token")
    chat.finished()
    expect(chat.prose).to_have_text(FRANCE)
    expect(chat.answers).to_have_count(2)
    india, france = ("Capital of India?", INDIA), ("Capital of France?", FRANCE)
    assert turns(chat) == [(*india, "complete"), (*france, "complete")]
    everything = turns(chat, "?replaced=true")
    assert sorted(everything) == sorted([*turns(chat), (*france, "replaced")])


def test_a_question_asked_differently_is_a_chat_of_its_own(real: str, opener: Opener) -> None:
    chat = opener(real)
    chat.ask("Capital of India?")
    chat.ask("And of Japan?")
    first = chat.page.url
    chat.questions.last.hover()
    chat.button("Edit question").last.click()
    editor = chat.page.locator(".editor textarea")
    expect(editor).to_have_value("And of Japan?")
    editor.fill("And of France?")
    chat.button("Ask").click()
    expect(chat.prose).to_have_text(FRANCE)
    chat.finished()
    assert chat.page.url != first
    expect(chat.questions).to_have_text(["Capital of India?", "And of France?"])
    assert [one[:2] for one in turns(chat)] == [
        ("Capital of India?", INDIA),
        ("And of France?", FRANCE),
    ]
    chat.page.get_by_role("link", name="Branched from an earlier chat").click()
    expect(chat.questions).to_have_text(["Capital of India?", "And of Japan?"])
    assert chat.page.url == first
    chat.page.go_back()
    expect(chat.questions).to_have_text(["Capital of India?", "And of France?"])


@pytest.mark.parametrize("size", ["desktop"])
def test_what_is_typed_into_a_field_that_just_opened_lands_where_it_was_put(
    real: str, opener: Opener
) -> None:
    """Before the next paint: a caret that moves later would mix the old question with the new."""
    chat = opener(real)
    chat.ask("Capital of India?")
    chat.questions.last.hover()
    selected = chat.page.evaluate(
        """async () => {
            document.querySelector("[aria-label='Edit question']").click();
            const editor = () => document.querySelector(".editor textarea");
            for (let turn = 0; turn < 1000 && !editor(); turn++) await Promise.resolve();
            const area = editor();
            area.select();
            for (let frame = 0; frame < 2; frame++)
                await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            return area.value.slice(area.selectionStart, area.selectionEnd);
        }"""
    )
    assert selected == "Capital of India?"


@pytest.mark.parametrize("size", ["desktop"])
def test_the_first_question_can_be_asked_differently(real: str, opener: Opener) -> None:
    chat = opener(real)
    chat.ask("Capital of India?")
    chat.questions.last.hover()
    chat.button("Edit question").click()
    chat.page.locator(".editor textarea").fill("Capital of Japan?")
    chat.button("Ask").click()
    expect(chat.prose).to_have_text(JAPAN)
    chat.finished()
    expect(chat.questions).to_have_text(["Capital of Japan?"])


def test_chats_are_renamed_found_and_deleted(real: str, opener: Opener) -> None:
    chat = opener(real)
    chat.ask("Capital of Japan?")
    title = renamed(chat, "Capital of Japan?")
    expect(chat.page.get_by_role("heading", level=1)).to_have_text(title)
    search = chat.sidebar.get_by_role("searchbox")
    search.fill(title.upper())
    expect(chat.chats).to_have_text([title])
    search.fill("no chat holds this text")
    expect(chat.sidebar.get_by_text("No chat holds these words.")).to_be_visible()
    search.fill(title.split()[1])
    expect(chat.chats).to_have_text([title])
    search.fill("")
    expect(chat.chats.nth(1)).to_be_visible()
    chat.option(title, "Delete")
    chat.dialog.get_by_role("button", name="Keep it").click()
    expect(chat.chats.filter(has_text=title)).to_have_count(1)
    chat.option(title, "Delete")
    chat.dialog.get_by_role("button", name="Delete").click()
    expect(chat.chats.filter(has_text=title)).to_have_count(0)
    expect(chat.page.get_by_text("What would you like to know?")).to_be_attached()
    chat.reload()
    chat.show_chats()
    expect(chat.chats.first).to_be_visible()
    expect(chat.chats.filter(has_text=title)).to_have_count(0)


def test_chats_are_handed_out(real: str, opener: Opener, tmp_path: Path) -> None:
    chat = opener(real)
    chat.ask("Capital of France?")
    title = renamed(chat, "Capital of France?")
    for name, suffix in (("Export as Markdown", "md"), ("Export as JSON", "json")):
        with chat.page.expect_download() as waiting:
            chat.option(title, name)
        download = waiting.value
        assert download.suggested_filename == f"{title.replace(' ', '-')}.{suffix}"
        download.save_as(tmp_path / suffix)
    text = (tmp_path / "md").read_text()
    assert title in text
    assert FRANCE in text
    assert json.loads((tmp_path / "json").read_text())["items"][0]["response"] == FRANCE
