"""What a layer of Llama's kind computes before and after its attention, in one call each.

A step of few rows takes microseconds in each of its parts, and less than it costs Python to get
from one to the next, or two threads to meet. So each half of a layer is one compiled function, and
what a row of it passes through between two products is left to one thread as long as there are few.

Weights of a linear are what `engine/linear.py` packs: panels, begin, scales and bias, as
`products.py` takes them.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from model.kernels.elementwise import (
    Ints,
    add_norm,
    rotate_and_store,
    round_rows,
    round_to_bfloat16,
    silu_mul,
)
from model.kernels.products import BFLOAT16, FLOAT32, INT8, NUMBERS, WIDENED, product_of
from model.kernels.vectors import OPTIONS, Floats, Pages

Weights = tuple[Floats, Floats, Floats, Floats]
Half = Callable[..., Any]
ALONE = 4
"""Up to so many rows, one thread does what lies between two products."""
_of_float32, _of_widened, _of_bfloat16, _of_int8 = map(
    product_of, (FLOAT32, WIDENED, BFLOAT16, INT8)
)


@intrinsic
def _take_threads(typing: Any, threads: Any) -> Any:
    """For what follows on this thread. Numba's own function holds an address, which its cache
    cannot; the symbol is there once `pool.set_threads` has been called."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        function = cgutils.get_or_insert_function(builder.module, kind, "set_num_threads")
        builder.call(function, [builder.trunc(arguments[0], ir.IntType(32))])
        return context.get_dummy_value()

    return types.void(types.int64), code


@njit(inline="always", **OPTIONS)
def _multiply(
    kind: int,
    numbers: int,
    x: Floats,
    weights: Weights,
    levels: np.int32,
    threads: int,
    out: Floats,
) -> None:
    """x (T, inputs) → out (T, channels, and what fills the last panel). Of the branches one is left
    when this is compiled, for `kind` is a constant where it is called."""
    panels, begin, scales, bias = weights
    rows, width = x.shape[0], panels.shape[1] * numbers
    if rows <= ALONE:
        _take_threads(1)
    if kind == INT8:
        whole, row_scales = np.empty((rows, width), np.uint8), np.empty(rows, np.float32)
        round_rows(x, levels, whole, row_scales)
        _take_threads(threads)
        _of_int8(whole.view(np.float32), panels, out, begin, scales, bias, row_scales, threads)
    elif kind == BFLOAT16:
        halves = np.empty((rows, width), np.uint16)
        round_to_bfloat16(x, halves)
        _take_threads(threads)
        _of_bfloat16(halves.view(np.float32), panels, out, begin, scales, bias, bias, threads)
    else:
        if width != x.shape[1]:
            whole_words = np.zeros((rows, width), np.float32)
            for row in range(rows):  # a slice would bring texts for errors along
                for d in range(x.shape[1]):
                    whole_words[row, d] = x[row, d]
            x = whole_words
        _take_threads(threads)
        if kind == WIDENED:
            _of_widened(x, panels, out, begin, scales, bias, bias, threads)
        else:
            _of_float32(x, panels, out, begin, scales, bias, bias, threads)


@cache
def halves_of(kind: int) -> tuple[Half, Half]:
    """The two functions for linears of this kind. Their closures hold numbers alone, or Numba would
    not find them in its cache again."""
    numbers = NUMBERS[kind]

    @njit(**OPTIONS)
    def into_attention(
        stream: Floats, update: Floats, norm: Floats, qkv: Weights, query_norm: Floats,
        key_norm: Floats, eps: np.float32, levels: np.int32, heads: int, cos: Floats, sin: Floats,
        slots: Ints, keys: Pages, values: Pages, threads: int, made: Floats,
    ) -> None:  # fmt: skip
        """stream (T, hidden) += update; made = the step's queries, keys and values, rotated, of
        which the latter two are in the cache then. The arguments are those of `elementwise.py`."""
        rows = stream.shape[0]
        normed = np.empty_like(stream)
        if rows <= ALONE:
            _take_threads(1)
        add_norm(stream, update, norm, eps, normed)
        _multiply(kind, numbers, normed, qkv, levels, threads, made)
        if rows <= ALONE:
            _take_threads(1)
        rotate_and_store(made, heads, cos, sin, slots, keys, values, query_norm, key_norm, eps)
        _take_threads(threads)

    @njit(**OPTIONS)
    def out_of_attention(
        stream: Floats, attended: Floats, output: Weights, norm: Floats, gate_up: Weights,
        down: Weights, width: int, eps: np.float32, levels: np.int32, threads: int, update: Floats,
    ) -> None:  # fmt: skip
        """stream (T, hidden) += what attention has found; update = what is to be added next. Of
        both linears' outputs the rows are padded. `width` is that of the activation."""
        rows = stream.shape[0]
        _multiply(kind, numbers, attended, output, levels, threads, update)
        normed = np.empty_like(stream)
        if rows <= ALONE:
            _take_threads(1)
        add_norm(stream, update, norm, eps, normed)
        both = np.empty((rows, gate_up[1].shape[0]), np.float32)
        _multiply(kind, numbers, normed, gate_up, levels, threads, both)
        activated = np.empty((rows, width), np.float32)
        if rows <= ALONE:
            _take_threads(1)
        silu_mul(both, activated)
        _multiply(kind, numbers, activated, down, levels, threads, update)

    return into_attention, out_of_attention
