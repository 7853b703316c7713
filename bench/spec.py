"""An engine as a user writes it, `name` or `name:option=value,…`, and why it may be none.

Imports nothing heavy, so that whoever only reads or refuses such a word does not wait for torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class NotForThis(Exception):
    """The engine cannot run this workload, or is not installed: one line that says why."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a user wrote."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Spec":
        name, _, rest = text.partition(":")
        options = dict(parse_option(part) for part in rest.split(",") if part)
        return cls(name, options)

    def __str__(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name}:{options}" if options else self.name


def parse_option(text: str) -> tuple[str, Any]:
    """`name=value`; numbers, true, false and null are what they are in JSON."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError(f"{text!r} is not of the form name=value")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
