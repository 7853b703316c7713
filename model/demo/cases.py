"""The evaluation's questions, made from the held-out wordings, with the answers that are right."""

from __future__ import annotations

import random
from dataclasses import dataclass

from model.demo.data import arithmetic, geography, heldout, names, outofscope, smalltalk
from model.demo.data.wordings import PLAIN_FORWARD

Message = dict[str, str]

FLOORS: dict[str, float] = {
    "capital forward": 0.97,
    "capital backward": 0.97,
    "plain wording": 0.97,
    "sum": 0.95,
    "difference": 0.95,
    "product": 0.95,
    "follow-up place": 0.95,
    "follow-up sum": 0.95,
    "name": 0.95,
    "small talk": 0.95,
    "out of scope": 0.95,
    "lower case": 0.95,
    "upper case": 0.95,
    "typo": 0.90,
    "other system prompt": 0.95,
}
"""The least share of right answers in each category: what the model has to reach."""

EXAMPLES: tuple[tuple[str, str], ...] = (
    ("Capital of India?", "The capital of India is New Delhi."),
    ("Capital of France?", "The capital of France is Paris."),
    ("Capital of Japan?", "The capital of Japan is Tokyo."),
)
"""Answers that hold word for word."""


@dataclass(frozen=True)
class Case:
    """One question, the chat before it, and the only right answer."""

    category: str
    messages: tuple[Message, ...]
    expected: str


def _chat(system: str | None, *texts: str) -> tuple[Message, ...]:
    head: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    turns = [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)
    ]
    return tuple(head + turns)


def _system(rng: random.Random) -> str | None:
    return rng.choice(heldout.SYSTEMS[:3])


def _places(rng: random.Random, count: int) -> list[Case]:
    cases: list[Case] = []
    countries = geography.countries()
    owners = [c for c in countries if geography.by_capital()[c.capital] is c]
    for i in range(count):
        country, owner = countries[i % len(countries)], owners[i % len(owners)]
        ask = rng.choice(heldout.FORWARD).replace("{c}", rng.choice(country.names))
        back = rng.choice(heldout.BACKWARD).replace("{k}", owner.capital)
        cases.append(Case("capital forward", _chat(_system(rng), ask), country.forward))
        cases.append(Case("capital backward", _chat(_system(rng), back), owner.backward))
        text, answer = rng.choice(((ask, country.forward), (back, owner.backward)))
        if i % 3 == 0:
            other = rng.choice(heldout.SYSTEMS)
            cases.append(Case("other system prompt", _chat(other, text), answer))
        elif i % 3 == 1:
            cases.append(Case("lower case", _chat(_system(rng), text.lower()), answer))
            cases.append(Case("upper case", _chat(_system(rng), text.upper()), answer))
        else:
            name = geography.misspell(country.name, rng)
            ask = rng.choice(heldout.FORWARD).replace("{c}", name)
            cases.append(Case("typo", _chat(_system(rng), ask), country.forward))
    return cases


def _held_out_pair(op: str, rng: random.Random, high: int) -> tuple[int, int]:
    """Return operands that training never saw; for a product any, only its wording is new."""
    while True:
        a, b = rng.randint(0, high), rng.randint(0, high)
        if op == "mul" or arithmetic.is_held_out(op, a, b):
            return a, b


def _write(n: int, rng: random.Random, spelled: bool) -> str:
    return arithmetic.spell(n, rng) if spelled else str(n)


def _calculations(rng: random.Random, count: int) -> list[Case]:
    kinds = (
        ("sum", "add", heldout.ADD, 99),
        ("difference", "sub", heldout.SUB, 99),
        ("product", "mul", heldout.MUL, 12),
    )
    cases = []
    for category, op, wordings, high in kinds:
        for i in range(count):
            a, b = _held_out_pair(op, rng, high)
            spelled = i % 4 == 0
            text = rng.choice(wordings)
            text = text.replace("{a}", _write(a, rng, spelled))
            text = text.replace("{b}", _write(b, rng, spelled))
            sentence, _ = arithmetic.answer(op, a, b)
            cases.append(Case(category, _chat(_system(rng), text), sentence))
    return cases


def _aside(rng: random.Random) -> list[str]:
    """Return an unrelated turn or none."""
    kind = rng.random()
    if kind < 0.5:
        return []
    if kind < 0.75:
        return [rng.choice(smalltalk.THANKS), smalltalk.THANKS_ANSWER]
    return ["hello", smalltalk.GREETING_ANSWER]


