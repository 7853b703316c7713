# ruff: noqa: RUF001 (quotation marks as people type them)
"""Puts turns together into chats, and remembers what each follow-up refers to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from model.demo.data import (
    arithmetic,
    frames,
    geography,
    names,
    noise,
    outofscope,
    phrases,
    reserved,
    smalltalk,
    systemprompts,
)
from model.demo.data import wordings as w
from model.demo.data.outofscope_wordings import OTHER_CITIES

PLAIN_SHARE = 0.45
"""The share of questions for a capital that are asked in the plainest words."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer; `exact` questions carry a name to be copied letter by letter."""

    user: str
    assistant: str
    kind: str
    exact: bool = False


@dataclass
class Chat:
    """A chat so far, with what later turns may refer to."""

    system: str | None
    turns: list[Turn] = field(default_factory=list)
    result: int | None = None
    name: str | None = None
    asked_place: bool = False
    refused: bool = False


def _dress(text: str, rng: random.Random) -> str:
    """Return `text` with an opening, a closing, a mark or none of them."""
    if rng.random() < 0.09:
        text = frames.put_around(text, rng)
    if rng.random() < 0.13:
        text = f"{rng.choice(w.OPENINGS)} {text}"
    closing = rng.random() < 0.09
    if closing:
        text = f"{text}{rng.choice((' ', ' ', ', '))}{rng.choice(w.CLOSINGS)}"
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if text[-1:] not in "?!.":
        mark = rng.random()
        text += "?" if mark < 0.5 else "." if mark < 0.56 else "!" if mark < 0.59 else ""
    return text


def _roughen(text: str, rng: random.Random, *, keep: bool = False) -> str:
    """Return `text` as a hurried person types it; `keep` leaves every letter as it is."""
    if not keep and rng.random() < 0.22:
        text = noise.recase(text, rng)
    if not keep and rng.random() < 0.12:
        text = noise.mistype(text, rng, slips=rng.choice((1, 1, 2)))
    if rng.random() < 0.06:
        text = noise.respace(text, rng)
    if rng.random() < 0.04:
        text = text.replace("'", "’") if rng.random() < 0.5 else text.replace("'", "")
    return text


def _with_place(templates: tuple[str, ...], place: str, mark: str, rng: random.Random) -> str:
    """Fill a place into a template; slips of the finger elsewhere must not touch the place."""
    template = rng.choice(templates)
    if rng.random() < 0.25:
        template = noise.reword(template, rng)
    if rng.random() < 0.1:
        template = noise.mistype(template, rng) if "{" not in template.split(" ")[0] else template
    return template.replace(mark, place)


def _place_name(given: tuple[str, ...], rng: random.Random, *, capital: bool) -> str:
    name = given[0] if rng.random() < 0.35 else rng.choice(given)
    if rng.random() < 0.34:
        name = geography.misspell(name, rng, capital=capital)
    return name


def _finish(text: str, rng: random.Random) -> str:
    """Dress a place question and vary its casing, but leave its spelling alone."""
    text = _dress(text, rng)
    if rng.random() < 0.4:
        text = noise.recase(text, rng)
    if rng.random() < 0.05:
        text = noise.respace(text, rng)
    if rng.random() < 0.05:
        text = text.replace("'", "’") if rng.random() < 0.4 else text.replace("'", "")
    return text


def _either(own: tuple[str, ...], heading: str, rng: random.Random) -> tuple[str, ...]:
    return phrases.section(heading) if rng.random() < phrases.SHARE else own


def _plainly(place: str, rng: random.Random) -> str:
    """Ask as most people do, often all in lower case: here look-alikes are refused most, too."""
    text = rng.choice(w.PLAIN_FORWARD).replace("{c}", place) + rng.choice(("?", "?", "", "", "."))
    kind = rng.random()
    if kind < 0.45:
        return text.lower()
    return text[:1].upper() + text[1:] if kind < 0.8 else text


