# ruff: noqa: RUF001 (texts in other scripts, and the sign of multiplication)
"""The bundled demo model: its answers, its tokenizer, and that its evaluation is honest."""

from __future__ import annotations

import ast
import random
import re
from pathlib import Path
from typing import Any

import pytest

from model.demo import DEMO_MODEL, cases
from model.demo.data import arithmetic, conversations, heldout, names
from model.demo.data.reserved import FILE, fingerprint, plain, wording
from model.demo.evaluate import FORMS, EngineResponder, Report, Responder, evaluate, show
from model.demo.reserve import fingerprints

DEMO = Path(__file__).parents[2] / "model" / "demo"


@pytest.fixture(scope="module")
def responder() -> Responder:
    return Responder(DEMO_MODEL)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(DEMO_MODEL)


@pytest.fixture(scope="module")
def report(responder: Responder) -> Report:
    return evaluate(responder.answer)


def test_every_category_reaches_its_floor(report: Report) -> None:
    assert report.passed, show(report)


@pytest.mark.parametrize("form", FORMS)
def test_the_engine_answers_alike_with_every_kind_of_numbers(
    responder: Responder, form: str
) -> None:
    """All of `make demo-eval` holds with each; here, a part of it."""
    chats = [case.messages for case in cases.make(7, 200)]
    expected = responder.answer(chats)
    got = EngineResponder(DEMO_MODEL, form).answer(chats)
    same = sum(a == b for a, b in zip(got, expected, strict=True))
    assert same >= (1.0 if form == "float32" else 0.97) * len(chats)


@pytest.mark.parametrize("system", ["You are a helpful assistant.", "You are helpful", None])
def test_the_examples_hold_word_for_word(responder: Responder, system: str | None) -> None:
    head = [{"role": "system", "content": system}] if system else []
    chats = [[*head, {"role": "user", "content": question}] for question, _ in cases.EXAMPLES]
    assert responder.answer(chats) == [answer for _, answer in cases.EXAMPLES]


@pytest.mark.parametrize("same", [True, False])
def test_the_tenth_question_of_a_chat_is_still_answered(responder: Responder, same: bool) -> None:
    other = [
        "hello", "What is 12 + 30?", "double that", "Capital of Japan?", "And of Peru?",
        "My name is Priya", "Who wrote Hamlet?", "Capital of France?", "What is my name?",
    ]  # fmt: skip
    questions = ["Capital of India?"] * 10 if same else [*other, "Capital of India?"]
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for question in questions:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": responder.answer([messages])[0]})
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    assert answers[-1] == "The capital of India is New Delhi."
    if same:
        assert set(answers) == {"The capital of India is New Delhi."}
    else:
        assert answers[1:3] == ["12 + 30 = 42.", "42 × 2 = 84."]
        assert answers[8] == "Your name is Priya."


@pytest.mark.parametrize(
    "text",
    [
        "Capital of India?",
        "  two  blanks ",
        "tabs\tand\nlines\r\n",
        "naïve façade – “quotes”",
        "Привет, мир",
        "你好，世界",
        "こんにちは",
        "مرحبا بالعالم",
        "नमस्ते",
        "👩\u200d👩\u200d👧 🏳️\u200d🌈",
        "e\u0301 combining",
        "\u202e right to left",
        "\x00\x07\x7f",
        "0123456789",
        "<|user|> <|end|>",
        "\ufeff",
        "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
        "",
    ],
)
def test_the_tokenizer_brings_every_text_back(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert not set(ids) & set(tokenizer.all_special_ids)


def test_random_characters_come_back(tokenizer: Any) -> None:
    rng = random.Random(3)
    for _ in range(200):
        points = [rng.choice([rng.randrange(32, 0xD800), rng.randrange(0xE000, 0x110000)])
                  for _ in range(rng.randint(1, 30))]  # fmt: skip
        text = "".join(map(chr, points))
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_the_chat_template_marks_every_turn(tokenizer: Any) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>"
        "<|user|>Bye<|end|><|assistant|>"
    )


def test_the_files_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in DEMO_MODEL.iterdir()}
    assert sizes["model.safetensors"] <= 12_000_000
    assert sum(sizes.values()) <= 13_000_000


def test_nothing_that_trains_imports_the_held_out_wordings() -> None:
    allowed = {"cases.py", "heldout.py", "reserve.py"}
    for path in DEMO.rglob("*.py"):
        if path.name in allowed:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                found = {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found = {alias.name for alias in node.names}
            else:
                continue
            assert not any("heldout" in name for name in found), path
            if path.name != "evaluate.py":
                assert "model.demo.cases" not in found, path


def test_the_fingerprints_of_what_the_evaluation_asks_are_current() -> None:
    assert FILE.read_text(encoding="ascii") == fingerprints(), "run python -m model.demo.reserve"


def test_training_never_draws_what_the_evaluation_asks() -> None:
    reserved = set(fingerprints().split())
    # The first three are the ordinary ones, which training has too.
    systems = {plain(text) for text in heldout.SYSTEMS[3:] if text} - {""}
    rng = random.Random(11)
    for _ in range(6000):
        chat = conversations.draw(rng, 4)
        assert plain(chat.system or "") not in systems, chat.system
        for turn in chat.turns:
            given = turn.assistant.removeprefix("Nice to meet you, ").removesuffix(".")
            name = given if turn.kind == "name" else None
            assert fingerprint(wording(turn.user, turn.assistant, name)) not in reserved, turn
            numbers = re.fullmatch(r"(-?\d+) (.) (-?\d+) = -?\d+\.", turn.assistant)
            if numbers:
                op = {sign: op for op, sign in arithmetic.SIGNS.items()}[numbers[2]]
                assert not arithmetic.is_held_out(op, int(numbers[1]), int(numbers[3])), turn
            if turn.kind == "name":
                name = turn.assistant.removeprefix("Nice to meet you, ").removesuffix(".")
                assert not names.is_held_out(name), turn
