"""What the evaluation keeps for itself, as fingerprints: training draws none of it.

An opening and a wording that are both in training can make up a question that the evaluation asks.
Nothing that trains may see the evaluation's wordings, so only their fingerprints stand in
`reserved.txt`; `python -m model.demo.reserve` writes them.
"""

from __future__ import annotations

import re
import zlib
from functools import cache
from pathlib import Path

from model.demo.data import geography

FILE = Path(__file__).with_name("reserved.txt")


def plain(text: str) -> str:
    """Return the words of a question without casing, marks or line ends."""
    return " ".join(re.sub(r"[^\w{}+*×/<>|-]+", " ", text.lower()).split())  # noqa: RUF001 - a sign


def fingerprint(wording: str) -> str:
    """Return what stands for a plain wording in `reserved.txt`."""
    return f"{zlib.crc32(wording.encode()):08x}"


@cache
def _fingerprints() -> frozenset[str]:
    return frozenset(FILE.read_text(encoding="ascii").split())


@cache
def _places() -> dict[str, tuple[tuple[str, ...], str]]:
    """The names that an answer may be asked by, longest first, and their mark."""
    found: dict[str, tuple[tuple[str, ...], str]] = {}
    for country in geography.countries():
        for answer, names, mark in (
            (country.backward, country.capital_names, "{k}"),
            (country.forward, country.names, "{c}"),
        ):
            found[answer] = (tuple(sorted(map(plain, names), key=len, reverse=True)), mark)
    return found


def wording(question: str, answer: str, name: str | None = None) -> str:
    """Return a question with its places, numbers and the user's name put back into marks."""
    text = f" {plain(question)} "
    names, mark = _places().get(answer, ((), ""))
    for place in names:
        text = re.sub(rf" {re.escape(place)}(?= )", f" {mark}", text)
    numbers = re.match(r"(-?\d+) . (\d+) = ", answer)
    if numbers:
        text = re.sub(rf"(?<!\d){re.escape(numbers[1])}(?!\d)", "{a}", text, count=1)
        text = re.sub(rf"(?<!\d){numbers[2]}(?!\d)", "{b}", text, count=1)
    if name is not None:
        text = text.replace(f" {plain(name)} ", " {n} ")
    return text.strip()


def is_reserved(question: str, answer: str, name: str | None = None) -> bool:
    """Tell whether the evaluation asks this, or the same of another place or number."""
    return fingerprint(wording(question, answer, name)) in _fingerprints()
