"""Draws tokens on a CPU without sorting the vocabulary: compiled by Numba for the CPU at hand.

What it draws is what `sampler.draw_sorted` draws: a row's tokens from the likeliest on, cut by
top-k, top-p and min-p, and among them the one at which the sum of probabilities passes the row's
point. Tokens are counted into bins by how far they are below the likeliest, so only the bins in
which a cut or the point falls are put in order.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from model.engine.kernels import Ints
from model.engine.vectors import OPTIONS, Floats, exp, largest_of

Doubles = NDArray[np.float64]
Bins = NDArray[np.int16]
_BINS = 1024
_REACH = np.float32(32.0)
"""What is less likely by more than e**32 is in the last bin."""
_TILE = 512


@njit(**OPTIONS)
def _in_order(logits: Floats, bins: Bins, number: int, count: int) -> Ints:
    """The tokens of one bin, likeliest first, the lower of two equal ones first."""
    tokens = np.empty(count, np.int64)
    scores = np.empty(count, np.float32)
    found = 0
    for token in range(bins.shape[0]):
        if bins[token] == number:
            tokens[found], scores[found] = token, -logits[token]
            found += 1
    return tokens[np.argsort(scores, kind="mergesort")]


@njit(**OPTIONS)
def _bin_of(sums: Doubles, value: float) -> int:
    """The first bin up to whose end the sum is above `value`, or the last that has any."""
    last = 0
    for number in range(_BINS):
        if sums[number + 1] > sums[number]:
            last = number
            if sums[number + 1] > value:
                break
    return last


@njit(**OPTIONS)
def _mass_of_first(
    logits: Floats, bins: Bins, top: np.float32, scale: np.float32, counts: Ints, masses: Doubles,
    k: int,
) -> float:  # fmt: skip
    """The sum of the k likeliest."""
    before = 0
    for number in range(_BINS):
        if before + counts[number] >= k:
            mass = masses[number]
            if before + counts[number] == k:
                return float(masses[number + 1])
            for token in _in_order(logits, bins, number, counts[number])[: k - before]:
                mass += exp((logits[token] - top) * scale)
            return float(mass)
        before += counts[number]
    return float(masses[_BINS])


@njit(**OPTIONS)
def _draw(
    logits: Floats, bins: Bins, temperature: float, top_k: int, top_p: float, min_p: float,
    point: float,
) -> int:  # fmt: skip
    top = largest_of(logits)
    scale = np.float32(1 / temperature)
    counts = np.zeros(_BINS, np.int64)
    in_bin = np.zeros(_BINS, np.float64)
    shares = np.empty(_TILE, np.float32)
    least = np.float32(min_p)
    likely = 0.0
    width = np.float32(_BINS) / _REACH
    for begin in range(0, logits.shape[0], _TILE):
        size = min(_TILE, logits.shape[0] - begin)
        for t in range(size):
            below = (top - logits[begin + t]) * scale
            shares[t] = exp(-below)
            bins[begin + t] = np.int16(
                min(max(below * width, np.float32(0)), np.float32(_BINS - 1))
            )
        for t in range(size):
            number = bins[begin + t]
            counts[number] += 1
            in_bin[number] += shares[t]
        if least > 0:
            for t in range(size):
                if shares[t] >= least:
                    likely += float(shares[t])
    masses = np.zeros(_BINS + 1, np.float64)
    for number in range(_BINS):
        masses[number + 1] = masses[number] + in_bin[number]
    mass = masses[_BINS]
    if top_k and top_k < logits.shape[0]:
        mass = _mass_of_first(logits, bins, top, scale, counts, masses, top_k)
    if top_p < 1:
        edge = top_p * mass
        number = _bin_of(masses, edge)
        kept = masses[number]
        for token in _in_order(logits, bins, number, counts[number]):
            if kept >= edge and kept > 0:
                break
            kept += exp((logits[token] - top) * scale)
        mass = min(kept, mass)
    if least > 0:
        mass = min(mass, likely)
    aim = point * mass
    number = _bin_of(masses, aim)
    passed, chosen = masses[number], -1
    for token in _in_order(logits, bins, number, counts[number]):
        if chosen >= 0 and passed >= mass:
            break
        chosen = token
        passed += exp((logits[token] - top) * scale)
        if passed > aim:
            break
    return chosen


@njit(parallel=True, **OPTIONS)
def draw(
    logits: Floats, bins: Bins, rows: Ints, temperatures: Doubles, top_ks: Ints, top_ps: Doubles,
    min_ps: Doubles, points: Doubles, drawn: Ints,
) -> None:  # fmt: skip
    """logits (R, vocabulary); of each row in `rows` (n,) its settings, no top-k being 0, and its
    point in [0, 1); `bins` (n, vocabulary) is scratch. The tokens go to `drawn` (n,)."""
    for n in prange(rows.shape[0]):
        drawn[n] = _draw(
            logits[rows[n]], bins[n], temperatures[n], top_ks[n], top_ps[n], min_ps[n], points[n]
        )


def compile_now() -> None:
    """Or the first request that samples would wait for it."""
    whole, number = np.zeros(1, np.int64), np.ones(1)
    draw(
        np.zeros((1, 2), np.float32), np.empty((1, 2), np.int16), whole, number, whole, number,
        np.zeros(1), np.zeros(1), np.empty(1, np.int64),
    )  # fmt: skip
