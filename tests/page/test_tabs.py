"""One chat in two tabs: each shows what the model is told, whatever the other one did."""

import pytest
from playwright.sync_api import expect

from tests.page.chat_page import ChatPage
from tests.page.conftest import Opener
from tests.page.sites import Site, answers, never_ends

pytestmark = pytest.mark.parametrize("size", ["desktop"])

FRANCE = "The capital of France is Paris."
JAPAN = "The capital of Japan is Tokyo."


def beside(chat: ChatPage) -> ChatPage:
    """Another tab with the same chat."""
    other = ChatPage(chat.page.context.new_page(), chat.url, chat.phone, chat.guard)
    other.page.goto(chat.page.url)
    expect(other.answers).to_have_count(chat.answers.count())
    return other


def come_back(chat: ChatPage) -> None:
    chat.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def delete(site: Site, chat: ChatPage) -> None:
    path = f"/chats/{chat.page.url.split('#/chat/')[1]}"
    assert site.portal.call(site.api.client.delete, path).status_code == 204


def toast(chat: ChatPage, text: str) -> None:
    expect(chat.page.locator(".toast")).to_contain_text(text)


def test_another_answer_in_a_tab_that_is_behind_replaces_nothing(
    site: Site, opener: Opener
) -> None:
    first = opener(site.url)
    first.ask("Capital of France?")
    second = beside(first)
    first.ask("Capital of Japan?")
    second.button("Another answer").click()
    toast(second, "gone on elsewhere")
    expect(second.questions).to_have_text(["Capital of France?", "Capital of Japan?"])
    expect(second.answers.locator(".prose")).to_have_text([FRANCE, JAPAN])
    assert len(site.host.generated) == 2
    second.button("Another answer").click()
    site.settle(lambda: len(site.host.generated) == 3)
    second.finished()
    second.button("Another answer").click()
    site.settle(lambda: len(site.host.generated) == 4)
    second.finished()
    expect(second.prose).to_have_text(JAPAN)
    assert [turn["status"] for turn in site.turns(second)] == ["complete", "complete"]


def test_what_was_asked_in_another_tab_is_shown_with_the_next_answer(
    site: Site, opener: Opener
) -> None:
    first = opener(site.url)
    first.ask("Capital of France?")
    second = beside(first)
    first.ask("Capital of Japan?")
    second.ask("Hello?")
    questions = ["Capital of France?", "Capital of Japan?", "Hello?"]
    expect(second.questions).to_have_text(questions)
    expect(second.answer.locator(".figures")).to_contain_text("to the first token")
    come_back(first)
    expect(first.questions).to_have_text(questions)


def test_a_tab_that_is_looked_at_again_shows_what_came(site: Site, opener: Opener) -> None:
    first = opener(site.url)
    first.ask("Capital of France?")
    second = beside(first)
    site.host.faults = [answers("Paris, of course")]
    first.button("Another answer").click()
    expect(first.prose).to_have_text("Paris, of course")
    first.finished()
    come_back(second)
    expect(second.prose).to_have_text("Paris, of course")
    site.host.faults = [never_ends("Some of it")]
    first.send("A long one")
    expect(first.prose).to_have_text("Some of it")
    come_back(second)
    expect(second.questions).to_have_count(2)
    first.button("Stop").click()
    expect(second.prose).to_have_text("Some of it")
    expect(second.answer).to_contain_text("interrupted")


def answered(site: Site, opener: Opener) -> ChatPage:
    """A question has its answer, and the page what it asks the server after it."""
    chat = opener(site.url)
    chat.ask("Capital of France?")
    expect(chat.button("Edit question")).to_have_count(1)
    return chat


def test_a_chat_that_was_deleted_elsewhere_is_said(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    delete(site, chat)
    come_back(chat)
    toast(chat, "This chat was deleted elsewhere")
    expect(chat.page.get_by_text("There is no such chat")).to_be_visible()
    expect(chat.answers).to_have_count(0)


def test_a_question_to_a_chat_that_was_deleted_elsewhere_begins_a_new_one(
    site: Site, opener: Opener
) -> None:
    chat = answered(site, opener)
    delete(site, chat)
    chat.send("Capital of Japan?")
    toast(chat, "What you asked since began a new one")
    expect(chat.questions).to_have_text(["Capital of Japan?"])
    expect(chat.prose).to_have_text(JAPAN)
    chat.reload()
    expect(chat.questions).to_have_text(["Capital of Japan?"])


def test_another_answer_of_a_chat_that_was_deleted_elsewhere(site: Site, opener: Opener) -> None:
    chat = answered(site, opener)
    delete(site, chat)
    chat.button("Another answer").click()
    toast(chat, "This chat was deleted elsewhere")
    expect(chat.answers).to_have_count(0)


def test_a_question_asked_differently_is_not_taken_for_a_chat_made_anew(
    site: Site, opener: Opener
) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    chat.ask("Capital of Japan?")
    expect(chat.button("Edit question")).to_have_count(2)
    chat.questions.last.hover()
    chat.button("Edit question").last.click()
    chat.page.locator(".editor textarea").fill("Hello?")
    chat.button("Ask").click()
    expect(chat.questions).to_have_text(["Capital of France?", "Hello?"])
    chat.finished()
    expect(chat.page.get_by_role("link", name="Branched from an earlier chat")).to_be_visible()
    expect(chat.questions).to_have_text(["Capital of France?", "Hello?"])
    expect(chat.page.locator(".toast")).to_have_count(0)
