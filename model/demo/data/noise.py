"""The ways in which people mistype, shout and pad a question."""

from __future__ import annotations

import random

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOURS: dict[str, str] = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2]
    for row in KEYBOARD
    for i, key in enumerate(row)
}


def typo(word: str, rng: random.Random) -> str:
    """Return `word` with one slip of the finger: swapped, lost, doubled, wrong or extra letter."""
    spots = [i for i, c in enumerate(word) if c.isalpha()]
    if len(spots) < 4:
        return word
    i = rng.choice(spots[1:] if rng.random() < 0.9 else spots)
    kind = rng.random()
    if kind < 0.3 and i + 1 < len(word) and word[i + 1].isalpha():
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    if kind < 0.6:
        return word[:i] + word[i + 1 :]
    if kind < 0.8:
        return word[:i] + word[i] + word[i:]
    near = _NEIGHBOURS.get(word[i].lower(), "e")
    if kind < 0.92:
        return word[:i] + rng.choice(near) + word[i + 1 :]
    return word[:i] + rng.choice(near) + word[i:]


def distance(a: str, b: str) -> int:
    """Return the edit distance of two words (a swap of neighbours counts as one edit)."""
    if abs(len(a) - len(b)) > 3:
        return 4
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def recase(text: str, rng: random.Random) -> str:
    """Return `text` in the casing of a hurried, shouting or playful writer."""
    kind = rng.random()
    if kind < 0.8:
        return text.lower()
    if kind < 0.88:
        return text.upper()
    if kind < 0.93:
        return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    if kind < 0.97:
        return "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in text)
    if kind < 0.99:
        return text[:1].lower() + text[1:]
    return text[:1].upper() + text[1:].lower()


def mistype(text: str, rng: random.Random, *, slips: int = 1) -> str:
    """Return `text` with a slip in `slips` of its longer words."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if sum(c.isalpha() for c in word) >= 4]
    for i in rng.sample(long, min(slips, len(long))):
        words[i] = typo(words[i], rng)
    return " ".join(words)


def respace(text: str, rng: random.Random) -> str:
    """Return `text` with stray blanks, line ends or trailing marks."""
    kind = rng.random()
    if kind < 0.3:
        return text + rng.choice((" ", "  ", "\n", " ?", " !", "...", " :)", "\t"))
    if kind < 0.5:
        return rng.choice((" ", "  ", "\n", "- ", "> ", "Q: ", '"')) + text
    if kind < 0.7 and " " in text:
        words = text.split(" ")
        i = rng.randrange(1, len(words))
        return " ".join(words[:i]) + "  " + " ".join(words[i:])
    if kind < 0.85:
        return text + rng.choice(("?", "??", "???", "!", "!!", "?!", ".", "..", ",", ";"))
    return '"' + text + '"'


_FILLERS = (
    "actually", "really", "just", "exactly", "now", "please", "maybe", "perhaps", "kindly", "again",
    "usually", "simply", "quickly", "hmm", "well", "then", "known to be", "said to be", "like",
    "basically", "officially", "surely", "I think", "you think", "I guess", "today", "called",
)  # fmt: skip


_SMALL = ("the", "is", "a", "what", "me", "as")


def reword(template: str, rng: random.Random) -> str:
    """Return `template` with a filler put in or a small word left out; marks stay.

    Strangers never use the listed wordings alone: what a question asks must not hang on one word.
    """
    words = template.split(" ")
    if rng.random() < 0.65 or len(words) < 4:
        words.insert(rng.randint(0, len(words)), rng.choice(_FILLERS))
        return " ".join(words)
    spots = [i for i, word in enumerate(words) if word.lower() in _SMALL]
    if spots:
        words.pop(rng.choice(spots))
    return " ".join(words)
