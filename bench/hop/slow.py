"""Peers that are slow on purpose, beside streams that must not notice.

Slow readers ask for a long stream and take a byte a second of it. Slowloris connections send a
byte now and then, half of them of their headers and half of their body, and never finish.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

from bench.hop.client import request
from bench.hop.figures import QUESTION, Ask, Figures
from bench.hop.servers import Target
from bench.hop.stub import MODEL
from bench.metrics import percentile

READERS, SLOWLORIS = 256, 200
STREAMS, EVENTS, STEP_MS = 16, 50, 20
LONG = 20_000
"""Events of a slow reader's stream, some megabytes."""
BYTE_EVERY_S = 5.0
PATIENCE_S = 40.0
"""Far beyond the bar, since a peer that the server never closed counts as closed after it."""
_GONE = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT: the other side has ended it."""


async def slow_peers(target: Target, seconds: float) -> Figures:
    ask = Ask(target)
    make = ask.completion(events=EVENTS, step_ms=STEP_MS)

    async def gaps_ms() -> tuple[list[float], int]:
        tally = await ask.load().closed(make, STREAMS, seconds, note_gaps=True)
        gaps = [1000 * gap for answer in tally.good for gap in answer.gaps]
        return gaps, sum(tally.failures().values())

    alone, _ = await gaps_ms()
    async with _peers(target) as peers:
        beside, failed = await gaps_ms()
        readers, loris = await peers
    return {
        **gap_figures(alone, beside, seconds),
        "failed": float(failed),
        "slowloris_closed": float(sum(one is not None for one in loris)),
        "slowloris_closed_s": last_closed_s(loris),
        "readers_closed": float(sum(one is not None for one in readers)),
        "readers_closed_s": last_closed_s(readers),
    }


Closed = list[float | None]


def last_closed_s(peers: Closed) -> float:
    return max(PATIENCE_S if one is None else one for one in peers)


def gap_figures(alone: Sequence[float], beside: Sequence[float], seconds: float) -> Figures:
    """Nothing to compare with is no figure; streams that brought nothing beside the slow peers
    stood still all the time.
    """
    if not alone:
        return {}
    before = percentile(alone, 99)
    after = percentile(beside, 99) if beside else 1000 * seconds
    return {
        "gap_p99_ms": before,
        "gap_p99_beside_ms": after,
        "gap_ratio": after / max(before, 0.001),
    }


@contextlib.asynccontextmanager
async def _peers(target: Target) -> AsyncIterator["asyncio.Task[tuple[Closed, Closed]]"]:
    async def all_of_them() -> tuple[Closed, Closed]:
        readers = [_read_slowly(target) for _ in range(READERS)]
        loris = [_send_slowly(target, in_body=bool(index % 2)) for index in range(SLOWLORIS)]
        done = await asyncio.gather(*readers, *loris)
        return done[:READERS], done[READERS:]

    task = asyncio.create_task(all_of_them())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _connected(target: Target) -> socket.socket:
    parts = urlsplit(target.urls[0])
    made = socket.socket()
    # As little as the kernel allows, so that what is not read stays with the server.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(0)
    await asyncio.get_running_loop().sock_connect(made, (parts.hostname, parts.port))
    return made


async def _read_slowly(target: Target) -> float | None:
    """When the server gave up on it, in seconds since it asked; None when it did not."""
    loop = asyncio.get_running_loop()
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": LONG,
        "stream": True,
    }
    with await _connected(target) as peer:
        asked = request(target.path, json.dumps(body).encode(), target.key)
        await loop.sock_sendall(peer, asked)
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < PATIENCE_S:
            if _state(peer) in _GONE:
                return passed
            with contextlib.suppress(BlockingIOError):
                peer.recv(1)
            await asyncio.sleep(1.0)
    return None


async def _send_slowly(target: Target, *, in_body: bool) -> float | None:
    whole = request(target.path, b"{" + b" " * 500, target.key)
    ready = whole.index(b"\r\n\r\n") + 5 if in_body else whole.index(b"\r\n") + 2
    loop = asyncio.get_running_loop()
    with await _connected(target) as peer:
        begun = time.monotonic()
        await loop.sock_sendall(peer, whole[:ready])
        rest = iter(whole[ready:])
        sent = begun
        while (passed := time.monotonic() - begun) < PATIENCE_S:
            if _state(peer) in _GONE:
                return passed
            if time.monotonic() - sent >= BYTE_EVERY_S:
                sent = time.monotonic()
                with contextlib.suppress(OSError):
                    peer.send(bytes([next(rest)]))
            await asyncio.sleep(0.5)
    return None


def _state(peer: socket.socket) -> int:
    """Asked of the kernel: what lies unread hides the end from a reader."""
    return int(struct.unpack_from("B", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8))[0])
