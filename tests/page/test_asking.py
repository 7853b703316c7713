"""Asking: the answer streams, can be stopped, copied and made again, and says how fast it came."""

import asyncio
import re

import pytest
from playwright.sync_api import expect

from tests.page.conftest import Opener
from tests.page.sites import Site, answers, in_two_parts, never_ends


def test_an_answer_streams_and_tells_its_speed(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    rest = asyncio.Event()
    site.host.faults = [in_two_parts("one two three", "four five six", rest)]
    chat.send("Count, please")
    expect(chat.prose).to_have_text("one two three")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    site.say(rest)
    chat.finished()
    expect(chat.prose).to_have_text("one two three four five six")
    figures = chat.answer.locator(".figures").inner_text()
    # 20 ms a token, as the model host says: the rate is its decoding, not the network.
    assert re.fullmatch(r"\d+(\.\d)? m?s to the first token · 42 tokens/s · 6 tokens", figures)
    assert chat.has_no_sideways_scroll()


def test_what_is_sent_is_what_the_settings_say(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.button("Settings").click()
    chat.dialog.get_by_label("System prompt").fill("Answer like a pirate.")
    chat.dialog.get_by_label("Temperature").fill("0.25")
    chat.dialog.get_by_label("Longest answer").fill("77")
    chat.dialog.get_by_role("button", name="Save").click()
    chat.ask("Capital of France?")
    body = site.host.generated[-1].body
    assert body["messages"][0] == {"role": "system", "content": "Answer like a pirate."}
    assert (body["temperature"], body["max_tokens"]) == (0.25, 77)
    assert "top_p" not in body
    chat.reload()
    chat.button("Settings").click()
    expect(chat.dialog.get_by_label("Temperature")).to_have_value("0.25")
    chat.dialog.get_by_role("button", name="Defaults").click()
    chat.dialog.get_by_role("button", name="Save").click()
    chat.ask("Capital of Japan?")
    assert "temperature" not in site.host.generated[-1].body


def test_stop_keeps_what_arrived_and_frees_the_model_host(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [never_ends("The first half")]
    chat.send("A long one")
    expect(chat.prose).to_have_text("The first half")
    chat.button("Stop").click()
    expect(chat.answer).to_contain_text("You stopped this answer")
    expect(chat.prose).to_have_text("The first half")
    site.settle(lambda: site.host.running == 0)
    assert site.host.generated[-1].aborted
    chat.reload()
    expect(chat.prose).to_have_text("The first half")
    expect(chat.answer).to_contain_text("interrupted")


@pytest.mark.parametrize("size", ["desktop"])
def test_escape_stops_too(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [never_ends("Half")]
    chat.send("A long one")
    expect(chat.prose).to_have_text("Half")
    chat.page.keyboard.press("Escape")
    expect(chat.answer).to_contain_text("You stopped this answer")


def test_an_answer_goes_on_while_another_chat_is_read(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    rest = asyncio.Event()
    site.host.faults = [in_two_parts("one two", "three four", rest)]
    chat.send("A slow one")
    expect(chat.prose).to_have_text("one two")
    slow = chat.page.url
    chat.page.evaluate("location.hash = '#/'")
    expect(chat.answers).to_have_count(0)
    site.say(rest)
    chat.page.goto(slow)
    expect(chat.prose).to_have_text("one two three four")
    chat.finished()
    expect(chat.answer).not_to_contain_text("interrupted")


def test_question_and_answer_can_be_copied(site: Site, opener: Opener) -> None:
    chat = opener(site.url, permissions=["clipboard-read", "clipboard-write"])
    site.host.faults = [answers("Some **bold** words")]
    chat.ask("Capital of *where*?")
    chat.button("Copy answer").click()
    read = "navigator.clipboard.readText()"
    expect(chat.page.locator(".toast")).to_have_text("Answer copied")
    # What the model wrote, not what it looks like.
    assert chat.page.evaluate(read) == "Some **bold** words"
    chat.questions.first.hover()
    chat.button("Copy question").click()
    expect(chat.page.locator(".toast")).to_have_text("Question copied")
    assert chat.page.evaluate(read) == "Capital of *where*?"


@pytest.mark.parametrize("size", ["desktop"])
def test_copying_works_without_the_clipboards_interface(site: Site, opener: Opener) -> None:
    """A page served by plain HTTP in a local network has none."""
    chat = opener(site.url, permissions=["clipboard-read", "clipboard-write"])
    chat.ask("Capital of France?")
    chat.page.evaluate(
        "Object.defineProperty(navigator.clipboard, 'writeText', { value: undefined })"
    )
    chat.button("Copy answer").click()
    expect(chat.page.locator(".toast")).to_have_text("Answer copied")
    copied = chat.page.evaluate("navigator.clipboard.readText()")
    assert copied == "The capital of France is Paris."


@pytest.mark.parametrize("size", ["desktop"])
def test_an_answer_at_the_length_limit_says_so(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [answers("It goes on and", reason="length")]
    chat.ask("Tell me everything")
    expect(chat.answer).to_contain_text("reached the longest length allowed")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_list_of_models_is_shown_only_when_there_is_a_choice(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    expect(chat.page.get_by_label("Model", exact=True)).to_have_count(0)
    assert "model" not in site.host.generated[-1].body


def test_the_end_is_followed_however_fast_it_moves_until_its_reader_goes_up(
    site: Site, opener: Opener
) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    grow = """async () => {
        const box = document.querySelector("main");
        for (let step = 0; step < 100; step++) {
            const more = document.createElement("div");
            more.style.height = "200px";
            box.firstElementChild.append(more);
            await new Promise((done) => setTimeout(done, 3));
        }
        for (let frame = 0; frame < 2; frame++)
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        return box.scrollHeight - box.scrollTop - box.clientHeight;
    }"""
    to_end = chat.button("To the end")
    assert chat.page.evaluate(grow) < 80
    expect(to_end).to_have_count(0)
    # A little is enough: who drags slowly would never get away otherwise.
    chat.page.locator("main").evaluate("box => (box.scrollTop -= 40)")
    expect(to_end).to_be_visible()
    assert chat.page.evaluate(grow) > 10_000
    to_end.click()
    expect(to_end).to_have_count(0)
    assert chat.page.evaluate(grow) < 80


@pytest.mark.parametrize("size", ["desktop"])
def test_what_is_not_kept_is_not_said_to_be(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [never_ends("")]
    chat.send("A long one")
    site.settle(lambda: site.host.running == 1)
    chat.button("Stop").click()
    expect(chat.answer.locator(".note")).to_contain_text("You stopped this question.")
    site.settle(lambda: site.host.running == 0)
    chat.reload()
    note = chat.answer.locator(".note > span")
    expect(note).to_have_text("This answer was interrupted before anything arrived.")
    chat.ask("Capital of France?")
    site.host.faults = [never_ends("Half of")]
    chat.button("Another answer").click()
    expect(chat.prose).to_have_text("Half of")
    chat.button("Stop").click()
    toast = chat.page.locator(".toast")
    expect(toast).to_have_text("The earlier answer stays. You stopped the new one.")
    expect(chat.prose).to_have_text("The capital of France is Paris.")


@pytest.mark.parametrize("size", ["desktop"])
@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_answer_is_said_to_be_one(site: Site, opener: Opener, nothing: str) -> None:
    chat = opener(site.url)
    site.host.faults = [answers(nothing)]
    chat.ask("Capital of France?")
    expect(chat.answer.locator(".note")).to_have_text("The model gave an empty answer.")
    chat.reload()
    expect(chat.answer.locator(".note")).to_have_text("The model gave an empty answer.")
    chat.button("Another answer").click()
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    expect(chat.answer.locator(".note")).to_have_count(0)
