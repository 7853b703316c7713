"""The page as a person uses it: by what it shows and what its controls are called."""

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Locator, Page, expect


@dataclass
class ChatPage:
    page: Page
    url: str
    phone: bool
    guard: Any

    @property
    def question(self) -> Locator:
        return self.page.locator("#question")

    @property
    def answers(self) -> Locator:
        return self.page.get_by_role("group", name="Answer", exact=True)

    @property
    def answer(self) -> Locator:
        return self.answers.last

    @property
    def prose(self) -> Locator:
        return self.answer.locator(".prose")

    @property
    def questions(self) -> Locator:
        return self.page.locator(".bubble")

    @property
    def sidebar(self) -> Locator:
        return self.page.locator("#sidebar")

    @property
    def chats(self) -> Locator:
        return self.sidebar.get_by_role("listitem").get_by_role("link")

    @property
    def dialog(self) -> Locator:
        return self.page.locator("dialog[open]")

    def settled(self) -> None:
        """The chat that the address names has been fetched, whatever there is of it."""
        expect(self.page.locator("main")).to_have_attribute("aria-busy", "false")

    def reload(self) -> None:
        """Only what is fetched again can be counted."""
        self.page.reload()
        self.settled()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def send(self, text: str) -> None:
        """As people do it: Enter on a keyboard, a tap on a phone."""
        self.settled()
        self.question.fill(text)
        if self.phone:
            self.button("Send").click()
        else:
            self.question.press("Enter")

    def ask(self, text: str) -> None:
        """Send, and wait for the whole answer."""
        self.settled()
        before = self.answers.count()
        self.send(text)
        expect(self.answers).to_have_count(before + 1)
        self.finished()

    def finished(self) -> None:
        expect(self.answer).to_have_attribute("aria-busy", "false")

    def show_chats(self) -> None:
        if self.phone and not self.sidebar.is_visible():
            self.button("Show chats").click()
            expect(self.button("Close")).to_be_visible()

    def hide_chats(self) -> None:
        if self.phone and self.sidebar.is_visible():
            self.page.keyboard.press("Escape")

    def option(self, title: str, name: str) -> None:
        """One of the things that can be done to a chat of the list."""
        self.show_chats()
        entry = self.sidebar.get_by_role("listitem").filter(has_text=title).first
        entry.hover()
        entry.get_by_role("button", name=f"Options for {title}").click()
        entry.get_by_role("button", name=name, exact=True).click()

    def has_no_sideways_scroll(self) -> bool:
        script = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        return bool(self.page.evaluate(script))