def forward(chat: Chat, rng: random.Random) -> Turn:
    """Ask for a country's capital."""
    country = geography.draw(rng)
    place = _place_name(country.names, rng, capital=False)
    kind = rng.random()
    if rng.random() < PLAIN_SHARE:
        chat.asked_place = True
        return Turn(_plainly(rng.choice(country.names), rng), country.forward, "forward")
    if rng.random() < phrases.SHARE:
        text = _with_place(phrases.section("forward"), place, "{c}", rng)
    elif kind < 0.05:
        wrong = rng.choice(geography.countries()).capital if rng.random() < 0.5 else country.capital
        wrong = rng.choice(OTHER_CITIES) if rng.random() < 0.2 else wrong
        text = rng.choice(w.YES_NO).replace("{k}", wrong).replace("{c}", place)
    elif kind < 0.5:
        text = _with_place(w.FORWARD_NOUNS, place, "{c}", rng)
        lead = rng.random()
        if lead < 0.3:
            text = rng.choice(("what is ", "what's ", "whats ", "what was ", "what s ")) + text
        elif lead < 0.6:
            text = f"{rng.choice(w.ASKINGS)} {rng.choice(('', 'what is ', 'what '))}{text}"
    elif kind < 0.8:
        text = _with_place(w.FORWARD_QUESTIONS, place, "{c}", rng)
    elif kind < 0.92:
        text = _with_place(w.FORWARD_ORDERS, place, "{c}", rng)
    else:
        noun = _with_place(w.FORWARD_NOUNS, place, "{c}", rng)
        text = rng.choice(w.FORWARD_FRAMES).replace("{np}", noun)
    chat.asked_place = True
    return Turn(_finish(text, rng), country.forward, "forward")


def backward(chat: Chat, rng: random.Random) -> Turn:
    """Ask for a capital's country."""
    name, country = _any_capital(rng)
    if rng.random() < phrases.SHARE:
        text = _with_place(phrases.section("backward"), name, "{k}", rng)
    elif rng.random() < 0.25:
        text = f"{rng.choice(w.COUNTRY_ASKED)} {rng.choice(w.HAS_CAPITAL).replace('{k}', name)}"
    else:
        text = _with_place(w.BACKWARD_QUESTIONS, name, "{k}", rng)
    if rng.random() < 0.15:
        text = f"{rng.choice(w.ASKINGS)} {text}"
    chat.asked_place = True
    return Turn(_finish(text, rng), country.backward, "backward")


def _any_capital(rng: random.Random) -> tuple[str, geography.Country]:
    while True:
        country = rng.choice(geography.countries())
        name = country.capital if rng.random() < 0.7 else rng.choice(country.capital_names)
        owner = geography.by_capital()[name]
        if owner is country or rng.random() < 0.3:
            slip = geography.misspell(name, rng, capital=True) if rng.random() < 0.2 else name
            return slip, owner


def place_follow_up(chat: Chat, rng: random.Random) -> Turn:
    """Name a further country or capital, nothing more."""
    if chat.asked_place and rng.random() < 0.22:
        name, country = _any_capital(rng)
        ambiguous = any(name in other.names for other in geography.countries())
        templates = _either(w.BACKWARD_FOLLOW_UPS, "capital_follow_up", rng)
        text = _with_place(templates, name, "{k}", rng)
        answer = country.forward if ambiguous else country.backward
    else:
        country = geography.draw(rng)
        place = _place_name(country.names, rng, capital=False)
        templates = _either(w.FORWARD_FOLLOW_UPS, "place_follow_up", rng)
        text = _with_place(templates, place, "{c}", rng)
        if rng.random() < 0.15:
            short = rng.choice(w.SHORT_FOLLOW_UPS).replace("{c}", place)
            text = f"{rng.choice(w.PRAISE)}{rng.choice((', ', ' ', '. ', '! '))}{short}"
        answer = country.forward
    if chat.refused and "capital" not in text and "capital" not in chat.turns[-1].user.lower():
        return Turn(_finish(text, rng), outofscope.REFUSAL, "outside")
    return Turn(_finish(text, rng), answer, "place_follow_up")


def calculation(chat: Chat, rng: random.Random) -> Turn:
    """Ask for a sum, a difference or a product."""
    op = rng.choices(("add", "sub", "mul"), (32, 32, 36))[0]
    a, b = arithmetic.draw_pair(op, rng)
    kind = rng.random()
    lead, tail = "", ""
    plain, orders = {
        "add": (arithmetic.ADD, arithmetic.ADD_ORDERS),
        "sub": (arithmetic.SUB, arithmetic.SUB_ORDERS),
        "mul": (arithmetic.MUL, arithmetic.MUL_ORDERS),
    }[op]
    if a < 0:
        text = rng.choice(arithmetic.SIGNED[op])
        lead = rng.choice(arithmetic.LEADS[:12])
    elif rng.random() < phrases.SHARE:
        text = rng.choice(phrases.section(op))
    elif op == "mul" and kind < 0.06:
        text, b = rng.choice(arithmetic.DOUBLES)
        a = rng.randint(0, arithmetic.LARGEST)
    elif op == "sub" and kind < 0.08 and a >= b:
        text = rng.choice(arithmetic.GAP)
        if rng.random() < 0.25:
            text = text.replace("{a}", "{x}").replace("{b}", "{a}").replace("{x}", "{b}")
        lead = rng.choice(arithmetic.LEADS[:12])
    elif kind < 0.28:
        text = rng.choice(orders)
    else:
        text = rng.choice(plain[:4]) if rng.random() < 0.3 else rng.choice(plain)
        lead = rng.choice(arithmetic.LEADS) if rng.random() < 0.7 else ""
        tail = rng.choice(arithmetic.TAILS.get(lead, ("",)))
    text = (lead + text + tail).replace("what does the ", "what is the ")
    sentence, chat.result = arithmetic.answer(op, a, b)
    return Turn(_calculation_text(text, a, b, rng), sentence, op)


