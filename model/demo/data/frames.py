"""Sentences that people put before or after what they really ask."""

from __future__ import annotations

import random

from model.demo.data.lexicon import ADJECTIVES, NOUNS, PEOPLE, THINGS, VERBS

_BEFORE: tuple[str, ...] = (
    "I am planning a {noun}.", "My {noun} wants to know:", "My {noun} asks:", "For my {noun}:",
    "In a {adj} quiz they asked this:", "We had a bet.", "I have a {adj} test tomorrow.",
    "This is for a {noun} game.", "I'm writing about {thing}.", "My friend and I disagree.",
    "Sorry for the {adj} question.", "It is for school.", "I can never remember this.",
    "Here is an easy one.", "A {adj} one now:", "Let's try something else.", "Back to work.",
    "I was talking to my {noun}.", "You seem {adj}.", "I am a bit {adj} today.", "First question.",
    "My teacher wants this:", "I read about {thing} and wonder:", "Hello, one thing:",
    "As a {noun} I should know:", "We play a {noun} game:", "Be {adj} and tell me:", "Quick:",
    "My {adj} {noun} needs this:", "I'm stuck.", "Settle an argument:", "Let me think.",
    "I {verb} a lot but forget this:", "Listen, I need this {adj}:", "Between you and me,",
    "While I {verb},", "Since you are {adj},", "Just to be sure,", "For {thing},",
    "{person} once asked me:", "If I may ask,", "Without looking it up,", "In your view,",
)  # fmt: skip
_AFTER: tuple[str, ...] = (
    "It is for my {noun}.", "I need it for a {noun}.", "My {noun} wants to know.", "Be {adj}.",
    "I'm in a hurry.", "That's all I need.", "I keep mixing that up.", "No {noun}s please.",
    "Only the answer.", "I have to {verb} soon.", "Don't {verb}.", "It's for {thing}.",
    "My {noun} says it is {adj}.", "I can't recall.", "A short answer will do.", "Go.",
    "I'm so {adj}.", "You must know this.", "Tell my {noun}.", "I asked {person} too.",
)  # fmt: skip
_FIELDS = {"noun": NOUNS, "adj": ADJECTIVES, "verb": VERBS, "thing": THINGS, "person": PEOPLE}


def _fill(template: str, rng: random.Random) -> str:
    for field, words in _FIELDS.items():
        while "{" + field + "}" in template:
            template = template.replace("{" + field + "}", rng.choice(words), 1)
    return template


def put_around(text: str, rng: random.Random) -> str:
    """Return `text` with a sentence before or after it, which changes nothing in the answer."""
    if rng.random() < 0.7:
        return f"{_fill(rng.choice(_BEFORE), rng)} {text}"
    mark = rng.choice((".", "?", "?", "!", "")) if text[-1:].isalnum() else ""
    return f"{text}{mark} {_fill(rng.choice(_AFTER), rng)}"
