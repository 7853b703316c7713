"""Wordings in the voices of different kinds of people, one a line of `phrases/*.txt`.

A language model wrote them, without having seen the training's own wordings or the evaluation's.
They stand under headings, which are the functions' arguments here.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

SHARE = 0.45
"""The share of questions that are asked in these wordings."""
_FOLDER = Path(__file__).with_name("phrases")


@cache
def _sections() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for path in sorted(_FOLDER.glob("*.txt")):
        heading = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("[") and line.endswith("]"):
                heading = line[1:-1]
            elif line:
                found.setdefault(heading, []).append(line)
    return {heading: tuple(lines) for heading, lines in found.items()}


def section(heading: str) -> tuple[str, ...]:
    """Return the wordings under `heading`; raise KeyError if there are none."""
    return _sections()[heading]


@cache
def factors() -> tuple[tuple[str, int], ...]:
    """Return the wordings that multiply the last result, each with its factor."""
    parts = (line.split("\t") for line in section("mul_more"))
    return tuple((text, int(factor)) for text, factor in parts)
