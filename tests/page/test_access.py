"""By keyboard alone, by a screen reader, in both themes."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.api.stub_host import refuse
from tests.page.chat_page import ChatPage
from tests.page.conftest import Opener, Shot
from tests.page.sites import Site, answers, breaks_off
from tests.page.test_rendering import RICH

THEMES = ["light", "dark"]


def violations(chat: ChatPage) -> list[str]:
    found: dict[str, Any] = Axe().run(chat.page).response
    return [
        f"{one['id']}: {one['help']} at {[node['target'] for node in one['nodes']]}"
        for one in found["violations"]
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(site: Site, opener: Opener, theme: str, shot: Shot) -> None:
    chat = opener(site.url, color_scheme=theme)
    expect(chat.page.get_by_text("What would you like to know?")).to_be_visible()
    assert violations(chat) == []
    shot(chat, f"greeting-{theme}")
    site.host.faults = [answers(RICH), breaks_off("Only half"), refuse(429, "overloaded", "300")]
    chat.ask("Show me everything")
    expect(chat.prose.locator("math")).to_have_count(2)
    chat.ask("Broken")
    chat.send("Busy")
    expect(chat.answer.locator(".seconds")).to_be_visible()
    assert violations(chat) == []
    chat.page.locator("main").evaluate("box => box.scrollTop = 0")
    shot(chat, f"rich-{theme}")
    chat.button("Take back").click()
    chat.show_chats()
    entry = chat.sidebar.get_by_role("listitem").first
    entry.hover()
    entry.get_by_role("button").click()
    assert violations(chat) == []
    shot(chat, f"chats-{theme}")
    entry.get_by_role("button", name="Delete").click()
    assert violations(chat) == []
    chat.button("Keep it").click()
    chat.hide_chats()
    chat.button("Settings").click()
    assert violations(chat) == []
    shot(chat, f"settings-{theme}")
    chat.button("Enter a key").click()
    expect(chat.dialog).to_contain_text("asks for a key")
    assert violations(chat) == []
    shot(chat, f"key-{theme}")


def test_the_theme_follows_the_system_until_one_is_chosen(site: Site, opener: Opener) -> None:
    light, dark = "rgb(253, 252, 250)", "rgb(25, 24, 22)"
    chat = opener(site.url, color_scheme="dark")

    def shows(colour: str) -> None:
        expect(chat.page.locator("html")).to_have_css("background-color", colour)

    shows(dark)
    chat.page.emulate_media(color_scheme="light")
    shows(light)
    chat.show_chats()
    chat.page.get_by_role("radio", name="Dark").check()
    shows(dark)
    chat.reload()
    shows(dark)
    chat.show_chats()
    chat.page.get_by_role("radio", name="As the system").check()
    shows(light)


@pytest.mark.parametrize("size", ["desktop"])
def test_everything_by_keyboard_alone(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    keys = chat.page.keyboard
    expect(chat.question).to_be_focused()
    keys.type("Capital of France?")
    keys.press("Shift+Enter")
    keys.type("Second line")
    keys.press("Enter")
    chat.finished()
    expect(chat.questions).to_have_text("Capital of France?\nSecond line")
    expect(chat.question).to_be_focused()
    visit(chat, "Another answer", backwards=True)
    visit(chat, "Edit question", backwards=True)
    keys.press("Enter")
    editor = chat.page.get_by_role("textbox", name="Your question").first
    expect(editor).to_be_focused()
    keys.press("Escape")
    expect(chat.page.locator(".editor")).to_have_count(0)
    keys.press("Control+k")
    expect(chat.page.get_by_role("searchbox")).to_be_focused()
    keys.press("Tab")
    expect(chat.chats.first).to_be_focused()
    keys.press("Tab")
    keys.press("Enter")
    expect(chat.button("Rename")).to_be_focused()
    keys.press("ArrowDown")
    expect(chat.button("Export as Markdown")).to_be_focused()
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    expect(chat.button("Delete")).to_be_focused()
    keys.press("Enter")
    expect(chat.dialog).to_be_visible()
    keys.press("Escape")
    expect(chat.dialog).to_have_count(0)
    expect(chat.page.locator(":focus")).to_have_attribute("aria-expanded", "false")
    visit(chat, "Settings")
    keys.press("Enter")
    expect(chat.dialog).to_be_visible()
    keys.press("Escape")
    expect(chat.button("Settings")).to_be_focused()
    keys.press("Control+Shift+o")
    expect(chat.page.get_by_text("What would you like to know?")).to_be_visible()
    expect(chat.question).to_be_focused()
    chat.reload()
    expect(chat.question).to_be_focused()
    chat.button("Skip to the question").focus()
    keys.press("Enter")
    expect(chat.question).to_be_focused()


def visit(chat: ChatPage, name: str, *, backwards: bool = False) -> None:
    """Tab until the control with this name has the focus, which has to be seen."""
    for _ in range(60):
        chat.page.keyboard.press("Shift+Tab" if backwards else "Tab")
        focused = chat.page.locator(":focus")
        if focused.count() and focused.get_attribute("aria-label") == name:
            outline = focused.evaluate("node => getComputedStyle(node).outlineStyle")
            assert outline != "none"
            assert focused.evaluate("node => getComputedStyle(node).opacity") == "1"
            return
    raise AssertionError(f"no way to {name}")


@pytest.mark.parametrize("size", ["phone"])
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_drawer_of_a_phone(site: Site, opener: Opener, motion: str) -> None:
    site.ask("drawer", "Capital of Japan?")
    chat = opener(site.url, reduced_motion=motion)
    expect(chat.sidebar).not_to_be_visible()
    chat.button("Show chats").click()
    expect(chat.button("Close")).to_be_focused()
    # What lies below can be neither reached nor read.
    for _ in range(12):
        chat.page.keyboard.press("Tab")
        assert not chat.page.evaluate("document.activeElement.closest('.column') !== null")
    chat.page.keyboard.press("Escape")
    expect(chat.sidebar).not_to_be_visible()
    expect(chat.button("Show chats")).to_be_focused()
    chat.button("Show chats").click()
    chat.chats.first.click()
    expect(chat.prose).to_have_text("The capital of Japan is Tokyo.")
    expect(chat.sidebar).not_to_be_visible()
    for control in chat.page.locator("button:visible, select:visible").all():
        box = control.bounding_box()
        assert box is None or (box["height"] >= 30 and box["width"] >= 30), control


@pytest.mark.parametrize("size", ["desktop"])
def test_progress_is_read_aloud_once(site: Site, opener: Opener) -> None:
    chat = opener(site.url)
    chat.page.evaluate("""() => {
      window.heard = [];
      new MutationObserver(() => {
        for (const node of document.querySelectorAll("[role=status]")) {
          const text = node.textContent.trim();
          if (text && window.heard.at(-1) !== text) window.heard.push(text);
        }
      }).observe(document.body, { subtree: true, childList: true, characterData: true });
    }""")
    site.host.faults = [refuse(429, "overloaded", "2"), answers("one two three", gap_s=0.05)]
    chat.send("Count")
    expect(chat.prose).to_have_text("one two three")
    expect(chat.page.get_by_role("status").first).to_have_text("The answer is complete")
    heard = chat.page.evaluate("window.heard")
    busy = (
        "The server is busy right now. Your question is kept and will be sent again in 2 seconds."
    )
    assert [text for text in heard if text != "Asking"] == [busy, "The answer is complete"]
