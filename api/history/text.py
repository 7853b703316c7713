"""How texts are compared in a search, and what a chat is called that nobody gave a title."""

import unicodedata

MAX_TITLE = 80


def fold(text: str) -> str:
    """Equal for texts that differ in case, white space or composition only.

    The database could not do it: SQLite knows the case of ASCII letters only, PostgreSQL that of
    the locale it was made with.
    """
    plain = " ".join(text.split())
    if plain.isascii():
        return plain.lower()
    return unicodedata.normalize("NFC", plain.casefold())


def title_of(question: str) -> str:
    """The question on one line, cut between words where that is possible."""
    visible = "".join(" " if unicodedata.category(char) == "Cc" else char for char in question)
    line = " ".join(visible.split())
    if len(line) <= MAX_TITLE:
        return line
    cut = line[: MAX_TITLE - 1]
    head, _, _ = cut.rpartition(" ")
    return (head if len(head) > MAX_TITLE // 2 else cut) + "…"