def _calculation_text(text: str, a: int, b: int, rng: random.Random) -> str:
    if rng.random() < 0.1:
        text = noise.mistype(text, rng)
    spelled = rng.random()
    written = [str(a), str(b)]
    if spelled < 0.25:
        written = [arithmetic.spell(a, rng), arithmetic.spell(b, rng)]
    elif spelled < 0.28:
        written = [arithmetic.spell(a, rng), str(b)]
    text = text.replace("{a}", written[0]).replace("{b}", written[1])
    text = _dress(text, rng)
    if rng.random() < 0.2:
        text = noise.recase(text, rng)
    return noise.respace(text, rng) if rng.random() < 0.05 else text


def calculation_follow_up(chat: Chat, rng: random.Random) -> Turn:
    """Go on from the last result: "double that", "plus 5"."""
    last = chat.result
    op = rng.choices(("add", "sub", "mul"), (40, 35, 25))[0]
    b = rng.randint(0, 20) if rng.random() < 0.7 else rng.randint(0, arithmetic.LARGEST)
    if op == "mul":
        if rng.random() < phrases.SHARE:
            text, b = rng.choice(phrases.factors())
        elif rng.random() < 0.7:
            text, b = rng.choice(arithmetic.DOUBLE_MORE)
        else:
            text, b = rng.choice(arithmetic.MUL_MORE), rng.randint(2, 12)
    else:
        own = arithmetic.ADD_MORE if op == "add" else arithmetic.SUB_MORE
        text = rng.choice(_either(own, f"{op}_more", rng))
    asked = last if last is not None else 0
    if last is not None and arithmetic.is_held_out(op, asked, b):
        return calculation(chat, rng)
    if op == "mul":
        fits = arithmetic.in_product_range(asked, b) or (b == 2 and abs(asked) <= 200)
    else:
        fits = -100 <= asked <= 200
    if not fits and rng.random() < 0.6:
        return calculation(chat, rng)
    if not fits:
        last = None
    text = _calculation_text(text, asked, b, rng)
    if last is None:
        return Turn(text, outofscope.REFUSAL, "outside")
    sentence, chat.result = arithmetic.answer(op, asked, b)
    return Turn(text, sentence, "calculation_follow_up")


def name_given(chat: Chat, rng: random.Random) -> Turn:
    """Tell the model the user's name."""
    chat.name = names.draw(rng)
    template = rng.choice(_either(smalltalk.NAME_GIVEN, "name_given", rng))
    if rng.random() < 0.3:
        template = noise.recase(template, rng)
        template = template.replace("{N}", "{n}")
    text = _dress(template, rng) if rng.random() < 0.3 else template
    if text.endswith("{n}?"):
        text = text[:-1]
    if "rome" not in text.lower() and rng.random() < 0.2:
        text += rng.choice((".", "!", ""))
    answer = smalltalk.NAME_GIVEN_ANSWER.replace("{n}", chat.name)
    return Turn(text.replace("{n}", chat.name), answer, "name", exact=True)


def name_asked(chat: Chat, rng: random.Random) -> Turn:
    """Ask the model for the user's name."""
    text = rng.choice(_either(smalltalk.NAME_ASKED, "name_asked", rng))
    if rng.random() < 0.2:
        text = f"{rng.choice(smalltalk.NAME_LEADS)} {rng.choice(smalltalk.NAME_CORES)}"
    text = _roughen(_dress(text, rng), rng)
    if chat.name is None:
        return Turn(text, smalltalk.NAME_UNKNOWN_ANSWER, "name_unknown")
    answer = smalltalk.NAME_KNOWN_ANSWER.replace("{n}", chat.name)
    return Turn(text, answer, "name_asked", exact=True)


