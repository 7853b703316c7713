"""Texts as parts of a Markdown document, which none of them can break.

A heading takes one line with nothing in it that Markdown would read. A whole text becomes a quote:
what it opens (a list, a code block without an end) ends with it, and its headings are not the
document's. It stays the Markdown that it was, but for HTML, which would be the document's all the
same: `<` is written as text, except in code. What is not certain to be code counts as none.
"""

import re

_SPECIAL = re.compile(r"([\\`*_\[\]<>#&~$])")
_LINE_END = re.compile(r"\r\n|\r|\n")
_ITEM = re.compile(r" {0,3}(?:[-*+]|[0-9]{1,9}[.)])(?: {1,4}(?! )|$)")
_FENCE = re.compile(r"( *)(`{3,}(?=[^`]*$)|~{3,})")
_TICKS = re.compile(r"`+")
_CODE_OR_HTML = re.compile(r"\\.|(?P<ticks>`+)|<(?=[A-Za-z/!?])")


def line(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def quoted(text: str) -> str:
    inert = _Inert()
    return "\n".join(f"> {inert.line(one)}" if one else ">" for one in _LINE_END.split(text))


class _Inert:
    """Goes through a text line by line and knows where it is in code."""

    def __init__(self) -> None:
        self._fence: tuple[int, str] | None = None
        """How far it is indented, and its mark."""
        self._inside = 0
        """How far the text of the last item of a list is indented."""
        self._open_ticks = False
        self._certain = True

    def line(self, text: str) -> str:
        if self._fence is not None:
            if self._still_in(*self._fence, text):
                return text
        elif self._certain:
            # In a quote, tabs would end elsewhere than they did.
            blank = len(text) - len(text.lstrip(" \t"))
            text = text[:blank].expandtabs(4) + text[blank:]
            if self._opens(text):
                return text
        return self._prose(text)

    def _still_in(self, indent: int, mark: str, text: str) -> bool:
        unindented = text.lstrip(" ")
        own = len(text) - len(unindented)
        run = unindented.rstrip(" \t")
        if own <= indent + 3 and len(run) >= len(mark) and not run.strip(mark[0]):
            self._fence = None
            return True
        if own >= indent or not text.strip():
            return True
        # What holds the code block may have ended here, or may not: from here on all is text.
        self._fence, self._certain = None, False
        return False

    def _opens(self, text: str) -> bool:
        """Whether a code block begins in the line, perhaps behind the marks of a list."""
        inside = 0
        while item := _ITEM.match(text, inside):
            inside = item.end()
        self._inside = inside or self._inside
        if fence := _FENCE.match(text, inside):
            indent, mark = inside + len(fence[1]), fence[2]
            if indent - inside < 4 or 0 <= indent - self._inside < 4:
                self._fence, self._open_ticks = (indent, mark), False
            else:
                self._certain = False
        if not text.strip():
            self._open_ticks = False
        return self._fence is not None

    def _prose(self, text: str) -> str:
        """Code between backticks is left alone where it ends in its line."""
        done, at = "", 0
        while found := _CODE_OR_HTML.search(text, at):
            done += text[at : found.start()]
            at = found.end()
            if ticks := found["ticks"]:
                if self._certain and not self._open_ticks:
                    end = _end_of_code(text, ticks, at)
                    self._open_ticks = end is None
                    at = end or at
                done += text[found.start() : at]
            else:
                done += "\\<" if found[0] == "<" else found[0]
        return done + text[at:]


def _end_of_code(text: str, ticks: str, after: int) -> int | None:
    runs = _TICKS.finditer(text, after)
    return next((run.end() for run in runs if run.end() - run.start() == len(ticks)), None)
