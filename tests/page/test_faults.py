"""Busy, cut, away: nothing typed or said is lost, and the page says what comes next."""

import asyncio
import re
import uuid
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.api.stub_host import refuse
from tests.page.conftest import Opener, Shot
from tests.page.sites import Site, breaks_off, cable, in_two_parts, never_ends, stub_site


def test_busy_counts_down_and_asks_again_by_itself(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.page.clock.install()
    chat.reload()
    site.host.faults = [refuse(429, "overloaded", "60")]
    chat.send("Capital of France?")
    expect(chat.answer).to_contain_text("The server is busy right now.")
    seconds = chat.answer.locator(".seconds")
    expect(seconds).to_have_text(re.compile("[56]. seconds|1 minute"))
    chat.page.clock.fast_forward(40_000)
    expect(seconds).to_have_text(re.compile("[12]?. seconds?"))
    assert len(site.host.generated) == 1
    chat.page.clock.fast_forward(20_000)
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    chat.finished()
    assert len(site.host.generated) == 2


def test_busy_can_be_sent_at_once(site: Site, opener: Opener, shot: Shot) -> None:
    chat = opener(site.url)
    site.host.faults = [refuse(429, "overloaded", "300")]
    chat.send("Capital of Japan?")
    expect(chat.answer.locator(".seconds")).to_have_text("5 minutes")
    shot(chat, "busy")
    chat.button("Send now").click()
    expect(chat.prose).to_have_text("The capital of Japan is Tokyo.")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_limit_that_holds_for_hours_is_no_countdown(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [refuse(429, "rate_limit_exceeded", "7200")]
    chat.send("Capital of Japan?")
    expect(chat.answer.locator(".note")).to_contain_text("Try again in 2 hours.")
    expect(chat.button("Try again")).to_be_visible()
    assert len(site.host.generated) == 1


def test_a_waiting_question_can_be_taken_back(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [refuse(429, "overloaded", "300")]
    chat.send("Capital of Japn?")
    expect(chat.answer.locator(".seconds")).to_be_visible()
    chat.button("Take back").click()
    expect(chat.question).to_have_value("Capital of Japn?")
    expect(chat.answers).to_have_count(0)


def test_a_cut_stream_keeps_its_part_and_offers_another_try(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [breaks_off("Only half of")]
    chat.send("Capital of France?")
    expect(chat.answer).to_contain_text("broke off")
    expect(chat.prose).to_have_text("Only half of")
    chat.reload()
    expect(chat.prose).to_have_text("Only half of")
    expect(chat.answer).to_contain_text("interrupted")
    chat.button("Try again").click()
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    chat.finished()
    expect(chat.questions).to_have_count(1)
    assert [turn["status"] for turn in site.turns(chat)] == ["complete"]


def test_a_connection_that_is_lost_in_mid_answer(site: Site, opener: Opener) -> None:
    with cable(site) as line:
        chat = opener(line.url)
        site.host.faults = [never_ends("one two")]
        chat.send("Count")
        expect(chat.prose).to_have_text("one two")
        line.cut()
        expect(chat.answer).to_contain_text("The connection was lost while the answer arrived.")
        expect(chat.prose).to_have_text("one two")
        chat.answer.get_by_role("button", name="Try again").click()
        expect(chat.answer).to_contain_text("No connection to the server.")
        site.settle(lambda: site.host.running == 0)
        line.mend()
        chat.button("Send now").click()
        expect(chat.prose).to_have_text("echo: Count")
        chat.finished()
        assert [turn["status"] for turn in site.turns(chat)] == ["complete"]
        chat.page.close()


@pytest.mark.parametrize("size", ["desktop"])
def test_a_connection_that_dies_without_a_word(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.page.clock.install()
    chat.reload()
    site.host.faults = [never_ends("one two")]
    chat.send("Count")
    chat.page.clock.run_for(1000)
    expect(chat.prose).to_have_text("one two")
    chat.page.clock.run_for(58_000)
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    chat.page.clock.run_for(3000)
    expect(chat.answer).to_contain_text("The connection was lost while the answer arrived.")
    expect(chat.prose).to_have_text("one two")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_question_whose_answer_got_lost_on_the_way_is_asked_once(
    site: Site, opener: Opener
) -> None:
    """The server has answered, but the answer never came back: the same question goes out again."""
    chat = opener(site.url)
    seen: list[str] = []

    def lose(route: Route) -> None:
        seen.append(route.request.headers["idempotency-key"])
        if len(seen) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    chat.page.route("**/chat", lose)
    chat.send("Capital of Japan?")
    expect(chat.answer).to_contain_text("No connection to the server.")
    expect(chat.prose).to_have_text("The capital of Japan is Tokyo.")
    chat.finished()
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert len(site.host.generated) == 1
    assert [turn["status"] for turn in site.turns(chat)] == ["complete"]


@pytest.mark.parametrize("size", ["desktop"])
def test_a_new_answer_that_fails_leaves_the_old_one(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    site.host.faults = [breaks_off("The capital is")]
    chat.button("Another answer").click()
    expect(chat.page.locator(".toast")).to_contain_text("The earlier answer stays.")
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    chat.reload()
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    expect(chat.answer).not_to_contain_text("interrupted")


def test_without_a_connection_the_question_waits_for_it(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    expect(chat.question).to_be_visible()
    chat.page.context.set_offline(True)
    expect(chat.page.locator(".banner")).to_contain_text("You are offline")
    chat.send("Capital of France?")
    expect(chat.answer).to_contain_text("No connection to the server.")
    assert not site.host.generated
    chat.page.context.set_offline(False)
    expect(chat.prose).to_have_text("The capital of France is Paris.")
    assert len(site.host.generated) == 1
    expect(chat.page.locator(".banner")).to_have_count(0)


def test_a_question_that_the_server_never_took_is_there_after_a_reload(
    opener: Opener, tmp_path: Path
) -> None:
    with stub_site(tmp_path, max_in_flight=1, max_queued=0) as site:
        site.host.faults = [never_ends("busy")]
        first = opener(site.url)
        first.send("A long one")
        expect(first.prose).to_have_text("busy")
        second = opener(site.url)
        second.send("Do not lose me")
        expect(second.answer.locator(".seconds")).to_be_visible()
        first.button("Stop").click()
        site.settle(lambda: site.host.running == 0)
        # Gone before the next try.
        second.reload()
        expect(second.question).to_have_value("Do not lose me")
        expect(second.answers).to_have_count(0)


def test_a_draft_survives_a_reload_and_belongs_to_its_chat(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.ask("Capital of France?")
    chat.question.fill("half a thou")
    here = chat.page.url
    chat.page.evaluate("location.hash = '#/'")
    expect(chat.question).to_have_value("")
    chat.question.fill("for a new chat")
    chat.page.goto(here)
    expect(chat.question).to_have_value("half a thou")
    chat.reload()
    expect(chat.question).to_have_value("half a thou")
    chat.page.goto(f"{chat.url}/#/")
    expect(chat.question).to_have_value("for a new chat")


def test_a_reload_in_mid_answer_shows_what_became_of_it(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    site.host.faults = [never_ends("Some of it")]
    chat.send("A long one")
    expect(chat.prose).to_have_text("Some of it")
    chat.reload()
    expect(chat.questions).to_have_text("A long one")
    expect(chat.answer).to_contain_text("interrupted")
    expect(chat.prose).to_have_text("Some of it")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_refusal_of_the_question_is_said_in_the_servers_words(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.send("word " * 1100)
    expect(chat.answer.locator(".note")).to_contain_text("stub: context_length_exceeded")


@pytest.mark.parametrize("size", ["desktop"])
def test_a_chat_that_does_not_exist_is_said(site: Site, opener: Opener) -> None:
    chat = opener(site.url, f"/#/chat/no-such-chat-{uuid.uuid4()}")
    expect(chat.page.get_by_text("There is no such chat")).to_be_visible()
    chat.ask("Capital of France?")
    expect(chat.prose).to_have_text("The capital of France is Paris.")


@pytest.mark.parametrize("size", ["desktop"])
def test_two_tabs_of_one_chat_show_the_same(site: Site, opener: Opener) -> None:
    first = opener(site.url)
    rest = asyncio.Event()
    site.host.faults = [in_two_parts("slow", "but sure", rest)]
    first.send("Capital of France?")
    expect(first.prose).to_have_text("slow")
    second = opener(site.url, f"/{first.page.url.split('/', 3)[3]}")
    expect(second.questions).to_have_text("Capital of France?")
    site.say(rest)
    expect(second.prose).to_have_text("slow but sure")
    first.finished()