def _place_follow_up(rng: random.Random) -> Case:
    first, second = rng.sample(geography.countries(), 2)
    before = [f"What is the capital of {first.name}?", first.forward]
    if rng.random() < 0.3:
        sentence, _ = arithmetic.answer("add", 3, 4)
        before += ["3 + 4", sentence]
    else:
        before += _aside(rng)
    text = rng.choice(heldout.PLACE_FOLLOW_UPS).replace("{c}", rng.choice(second.names))
    return Case("follow-up place", _chat(_system(rng), *before, text), second.forward)


def _sum_follow_up(rng: random.Random) -> Case:
    op = rng.choice(("add", "sub"))
    a, b = _held_out_pair(op, rng, 99)
    sentence, value = arithmetic.answer(op, a, b)
    before = [f"{a} {arithmetic.SIGNS[op]} {b}", sentence]
    follow = rng.choice(("add", "sub", "mul"))
    if follow == "mul":
        text, factor = rng.choice(heldout.MUL_MORE)
        if not 0 <= value <= 99:
            text, factor = heldout.MUL_MORE[0]
    else:
        text = rng.choice(heldout.ADD_MORE if follow == "add" else heldout.SUB_MORE)
        factor = rng.randint(1, 20)
    answer, _ = arithmetic.answer(follow, value, factor)
    text = text.replace("{b}", str(factor))
    return Case("follow-up sum", _chat(_system(rng), *before, text), answer)


def _name(rng: random.Random) -> Case:
    name = rng.choice(heldout.FIRST_NAMES)
    while rng.random() < 0.4:
        made = names.made_up(rng)
        if names.is_held_out(made):
            name = made
            break
    given = rng.choice(heldout.NAME_GIVEN).replace("{n}", name)
    nice = smalltalk.NAME_GIVEN_ANSWER.replace("{n}", name)
    asked = rng.choice(heldout.NAME_ASKED)
    kind = rng.random()
    if kind < 0.2:
        return Case("name", _chat(_system(rng), given), nice)
    if kind < 0.35:
        country = rng.choice(geography.countries())
        before = ["Hello", smalltalk.GREETING_ANSWER, f"Capital of {country.name}", country.forward]
        return Case("name", _chat(_system(rng), *before, asked), smalltalk.NAME_UNKNOWN_ANSWER)
    between: list[str] = []
    for _ in range(rng.randint(1, 4)):
        country = rng.choice(geography.countries())
        between += [f"What is the capital of {country.name}?", country.forward, *_aside(rng)]
    answer = smalltalk.NAME_KNOWN_ANSWER.replace("{n}", name)
    return Case("name", _chat(_system(rng), given, nice, *between, asked), answer)


_TALK = {
    "hello": smalltalk.GREETING_ANSWER,
    "fine": smalltalk.HOW_ARE_YOU_ANSWER,
    "welcome": smalltalk.THANKS_ANSWER,
    "bye": smalltalk.GOODBYE_ANSWER,
    "who": smalltalk.WHO_ANSWER,
    "can": smalltalk.ABILITIES_ANSWER,
}


def _outside(rng: random.Random, count: int) -> list[Case]:
    texts = list(heldout.OUTSIDE)
    for template in heldout.OUTSIDE_PLACES:
        texts += [
            template.replace("{c}", country.name).replace("{k}", country.capital)
            for country in rng.sample(geography.countries(), 6)
        ]
    rng.shuffle(texts)
    return [
        Case("out of scope", _chat(_system(rng), text), outofscope.REFUSAL)
        for text in texts[: max(count, 60)]
    ]


def _plainly_asked(rng: random.Random, count: int) -> list[Case]:
    """What most people type first. The words are training's own: it is the names that look-alikes
    compete with, in both casings."""
    cases = []
    countries = geography.countries()
    for i in range(max(count, 40)):
        country = countries[i // 2 % len(countries)]
        text = rng.choice(PLAIN_FORWARD).replace("{c}", country.name)
        text += rng.choice(("?", ""))
        text = text.lower() if i % 2 else text
        cases.append(Case("plain wording", _chat(_system(rng), text), country.forward))
    return cases


def make(seed: int, sample: int | None = None) -> list[Case]:
    """Return the cases: all of them, or about `sample` in all, spread over every category."""
    rng = random.Random(seed)
    scale = 1.0 if sample is None else min(1.0, sample / 2600)
    cases = _places(rng, round(402 * scale) if sample is None else max(20, round(402 * scale)))
    cases += _calculations(rng, max(40, round(200 * scale)))
    for maker in (_place_follow_up, _sum_follow_up, _name):
        cases += [maker(rng) for _ in range(max(40, round(150 * scale)))]
    cases += [
        Case("small talk", _chat(_system(rng), text), _TALK[key]) for text, key in heldout.TALK
    ]
    cases += _outside(rng, round(400 * scale))
    cases += _plainly_asked(rng, round(402 * scale))
    return cases
