"""Turns generated chats into padded batches of token ids, in a process of its own."""

from __future__ import annotations

import multiprocessing as mp
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from model.demo import tokenizer as tok
from model.demo.data import conversations

IGNORED = -100
_DROPOUTS = (0.08, 0.15, 0.35)
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Padded token ids and the labels of the answers; `chunk` says where to go on after it."""

    ids: Ids
    labels: Ids
    chunk: int


class Encoder:
    """Encodes chats, with some questions cut into smaller pieces than usual.

    A mistyped word reaches the model in unusual pieces, so training shows it many such cuts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._plain = tokenizer
        self._loose = [Tokenizer.from_str(tokenizer.to_str()) for _ in _DROPOUTS]
        for loose, dropout in zip(self._loose, _DROPOUTS, strict=True):
            loose.model.dropout = dropout
        self._special: dict[str, int] = {
            name: tokenizer.token_to_id(name) or 0 for name in tok.SPECIAL
        }

    def encode(self, chat: conversations.Chat, rng: random.Random) -> tuple[list[int], list[int]]:
        """Return the chat's ids and labels; only answers are to be learnt."""
        special = self._special
        ids = [special[tok.BOS]]
        labels = [IGNORED]
        if chat.system is not None:
            text = self._pieces(chat.system.strip(), rng, share=0.2)
            ids += [special[tok.SYSTEM], *text, special[tok.END]]
            labels += [IGNORED] * (len(text) + 2)
        for number, turn in enumerate(chat.turns, 1):
            text = self._pieces(turn.user.strip(), rng, share=0.0 if turn.exact else 0.35)
            ids += [special[tok.USER], *text, special[tok.END], special[tok.ASSISTANT]]
            labels += [IGNORED] * (len(text) + 3)
            answer = [*self._pieces(turn.assistant, rng, share=0.0), special[tok.END]]
            if turn.kind == "outside" and number == len(chat.turns) and rng.random() < 0.8:
                # The one long sentence is learnt at once; its end would only cost time.
                answer = answer[:6]
            ids += answer
            labels += answer
        return ids, labels

    def _pieces(self, text: str, rng: random.Random, *, share: float) -> list[int]:
        encoder = rng.choice(self._loose) if rng.random() < share else self._plain
        # A text that spells a special token must not become one: cut it inside.
        parts = text.split("<|")
        ids = [i for part in parts[:1] for i in encoder.encode(part).ids]
        for part in parts[1:]:
            ids += encoder.encode("<").ids + encoder.encode("|" + part).ids
        return ids


def _turns(rng: random.Random, longest: int) -> int:
    kind = rng.random()
    if kind < 0.27:
        return 1
    if kind < 0.8:
        return rng.randint(2, 5)
    if kind < 0.98 or longest < 512:
        return rng.randint(5, 12)
    return rng.randint(12, 45)


def make_chunk(encoder: Encoder, seed: int, index: int, size: int, longest: int) -> list[Batch]:
    """Return the batches of chunk number `index`: the same ones at every call."""
    rng = random.Random(f"{seed}:{index}")
    rows: list[tuple[list[int], list[int]]] = []
    total = 0
    while total < 32 * size:
        kind = rng.random()
        if kind < 0.2:
            chat = conversations.drill(rng, rng.randint(2, 12))
        elif kind < 0.38:
            chat = conversations.introduction(rng)
        else:
            chat = conversations.draw(rng, _turns(rng, longest))
        ids, labels = encoder.encode(chat, rng)
        rows.append((ids[:longest], labels[:longest]))
        total += len(rows[-1][0])
    rows.sort(key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    for row in rows:
        if (len(groups[-1]) + 1) * len(row[0]) > size and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    rng.shuffle(groups)
    return [_pad(group, index + 1) for group in groups]


def _pad(group: list[tuple[list[int], list[int]]], chunk: int) -> Batch:
    width = max(len(ids) for ids, _ in group)
    ids = np.zeros((len(group), width), dtype=np.int64)
    labels = np.full((len(group), width), IGNORED, dtype=np.int64)
    for i, (row_ids, row_labels) in enumerate(group):
        ids[i, : len(row_ids)] = row_ids
        labels[i, : len(row_labels)] = row_labels
    return Batch(ids, labels, chunk)


def _work(
    queue: mp.Queue[list[Batch]], source: str, seed: int, first: int, size: int, longest: int
) -> None:
    encoder = Encoder(Tokenizer.from_str(source))
    index = first
    while True:
        queue.put(make_chunk(encoder, seed, index, size, longest))
        index += 1


def stream(
    tokenizer: Tokenizer, *, seed: int, first: int, size: int, longest: int
) -> Iterator[Batch]:
    """Yield batches for ever, starting with chunk `first`, made beside the training."""
    context = mp.get_context("spawn")
    queue: mp.Queue[list[Batch]] = context.Queue(maxsize=2)
    worker = context.Process(
        target=_work,
        args=(queue, tokenizer.to_str(), seed, first, size, longest),
        daemon=True,
    )
    worker.start()
    try:
        while True:
            yield from queue.get()
    finally:
        worker.terminate()
        worker.join()