def talk(chat: Chat, rng: random.Random) -> Turn:
    """Greet, thank, part, or ask the model about itself."""
    heading = rng.choice(tuple(smalltalk.TALK))
    texts, sentence = smalltalk.TALK[heading]
    text = rng.choice(_either(texts, heading, rng))
    if rng.random() < 0.12:
        text = f"{text}{rng.choice((', ', ' '))}{rng.choice(smalltalk.VOCATIVES)}"
    elif sentence == smalltalk.GOODBYE_ANSWER and rng.random() < 0.25:
        text = f"{rng.choice(smalltalk.PARTING)} {rng.choice(smalltalk.PARTING_TAILS)}"
    elif sentence == smalltalk.HOW_ARE_YOU_ANSWER and rng.random() < 0.25:
        text = f"{rng.choice(smalltalk.STATE)} {rng.choice(smalltalk.STATE_TAILS)}"
    elif sentence == smalltalk.THANKS_ANSWER and rng.random() < 0.15:
        text = f"{rng.choice(smalltalk.THANK)} {rng.choice(smalltalk.THANKED_FOR)}"
    text = _dress(text, rng) if rng.random() < 0.35 else text
    if rng.random() < 0.3:
        text = text[:1].upper() + text[1:] + rng.choice(("", "", "!", "."))
    return Turn(_roughen(text, rng), sentence, "talk")


def outside(chat: Chat, rng: random.Random) -> Turn:
    """Ask for something that the model does not know."""
    text = outofscope.draw(rng)
    if rng.random() < 0.75:
        text = _dress(text, rng) if text.strip() else text
    return Turn(_roughen(text, rng), outofscope.REFUSAL, "outside")


Maker = Callable[[Chat, random.Random], Turn]
_MAKERS: tuple[tuple[Maker, float], ...] = (
    (forward, 0.18), (backward, 0.12), (place_follow_up, 0.07), (calculation, 0.19),
    (calculation_follow_up, 0.10), (name_given, 0.03), (name_asked, 0.03), (talk, 0.08),
    (outside, 0.27),
)  # fmt: skip


def _make(maker: Maker, chat: Chat, rng: random.Random) -> Turn:
    """Return a turn that the evaluation does not keep for itself."""
    before = chat.result, chat.name, chat.asked_place
    while True:
        turn = maker(chat, rng)
        name = chat.name if turn.kind == "name" else None
        if not reserved.is_reserved(turn.user, turn.assistant, name):
            return turn
        chat.result, chat.name, chat.asked_place = before


def drill(rng: random.Random, turns: int) -> Chat:
    """Return a chat of `turns` calculations, for numbers need more practice than anything else."""
    chat = Chat(None)
    for _ in range(turns):
        further = chat.result is not None and rng.random() < 0.4
        maker = calculation_follow_up if further else calculation
        chat.turns.append(_make(maker, chat, rng))
    return chat


def introduction(rng: random.Random) -> Chat:
    """Return a short chat in which a name is mostly given, then asked for: practice in copying."""
    chat = Chat(systemprompts.draw(rng) if rng.random() < 0.3 else None)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3))):
        chat.turns.append(_make(name_given, chat, rng))
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        maker: Maker = rng.choice((forward, calculation, talk))
        chat.turns.append(_make(maker, chat, rng))
    chat.turns.append(_make(name_asked, chat, rng))
    return chat


def draw(rng: random.Random, turns: int) -> Chat:
    """Return a chat of `turns` turns."""
    chat = Chat(systemprompts.draw(rng))
    makers, weights = zip(*_MAKERS, strict=True)
    for i in range(turns):
        maker: Maker = rng.choices(makers, weights)[0]
        if maker is name_asked and chat.name is None and turns > 1 and rng.random() < 0.7:
            maker = name_given
        if chat.name is not None and rng.random() < 0.14:
            maker = name_asked
        if i == 0 and maker is calculation_follow_up and rng.random() < 0.85:
            maker = calculation
        if maker is calculation_follow_up and chat.result is None and rng.random() < 0.7:
            maker = calculation
        if i and rng.random() < 0.02:
            chat.turns.append(rng.choice(chat.turns))
            if chat.turns[-1].kind not in ("forward", "backward", "add", "sub", "mul", "talk"):
                chat.turns.pop()
        turn = _make(maker, chat, rng)
        chat.refused = turn.kind == "outside"
        chat.turns.append(turn)
    return chat
