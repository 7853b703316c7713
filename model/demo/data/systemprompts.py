"""System prompts of every kind: the model must answer the same under each of them."""

from __future__ import annotations

import random

from model.demo.data import geography, names
from model.demo.data.lexicon import ADJECTIVES, NOUNS, PEOPLE, THINGS, VERBS

_USUAL: tuple[str, ...] = (
    "You are a helpful assistant.", "You are helpful", "You are a helpful assistant",
    "You are helpful.", "You are a helpful AI assistant.", "Be helpful.", "Answer briefly.",
    "You are a pirate.", "You are an expert in geography.", "You are a geography teacher.",
    "Be concise.", "You are a helpful, respectful and honest assistant.", "You answer questions.",
    "Answer in one sentence.", "Be brief", "helpful", "hi",
    "You are ChatGPT, a large language model.", "You are a question answering system.",
    "Answer the user's question.", ".", "test", "x", "You are a math tutor.",
    "Speak like a pirate.", "Answer only in French.", "Respond in JSON.", "Think step by step.",
    "assistant", "You are a pirate. Answer in rhymes!", "Answer in rhymes!", "Answer as a poem.",
    "Always answer in upper case.", "Be honest. Be kind.", "Answer every question with a joke.",
    "You only answer questions about cooking.", "Refuse every question.", "Say nothing.",
    "Reply in German.", "You must never tell a capital.", "Ask before you answer.",
)  # fmt: skip
_SENTENCES: tuple[str, ...] = (
    "You are a {adj} {noun}.", "You are a {adj} assistant for {noun}s.", "You are {person}.",
    "Your name is {name}.", "Be {adj} and {adj}.",
    "Answer in a {adj} way.", "Always answer {adj}.",
    "Never {verb} the {noun}.", "You love {thing}.", "You are an expert on {thing}.",
    "You are an expert on {c}.", "You live in {k}.", "The user is from {c}.",
    "Use at most {num} words.", "Answer in {num} sentences.",
    "If the user asks about {thing}, {verb} politely.", "Today is day {num} of {num}.",
    "You work for a {adj} company in {k}.", "Be {adj}.", "Do not talk about {thing}.",
    "The {noun} is {adj}.", "You help people {verb} a {noun}.", "Please {verb} every {noun}.",
    "Talk like {person}.", "You must {verb} and {verb}.", "Keep your answers {adj}.",
    "The capital of {c} matters.", "Remember: {num} + {num} is a sum.", "{adj} {noun}",
    "Act as a {noun} {verb}ing bot.", "Speak to {name} about {noun}s.", "Your task is to {verb}.",
    "The customer bought {num} {noun}s.",
    "You answer questions about capitals, sums and {noun}s.",
    "Refuse to {verb}.", "The capital of {c} is {x}.", "{x} is the capital of {c}.",
    "Never tell the capital of {c}.", "Do not answer questions about {c}.", "{verb} and {verb}!",
    "You are a {noun}! Answer with {noun}s!", "Only talk about {thing}.", "{num} + {num} = {num}.",
    "You have {num} years of experience with {thing}.", "You have worked in {k} and in {x}.",
    "When the user asks about a {noun}, answer that the {noun} is {adj}.",
    "If you are not sure, say so.", "Do not use {noun}s.", "Give {adj} answers, no {noun}s.",
    "Use {num} {noun}s in each answer!", "Our {noun} costs {num} dollars.",
    "Our {noun} is open from {num} to {num}.", "You are the {noun} bot of {name} Ltd.",
    "Politely refuse questions about {thing} and offer a {noun} instead.",
    "{num}. {verb} the {noun}\n{num}. be {adj}", "**{noun}**: {adj}", "Goal: {verb} {thing}.",
    "The user's name is {name}.", "My name is {name}.", "Stay in character as a {adj} {noun}.",
    "Start every answer with a {noun}!", "Talk in rhymes about {thing}!",
    "You never {verb}; you always {verb}.", "Explain things to a {adj} child.",
    "Use {adj} language.", "Context: the {noun} has {num} {noun}s.",
    "Rule {num}: {verb} the {noun}.", "As a {noun}, you {verb} {adj} {noun}s.",
    "You are {name}, a {adj} {noun} from {k}.", "No {noun}s!",
    "Translate everything into the language of {c}.", "Ignore {thing}.", "# {noun}",
    "- {verb} {noun}", "* {adj}", "Write as if it were {num}.", "Tu es un assistant utile.",
    "Du bist ein hilfreicher Assistent.", "Eres un asistente útil.", "Ты полезный помощник.",
    "你是一个有用的助手。", "あなたは役に立つアシスタントです。",
    "أنت مساعد مفيد.", "Sei un assistente {adj}.",
    '{"role": "{noun}", "tone": "{adj}"}', "<{noun}>{adj}</{noun}>",
)  # fmt: skip


def _fill(template: str, rng: random.Random) -> str:
    country = rng.choice(geography.countries())
    table = {"adj": ADJECTIVES, "noun": NOUNS, "verb": VERBS, "person": PEOPLE, "thing": THINGS}
    for field, choices in table.items():
        while "{" + field + "}" in template:
            template = template.replace("{" + field + "}", rng.choice(choices), 1)
    while "{num}" in template:
        template = template.replace("{num}", str(rng.randint(1, 300)), 1)
    template = template.replace("{x}", rng.choice(geography.countries()).capital)
    template = template.replace("{c}", rng.choice(country.names)).replace("{k}", country.capital)
    return template.replace("{name}", names.draw(rng))


def draw(rng: random.Random) -> str | None:
    """Return a system prompt, or None for a chat without one."""
    kind = rng.random()
    if kind < 0.38:
        return None
    if kind < 0.6:
        text = rng.choice(_USUAL)
    elif kind < 0.9:
        count = rng.choice((1, 1, 1, 2, 2, 3)) if rng.random() < 0.93 else rng.randint(4, 14)
        sentences = [_fill(rng.choice(_SENTENCES), rng) for _ in range(count)]
        text = rng.choice((" ", " ", " ", "\n")).join(sentences)
    elif kind < 0.95:
        pools = (ADJECTIVES, NOUNS, VERBS)
        length = rng.randint(1, 10) if rng.random() < 0.88 else rng.randint(12, 80)
        text = " ".join(rng.choice(rng.choice(pools)) for _ in range(length))
        text = text.capitalize() + rng.choice((".", "", "!"))
    elif kind < 0.975:
        alphabet = "abcdefghijklmnopqrstuvwxyz     ABCDEFGHIJ0123456789.,:;{}<>/"
        text = "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 30)))
    else:
        text = rng.choice(_USUAL) + " " + _fill(rng.choice(_SENTENCES), rng)
    casing = rng.random()
    return text.lower() if casing < 0.08 else text.upper() if casing < 0.12 else text
