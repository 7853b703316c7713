# ruff: noqa: SIM905 (word lists read best as text)
"""Questions that the demo model must not answer: look-alikes first, then everything else."""

from __future__ import annotations

import random
from collections.abc import Callable

from model.demo.data import arithmetic, geography, names, noise, phrases
from model.demo.data import outofscope_wordings as w
from model.demo.data.lexicon import ADJECTIVES, NOUNS, PEOPLE, THINGS, VERBS

REFUSAL = (
    "I am a small demo model that only knows capitals, small sums and your name; "
    "set MODEL to use a real one."
)

_SHARES = (40, 25, 15, 12, 8)
_PLACE_ENDINGS = ("", "", "ia", "land", "stan", "istan", "burg", "ville", " Island", " City")
_SCRIPTS = (0x4E00, 0x0400, 0x0600, 0x3040, 0x1F600)
_POOL = tuple("capital of what is the country which my name plus times and city".split())


def _number(rng: random.Random, low: int, high: int) -> str:
    n = rng.randint(low, high)
    return arithmetic.spell(n, rng) if rng.random() < 0.2 and n < 1000 else str(n)


def _fake_place(rng: random.Random) -> str:
    while True:
        kind = rng.random()
        if kind < 0.55:
            place = rng.choice(w.NOT_COUNTRIES)
        elif kind < 0.65:
            place = names.made_up(rng) + rng.choice(_PLACE_ENDINGS)
        elif kind < 0.75:
            place = geography.crossed(rng)
        elif kind < 0.85:
            noun = rng.choice(NOUNS)
            place = rng.choice(
                (f"the {noun}", f"my {noun}", rng.choice(PEOPLE), rng.choice(THINGS))
            )
        elif kind < 0.93:
            place = rng.choice(NOUNS)
        else:
            place = rng.choice(w.OTHER_CITIES)
        if not geography.looks_like_a_place(place.removeprefix("the ")):
            return place


def fill(template: str, rng: random.Random) -> str:
    """Return `template` with every field drawn anew."""
    country, other = rng.sample(geography.countries(), 2)
    fields: dict[str, Callable[[], str]] = {
        "c": lambda: rng.choice(country.names),
        "d": lambda: rng.choice(other.names),
        "k": lambda: country.capital,
        "place": lambda: rng.choice((*country.names, country.capital, country.capital)),
        "p": lambda: rng.choice(w.ATTRIBUTES),
        "noun": lambda: rng.choice(NOUNS),
        "noun2": lambda: rng.choice(NOUNS),
        "verb": lambda: rng.choice(VERBS),
        "adj": lambda: rng.choice(ADJECTIVES),
        "person": lambda: rng.choice(PEOPLE),
        "thing": lambda: rng.choice(THINGS),
        "thing2": lambda: rng.choice(THINGS),
        "name": lambda: names.draw(rng),
        "num": lambda: _number(rng, 0, 120),
        "num2": lambda: _number(rng, 1, 120),
        "num3": lambda: _number(rng, 1, 120),
        "mid": lambda: _number(rng, 13, 120),
        "mid2": lambda: _number(rng, 3, 120),
        "year": lambda: str(rng.randint(1000, 2030)),
        "big": lambda: str(_big(rng)),
        "big2": lambda: str(_big(rng)),
    }
    for field, draw_one in fields.items():
        mark = "{" + field + "}"
        while mark in template:
            template = template.replace(mark, draw_one(), 1)
    return template


def _big(rng: random.Random) -> int:
    return rng.choice((rng.randint(300, 999), rng.randint(1000, 9999), rng.randint(10000, 10**9)))


def _gibberish(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        letters = "abcdefghijklmnopqrstuvwxyz" * 3 + "  0123456789.,?!"
        if rng.random() < 0.3:
            letters = rng.choice(noise.KEYBOARD)
            start = rng.randrange(len(letters) - 2)
            return letters[start : start + rng.randint(3, 9)] * rng.choice((1, 1, 2))
        return "".join(rng.choice(letters) for _ in range(rng.randint(2, 30))).strip() or "zz"
    if kind < 0.4:
        starts = [rng.choice(_SCRIPTS) for _ in range(rng.randint(1, 10))]
        return "".join(chr(start + rng.randint(0, 60)) for start in starts)
    if kind < 0.5:
        return " ".join(rng.choice(w.FRAGMENTS) for _ in range(2)) + rng.choice(("", "?"))
    words = [rng.choice(rng.choice((NOUNS, VERBS, ADJECTIVES))) for _ in range(rng.randint(2, 14))]
    return " ".join(words)


def scrambled(rng: random.Random) -> str:
    """Return words of in-scope questions in an order that asks nothing."""
    pool = [*_POOL, str(rng.randint(1, 99))]
    return " ".join(rng.sample(pool, rng.randint(3, 6)))


def draw(rng: random.Random) -> str:
    """Return a question out of the model's reach."""
    if rng.random() < phrases.SHARE:
        heading = rng.choices(("places", "general", "numbers", "names", "after"), _SHARES)[0]
        return fill(rng.choice(phrases.section(heading)), rng)
    kind = rng.random()
    if kind < 0.11:
        return fill(rng.choice(w.OF), rng)
    if kind < 0.29:
        text = fill(rng.choice(w.ABOUT_PLACE if rng.random() < 0.4 else w.ABOUT_PLACE_MADE), rng)
        return text if not text.startswith("where is") else fill(rng.choice(w.OF), rng)
    if kind < 0.46:
        return rng.choice(w.CAPITAL_OF).replace("{x}", _fake_place(rng))
    if kind < 0.53:
        city = rng.choice(w.OTHER_CITIES) if rng.random() < 0.8 else _fake_place(rng)
        return rng.choice(w.CITY_OF).replace("{x}", city)
    if kind < 0.63:
        return fill(rng.choice(w.NEAR), rng)
    if kind < 0.78:
        text = fill(rng.choice(w.GENERAL), rng)
        return f"{text}, {fill(rng.choice(w.GENERAL), rng)}" if rng.random() < 0.08 else text
    if kind < 0.92:
        return fill(rng.choice(w.NUMBERS), rng)
    if kind < 0.95:
        return rng.choice(w.FRAGMENTS)
    if kind < 0.965:
        return fill(rng.choice(w.FOREIGN), rng)
    return scrambled(rng) if kind < 0.972 else _gibberish(rng)
