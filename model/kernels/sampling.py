"""Picks tokens on a CPU without sorting the vocabulary: compiled by Numba for the CPU at hand.

What `draw` draws is what `sampler.draw_sorted` draws: a row's tokens from the likeliest on, cut by
top-k, top-p and min-p, and among them the one at which the sum of probabilities passes the row's
point. Tokens are counted into bins by how far they are below the likeliest, so only the bins in
which a cut or the point falls are put in order.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from model.kernels.elementwise import Ints
from model.kernels.vectors import OPTIONS, Floats, exp, largest

Doubles = NDArray[np.float64]
Bins = NDArray[np.int16]
_BINS = 2048
_REACH = np.float32(32.0)
"""What is less likely by more than e**32 is in the last bin."""
_LAST = np.float32(_BINS - 1)
_TILE = 512
_U = np.uint64


@njit(parallel=True, **OPTIONS)
def likeliest(logits: Floats, tokens: Ints, tops: Floats) -> None:
    """logits (R, vocabulary) → of each row its likeliest token, the first of equal ones, and that
    one's number, which is NaN if there is one in the row. Both (R,)."""
    for row in prange(logits.shape[0]):
        numbers = logits[row]
        top, place, size = np.float32(-np.inf), 0, numbers.shape[0]
        for begin in range(0, size, _TILE):
            higher = largest(numbers, begin, min(_TILE, size - begin), top)
            if not higher <= top:
                top, place = higher, begin
        tokens[row], tops[row] = place, top
        for token in range(place, min(place + _TILE, size)):
            if numbers[token] == top:
                tokens[row] = token
                break


@njit(**OPTIONS)
def penalise(
    logits: Floats, rows: Ints, tokens: Ints, begins: Ints, answers: Ints, repetitions: Floats,
    presences: Floats, frequencies: Floats, times: Ints,
) -> None:  # fmt: skip
    """Changes the rows (n,) of logits (R, vocabulary) in place. Of each row its prompt's and then
    its answer's tokens are tokens[begins[n] : begins[n + 1]], the answer's from answers[n] on, and
    its penalties. `times` (vocabulary,) is scratch that holds zeros, before and after."""
    for n in range(rows.shape[0]):
        numbers = logits[rows[n]]
        for i in range(begins[n], begins[n + 1]):
            token = tokens[i]
            if times[token] == 0:
                times[token] = 1
                factor = repetitions[n]
                if numbers[token] > 0:
                    numbers[token] /= factor
                else:
                    numbers[token] *= factor
        for i in range(answers[n], begins[n + 1]):
            times[tokens[i]] += 1
        for i in range(answers[n], begins[n + 1]):
            token = tokens[i]
            if times[token] > 1:
                often = np.float32(times[token] - 1)
                numbers[token] -= presences[n] + frequencies[n] * often
                times[token] = 1
        for i in range(begins[n], begins[n + 1]):
            times[tokens[i]] = 0


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
    logits: Floats, bins: Bins, top: np.float32, temperature: float, top_k: int, top_p: float,
    min_p: float, point: float,
) -> int:  # fmt: skip
    scale = np.float32(1 / temperature)
    counts = np.zeros(_BINS, np.int64)
    in_bin = np.zeros(_BINS, np.float64)
    shares = np.empty(_TILE, np.float32)
    least = np.float32(min_p)
    likely = 0.0
    width = np.float32(_BINS) / _REACH
    for begin in range(0, logits.shape[0], _TILE):
        size = min(_TILE, logits.shape[0] - begin)
        # Indices without a sign: only of such does LLVM make vector code here.
        for t in range(size):
            at = _U(begin) + _U(t)
            below = (top - logits[at]) * scale
            shares[_U(t)] = exp(-below)
            bins[at] = np.int16(np.int32(min(below * width, _LAST)))
        for t in range(size):
            own = _U(bins[_U(begin) + _U(t)])
            counts[own] += 1
            in_bin[own] += shares[_U(t)]
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
    logits: Floats, bins: Bins, rows: Ints, tops: Floats, temperatures: Doubles, top_ks: Ints,
    top_ps: Doubles, min_ps: Doubles, points: Doubles, drawn: Ints,
) -> None:  # fmt: skip
    """logits (R, vocabulary); of each row in `rows` (n,) its largest number, its settings, no top-k
    being 0, and its point in [0, 1); `bins` (n, vocabulary) is scratch. The tokens go to `drawn`
    (n,)."""
    for n in prange(rows.shape[0]):
        drawn[n] = _draw(
            logits[rows[n]],
            bins[n],
            tops[n],
            temperatures[n],
            top_ks[n],
            top_ps[n],
            min_ps[n],
            points[n],
        )


def compile_now() -> None:
    """Or the first request that samples would wait for it."""
    whole, number, float_ = np.zeros(1, np.int64), np.ones(1), np.ones(1, np.float32)
    logits, tokens = np.zeros((1, 2), np.float32), np.empty(1, np.int64)
    likeliest(logits, tokens, float_)
    penalise(logits, whole, whole, np.zeros(2, np.int64), whole, float_, float_, float_, whole)
    draw(
        logits, np.empty((1, 2), np.int16), whole, float_, number, whole, number, np.zeros(1),
        np.zeros(1), tokens,
    )  # fmt: skip
