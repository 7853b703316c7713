# ruff: noqa: SIM905 (word lists read best as text)
"""First names: real ones from many places, and made-up ones so that the model learns to copy."""

from __future__ import annotations

import random
import zlib
from string import ascii_lowercase

REAL: tuple[str, ...] = tuple(
    """
    Aaliyah Aaron Abdul Abena Abigail Ada Adam Aditya Adriana Agnes Ahmed Aiko Aisha Akira Alan
    Alejandro Alex Alice Alicia Amara Amir Amit Amy Ana Anders Andrea Andrew Angela Anil Anita
    Anna Antonio Anya Arjun Arthur Asha Astrid Ayesha Barbara Beatriz Ben Bjorn Bob Bogdan Brian
    Bruno Camila Carl Carlos Carmen Catherine Chen Chidi Chiara Chloe Chris Claire Clara Dan
    Daniel Daria David Deepa Diana Diego Dmitri Dora Ed Eduardo Elena Elif Elizabeth Ella Emeka
    Emil Emily Emma Eric Erik Eva Fatima Felix Femi Fiona Francesca Frank Fred Freya Gabriel
    George Giulia Grace Greta Gustavo Hana Hannah Hans Harry Hassan Helen Henry Hiro Hugo Ibrahim
    Ida Igor Ines Ingrid Isabel Ivan Jack Jacob Jakub James Jamal Jane Jan Javier Jean Jelena
    Jessica Jin Joao Joe John Jose Joseph Juan Julia Jun Kai Karen Karim Kate Katya Kavita Kemal
    Kenji Kevin Khadija Kofi Kwame Lars Laura Layla Leila Leo Li Liam Lily Lin Linda Lisa Lucas
    Lucia Luis Luna Maja Malik Marco Maria Marie Mario Mark Marta Martin Mary Mateo Matt Maya Mei
    Mia Michael Miguel Mike Milan Ming Mohammed Mona Nadia Naomi Natasha Nia Nick Nicole Niko Nina
    Nkechi Noah Nora Nuno Olga Oliver Olivia Omar Oscar Owen Pablo Patricia Paul Pedro Peter Petra
    Pierre Priya Rachel Radu Rafael Rahul Raj Ravi Rebecca Rita Robert Rosa Ruth Ryan Salma Sam
    Samira Sandra Sanjay Sara Sarah Sean Sergei Sho Simon Sofia Sophie Stefan Steve Sunita Susan
    Sven Svetlana Takeshi Tariq Tatiana Thomas Tim Tom Tomas Uma Valentina Vera Victor Viktor
    Vikram Wei Wendy Will William Xin Yan Yara Yasmin Yuki Yusuf Zainab Zara Zoe Abby Bill Charlie
    Danny Edgar Gina Holly Jenny Katie Larry Maggie Nancy Olaf Penny Quentin Rosie Sally Ted
    Ursula Vince Walter Xavier Yvonne Zack Oluwaseun Thabo Nomsa Siddharth Lakshmi Hyun Minho Thuy
    """.split()
)

_STARTS = tuple(
    ("b br c ch d dr f g gr h j k kr l m n p r s sh st t th tr v w y z b d k l m n r s t").split()
)
_VOWELS = tuple("a e i o u a e i o ai ea ee ia io ou y".split())
_ENDS = tuple("n r l s k m th nd x t d na la ra ko mi n n l r".split())


def is_held_out(name: str) -> bool:
    """Tell whether `name` is kept for the evaluation and never trained on."""
    return zlib.crc32(name.lower().encode()) % 12 == 0


def made_up(rng: random.Random) -> str:
    """Return a name built from syllables."""
    word = rng.choice(("", "", "", rng.choice(_VOWELS)))
    for _ in range(rng.choice((1, 2, 2, 2, 3))):
        word += rng.choice(_STARTS) + rng.choice(_VOWELS)
    if rng.random() < 0.6:
        word += rng.choice(_ENDS)
    return word.capitalize()


def crossed(rng: random.Random) -> str:
    """Return the head of one real name with the tail of another: "Priyander", "Gabriessa"."""
    head, middle, tail = rng.sample(REAL, 3)
    name = head[: rng.randint(2, max(2, len(head) - 1))]
    if rng.random() < 0.4:
        name += middle[1 : rng.randint(2, len(middle))]
    return name + tail[rng.randint(1, len(tail) - 1) :]


def draw(rng: random.Random) -> str:
    """Return a name that training may use: real, made up, double, or with a family name."""
    while True:
        kind = rng.random()
        name = rng.choice(REAL) if kind < 0.25 else made_up(rng) if kind < 0.45 else crossed(rng)
        if kind > 0.94:
            name += ("-" if rng.random() < 0.4 else " ") + made_up(rng)
        elif kind > 0.88:
            name = "".join(rng.choice(ascii_lowercase) for _ in range(rng.randint(3, 8)))
            name = name.capitalize() if rng.random() < 0.6 else name
        casing = rng.random()
        if casing < 0.12:
            name = name.lower()
        elif casing < 0.15:
            name = name.upper()
        if not is_held_out(name):
            return name
