"""Countries, their capitals, and the names that people use for both."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from model.demo.data import noise


@dataclass(frozen=True)
class Country:
    """One country as the model speaks of it, with every name it is asked by."""

    name: str
    capital: str
    names: tuple[str, ...]
    capital_names: tuple[str, ...]

    @property
    def forward(self) -> str:
        """The answer to a question for the capital."""
        return f"The capital of {self.name} is {self.capital.removesuffix('.')}."

    @property
    def backward(self) -> str:
        """The answer to a question for the country."""
        return f"{self.capital} is the capital of {self.name}."


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(";") if part.strip())


@cache
def countries() -> tuple[Country, ...]:
    """Return every country of `countries.txt`."""
    found = []
    lines = (Path(__file__).parent / "countries.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if not line or line.startswith("#"):
            continue
        name, capital, others, capital_others = (cell.strip() for cell in line.split("|"))
        names = (name, name.removeprefix("the ")) if name.startswith("the ") else (name,)
        found.append(
            Country(
                name,
                capital,
                tuple(dict.fromkeys(names + _parts(others))),
                tuple(dict.fromkeys((capital, *_parts(capital_others)))),
            )
        )
    return tuple(found)


@cache
def many_named() -> tuple[Country, ...]:
    """Return the countries that go by so many names that each needs more practice."""
    return tuple(country for country in countries() if len(country.names) >= 5)


def draw(rng: random.Random) -> Country:
    """Return a country, a little more often one with many names."""
    return rng.choice(many_named() if rng.random() < 0.12 else countries())


@cache
def by_capital() -> dict[str, Country]:
    """Return the country that each capital's name stands for (London: the United Kingdom)."""
    table: dict[str, Country] = {}
    for country in countries():
        for name in country.capital_names:
            table.setdefault(name, country)
    return table


@cache
def _names_by_length() -> tuple[dict[str, str], ...]:
    places = {n.lower(): c.name for c in countries() for n in c.names}
    capitals = {n.lower(): c.name for n, c in by_capital().items()}
    return places, capitals


@cache
def _rivals(name: str, capitals: bool) -> tuple[str, ...]:
    table = _names_by_length()[capitals]
    lower = name.lower()
    own = table.get(lower)
    return tuple(n for n, c in table.items() if c != own and noise.distance(n, lower) <= 3)


def misspell(name: str, rng: random.Random, *, capital: bool = False) -> str:
    """Return a slip of `name` that still reads as that place and no other."""
    for _ in range(4):
        slip = noise.mistype(name, rng)
        low = slip.lower()
        if all(noise.distance(low, rival) > 1 for rival in _rivals(name, capital)):
            return slip
    return name


def crossed(rng: random.Random) -> str:
    """Return the head of one country's name with the tail of another's: no country at all."""
    head, tail = (country.name.removeprefix("the ") for country in rng.sample(countries(), 2))
    return head[: rng.randint(2, max(2, len(head) - 2))] + tail[rng.randint(1, len(tail) - 2) :]


@cache
def looks_like_a_place(text: str) -> bool:
    """Tell whether `text` is a known name, or near enough to be read as one."""
    low = text.lower()
    return any(
        noise.distance(low, name) <= (1 if len(name) < 6 else 2)
        for table in _names_by_length()
        for name in table
    )
