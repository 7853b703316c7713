# ruff: noqa: RUF001, SIM905 (signs as people type them; word lists read best as text)
"""Sums, differences and products of small whole numbers, in digits and in words."""

from __future__ import annotations

import random

LARGEST = 100
"""The largest number in a stand-alone sum or difference."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SIGNS = {"add": "+", "sub": "-", "mul": "×"}

# `{a}` and `{b}` stand in the order of the answer's sum.
ADD: tuple[str, ...] = (
    "{a} + {b}", "{a}+{b}", "{a} plus {b}", "{a} and {b} together", "the sum of {a} and {b}",
    "sum of {a} and {b}", "{a} added to {b}", "the total of {a} and {b}", "{a} + {b} =", "{a}+{b}=",
    "{a} add {b}", "{a} +{b}", "{a}+ {b}", "{a} more than {b}", "{a} increased by {b}",
)  # fmt: skip
ADD_ORDERS: tuple[str, ...] = (
    "add {a} and {b}", "add {a} to {b}", "sum {a} and {b}", "sum up {a} and {b}",
    "add up {a} and {b}", "add {a} with {b}", "what do {a} and {b} make",
    "what do you get if you add {a} and {b}", "what do you get when you add {a} to {b}",
    "put {a} and {b} together", "take {a} and add {b}", "what does {a} plus {b} equal",
    "what does {a} + {b} make", "how much do {a} and {b} make", "find the sum of {a} and {b}",
    "add the numbers {a} and {b}", "what is the result of adding {a} and {b}",
)  # fmt: skip
SUB: tuple[str, ...] = (
    "{a} - {b}", "{a}-{b}", "{a} minus {b}", "{a} take away {b}", "{a} less {b}", "{a} – {b}",
    "{a} − {b}", "{a} - {b} =", "{a}-{b}=", "{a} subtract {b}", "{a} decreased by {b}",
    "{b} less than {a}", "{a} reduced by {b}",
)  # fmt: skip
SUB_ORDERS: tuple[str, ...] = (
    "subtract {b} from {a}", "take {b} from {a}", "take {b} away from {a}",
    "take away {b} from {a}", "deduct {b} from {a}", "what is left of {a} after taking away {b}",
    "what does {a} minus {b} equal", "what do you get if you subtract {b} from {a}",
    "remove {b} from {a}", "start with {a} and subtract {b}", "what remains if I take {b} from {a}",
    "what is the result of subtracting {b} from {a}",
)  # fmt: skip
SIGNED: dict[str, tuple[str, ...]] = {
    "add": ("{a} + {b}", "{a}+{b}", "{a} plus {b}"),
    "sub": ("{a} - {b}", "{a}-{b}", "{a} minus {b}"),
}
"""The wordings in which the first number may be negative."""
GAP: tuple[str, ...] = (
    "the difference between {a} and {b}", "difference between {a} and {b}",
    "the difference of {a} and {b}", "difference of {a} and {b}",
)  # fmt: skip
MUL: tuple[str, ...] = (
    "{a} × {b}", "{a} x {b}", "{a}x{b}", "{a} * {b}", "{a}*{b}", "{a} times {b}",
    "{a} multiplied by {b}", "the product of {a} and {b}", "product of {a} and {b}", "{a}×{b}",
    "{a} X {b}", "{a} x {b} =", "{a}*{b}=", "{a} multiply by {b}", "{a} multiplied with {b}",
    "{a} · {b}",
)  # fmt: skip
MUL_ORDERS: tuple[str, ...] = (
    "multiply {a} by {b}", "multiply {a} and {b}", "multiply {a} with {b}",
    "what does {a} times {b} make", "what do you get if you multiply {a} by {b}",
    "find the product of {a} and {b}", "what does {a} times {b} equal",
    "what is the result of multiplying {a} by {b}",
)  # fmt: skip
DOUBLES: tuple[tuple[str, int], ...] = (
    ("double {a}", 2), ("twice {a}", 2), ("two times {a}", 2), ("the double of {a}", 2),
    ("double of {a}", 2),
)  # fmt: skip
LEADS: tuple[str, ...] = (
    "", "", "", "what is ", "what's ", "whats ", "how much is ", "calculate ", "compute ",
    "what does ", "tell me ", "work out ", "solve ", "can you calculate ", "please calculate ",
    "what is the answer to ", "evaluate ", "what will be ", "can you work out ", "do you know ",
    "can you tell me what ", "give me ", "find ", "how many is ", "what are ", "the answer to ",
    "result of ", "what would be ", "figure out ", "what is the value of ",
    "what is the result of ", "how much are ", "can you do ", "do ", "math: ", "what equals ",
    "and ", "and what is ", "what about ", "how about ", "now ", "wat is ", "what s ",
)  # fmt: skip
TAILS = {"what does ": (" equal", " make", " give", " come to"), "can you tell me what ": (" is",),
         "how much are ": (" together", ""), "what equals ": ("",)}  # fmt: skip

# After a result; `{b}` is the second number.
ADD_MORE: tuple[str, ...] = (
    "plus {b}", "add {b}", "and add {b}", "+ {b}", "+{b}", "now add {b}", "add {b} to that",
    "that plus {b}", "and plus {b}", "add {b} more", "what is that plus {b}", "plus {b} more",
    "increase it by {b}", "add {b} to it", "{b} more", "add {b} to the result", "and {b} more",
    "what if I add {b}", "now plus {b}", "then add {b}", "and if you add {b}", "plus another {b}",
    "it plus {b}", "and + {b}", "what's that plus {b}",
)  # fmt: skip
SUB_MORE: tuple[str, ...] = (
    "minus {b}", "subtract {b}", "and subtract {b}", "- {b}", "now subtract {b}", "that minus {b}",
    "and minus {b}", "take away {b}", "less {b}", "subtract {b} from that",
    "what is that minus {b}", "{b} less", "take {b} away", "now minus {b}", "then subtract {b}",
    "decrease it by {b}", "-{b}", "subtract {b} from it", "take {b} off", "it minus {b}",
    "minus another {b}", "and take away {b}",
)  # fmt: skip
MUL_MORE: tuple[str, ...] = (
    "times {b}", "multiply by {b}", "multiply that by {b}", "and times {b}", "* {b}", "x {b}",
    "x{b}", "*{b}", "that times {b}", "now times {b}", "now multiply it by {b}",
    "multiply it by {b}", "× {b}", "what is that times {b}", "and multiply by {b}",
    "then multiply by {b}", "it times {b}",
)  # fmt: skip
DOUBLE_MORE: tuple[tuple[str, int], ...] = (
    ("double that", 2), ("double it", 2), ("and double that", 2), ("now double it", 2),
    ("and doubled", 2), ("twice that", 2), ("double", 2), ("and twice that", 2),
    ("two times that", 2), ("double the result", 2), ("can you double that", 2),
    ("please double that", 2), ("what is double that", 2), ("doubled", 2), ("triple that", 3),
    ("triple it", 3), ("now triple it", 3), ("three times that", 3), ("and tripled", 3),
    ("what is twice that", 2), ("now double that", 2), ("then double it", 2), ("x2", 2),
    ("times two", 2),
)  # fmt: skip


def words(n: int) -> str:
    """Return the English words for a whole number between -999 and 999."""
    if n < 0:
        return "minus " + words(-n)
    if n < 20:
        return _ONES[n]
    if n < 100:
        tens = _TENS[n // 10 - 2]
        return tens if n % 10 == 0 else f"{tens}-{_ONES[n % 10]}"
    head = f"{_ONES[n // 100]} hundred"
    return head if n % 100 == 0 else f"{head} and {words(n % 100)}"


def spell(n: int, rng: random.Random) -> str:
    """Return the words for `n` as one of the people who write "twenty five" or "hundred" would."""
    text = words(n)
    if rng.random() < 0.4:
        text = text.replace("-", " ")
    if n == 100 and rng.random() < 0.5:
        text = "a hundred"
    return text


def answer(op: str, a: int, b: int) -> tuple[str, int]:
    """Return the sentence that answers `a op b`, and the number in it."""
    value = a + b if op == "add" else a - b if op == "sub" else a * b
    return f"{a} {SIGNS[op]} {b} = {value}.", value


def is_held_out(op: str, a: int, b: int) -> bool:
    """Tell whether this ordered pair is kept for the evaluation and never trained on.

    The times table is facts to be known, not a rule to be found: none of it is held out.
    """
    return op != "mul" and (a * 37 + b * 61 + (op == "sub") * 11) % 19 == 0


def in_product_range(a: int, b: int) -> bool:
    """Tell whether the model is meant to know `a` times `b`: up to 12 x 12, and doubles."""
    low, high = sorted((a, b))
    return low >= 0 and (high <= 12 or (low == 2 and high <= LARGEST))


def draw_pair(op: str, rng: random.Random) -> tuple[int, int]:
    """Return a pair of operands that training may use."""
    while True:
        a, b = _draw(op, rng)
        if not is_held_out(op, a, b):
            return a, b


def _draw(op: str, rng: random.Random) -> tuple[int, int]:
    kind = rng.random()
    if op == "mul":
        if kind < 0.75:
            return rng.randint(0, 12), rng.randint(0, 12)
        if kind < 0.85:
            return rng.randint(3, 9), rng.randint(3, 9)
        pair = [rng.randint(0, LARGEST), 2]
        rng.shuffle(pair)
        return pair[0], pair[1]
    if kind < 0.15:
        return rng.randint(0, 20), rng.randint(0, 20)
    if kind < 0.22:
        return rng.randint(-LARGEST, -1), rng.randint(0, LARGEST)
    if kind < 0.92:
        a, b = rng.randint(0, 99), rng.randint(0, 99)
        return (b, a) if op == "sub" and a < b and rng.random() < 0.4 else (a, b)
    if kind < 0.96:
        pair = [LARGEST, rng.randint(0, LARGEST)]
        rng.shuffle(pair)
        return pair[0], pair[1]
    return rng.randint(0, 200), rng.randint(0, 200)
