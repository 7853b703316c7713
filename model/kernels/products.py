"""Matrix products with few rows, compiled by Numba for the CPU at hand.

Weights lie as panels of as many channels as a vector register holds numbers:

    panels    (panels, depth, LANES)    words of four bytes

so that one read of them serves all rows of a strip, whose sums stay in registers. What a word holds
is the kind of a product, and all that the kinds differ in is how words are multiplied:

    FLOAT32     one number; rows are float32
    WIDENED     two bfloat16; rows are float32, and so is the arithmetic
    BFLOAT16    two bfloat16, in rows too; sums are float32
    INT8        four of eight bits, in rows without a sign; sums are whole and exact

Where the CPU has tiles, many rows of the last two kinds go through those (`tiles.py`).

A running request brings one row, and then reading the weights is all that counts: few rows go over
one panel at a time, as memory likes it, many over several, as registers like it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from model.kernels.tiles import HAS_TILES, MOST_PANELS, MOST_ROWS, SHAPES, SIDE, strip_in_tiles
from model.kernels.vectors import FEATURES, LANES, OPTIONS, Floats, VectorCode, divisor

Multiply = Callable[..., None]
FLOAT32, WIDENED, BFLOAT16, INT8 = range(4)
NUMBERS = {FLOAT32: 1, WIDENED: 2, BFLOAT16: 2, INT8: 4}
"""Weights in a word."""
MULTIPLIES_BFLOAT16 = LANES == 16 and "avx512bf16" in FEATURES
"""In one instruction, twice as many as float32."""
STRIP, COLUMNS = 8 if LANES != 8 else 4, 3
"""Rows and panels whose sums stay in registers together."""
_FEW, _FEW_IN_TILES = 4, 2
"""Up to so many rows, one panel at a time, and vectors where there are tiles."""
_BLOCK = 1536
"""Words of the depth that all strips read before the next ones: they stay in a fast cache."""
_PRODUCTS = 24
"""Products of vectors in a loop's body: enough to hide the loop, few enough to compile quickly."""
DEPTH = SIDE if HAS_TILES else 8
"""The depth is a multiple of so many words."""
_U = np.uint64
_FLOAT, _BYTE, _INT, _INDEX = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_INTS, _FLOATS = ir.VectorType(_INT, LANES), ir.VectorType(_FLOAT, LANES)
_U64 = types.uint64


class _BFloat(ir.types._BaseFloatType):  # type: ignore[misc]  # llvmlite has none of its own
    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_BFloat._create_instance()


class _Arithmetic:
    """How words of one kind are multiplied and summed."""

    def __init__(self, code: VectorCode, kind: int) -> None:
        self._code, self._builder, self._kind = code, code.builder, kind
        self.sums = _INTS if kind == INT8 else _FLOATS
        self.words_of_rows = 2 if kind == WIDENED else 1
        """Words of a row for one word of a weight."""

    def factors(self, word: Any) -> list[Any]:
        """What a vector of weights' words is multiplied by a row's words as."""
        if self._kind == WIDENED:
            return self._halves(word)
        return [word]

    def multiply(self, total: Any, number: Any, factor: Any) -> Any:
        if self._kind == INT8:
            return self._of_bytes(total, number, factor)
        if self._kind == BFLOAT16:
            return self._of_bfloats(total, number, factor)
        return self._of_floats(total, number, factor)

    def add(self, a: Any, b: Any) -> Any:
        return (self._builder.add if self._kind == INT8 else self._builder.fadd)(a, b)

    def _of_floats(self, total: Any, a: Any, b: Any) -> Any:
        a, b = (self._builder.bitcast(v, _FLOATS) for v in (a, b))
        return self._code.sum_with_product(total, a, b)

    def _halves(self, word: Any) -> list[Any]:
        """The two numbers of each word, as float32: a bfloat16 is its upper half."""
        upper = ir.Constant(_INTS, [_INT(-65536)] * LANES)
        return [self._builder.shl(word, _ints(16)), self._builder.and_(word, upper)]

    def _of_bfloats(self, total: Any, number: Any, factor: Any) -> Any:
        if MULTIPLIES_BFLOAT16:
            pairs = ir.VectorType(_BFloat(), 2 * LANES)
            a, b = (self._builder.bitcast(v, pairs) for v in (number, factor))
            return self._code.call("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, [total, a, b])
        for a, b in zip(self._halves(number), self._halves(factor), strict=True):
            total = self._of_floats(total, a, b)
        return total

    def _of_bytes(self, total: Any, number: Any, factor: Any) -> Any:
        names = _BYTE_PRODUCTS
        fours = ir.VectorType(_BYTE, 4 * LANES)
        pairs = ir.VectorType(ir.IntType(16), 2 * LANES)
        a, b = (self._builder.bitcast(v, fours) for v in (number, factor))
        if len(names) == 1:
            return self._code.call(names[0], _INTS, [total, a, b])
        if len(names) == 2:
            ones = ir.Constant(pairs, [ir.IntType(16)(1)] * (2 * LANES))
            two = self._code.call(names[0], pairs, [a, b])
            return self._builder.add(total, self._code.call(names[1], _INTS, [two, ones]))
        builder = self._builder
        for shift in (0, 8, 16, 24):
            byte = builder.and_(builder.lshr(number, _ints(shift)), _ints(255))
            signed = builder.ashr(builder.shl(factor, _ints(24 - shift)), _ints(24))
            total = builder.add(total, builder.mul(byte, signed))
        return total


def _byte_products() -> tuple[str, ...]:
    """The instruction that sums four products of bytes, or the two that do, or none."""
    if LANES == 16 and "avx512vnni" in FEATURES:
        return ("llvm.x86.avx512.vpdpbusd.512",)
    if LANES == 16 and "avx512bw" in FEATURES:
        return "llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"
    if LANES == 8 and "avxvnni" in FEATURES:
        return ("llvm.x86.avx512.vpdpbusd.256",)
    if LANES == 8:
        return "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"
    return ()


_BYTE_PRODUCTS = _byte_products()
LEVELS = 63 if len(_BYTE_PRODUCTS) == 2 else 127
"""Steps on each side of zero for a row of eight bits. The two instructions add two products in
sixteen bits in between, which 127 steps would overflow: half as many are exact there."""


def _ints(value: int) -> Any:
    return ir.Constant(_INTS, [_INT(value)] * LANES)


@intrinsic(prefer_literal=True)
def _strip(
    typing: Any, x: Any, x_at: Any, stride: Any, panels: Any, p_at: Any, step: Any, out: Any,
    o_at: Any, span: Any, begin: Any, scales: Any, bias: Any, channel: Any, row_scales: Any,
    row: Any, depth: Any, first: Any, last: Any, rows: Any, columns: Any, kind: Any,
) -> Any:  # fmt: skip
    """A strip of rows times some panels, over a part of the depth.

    x[x_at:] are `rows` rows, `stride` apart, panels[p_at:] are `columns` panels, `step` apart, and
    out[o_at:] are `rows` rows, `span` apart. Sums begin as begin[channel:] in the `first` part of
    the depth, as what is in out later; in the `last` part, sums of INT8 become numbers. Indices
    count words. The last two arguments are constants.
    """
    sizes = columns, kind
    columns, kind = (n.literal_value for n in sizes)
    fewest = 1 if columns == 1 else min(_FEW, STRIP // 2)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c = VectorCode(context, builder, LANES)
        x, panels, out, begin, scales, bias, row_scales = (
            c.data(signature.args[i], arguments[i]) for i in (0, 3, 6, 9, 10, 11, 13)
        )
        x_at, stride, p_at, step, o_at, span, channel, row, depth, first, last, rows = (
            arguments[i] for i in (1, 2, 4, 5, 7, 8, 12, 14, 15, 16, 17, 18)
        )
        math = _Arithmetic(c, kind)

        def strip(count: int) -> None:
            # A sum has to wait for the one before it: several at a time hide that.
            unroll = divisor(DEPTH, _PRODUCTS // (count * columns))
            rounds = min(unroll, max(1, 8 // (count * columns)))
            starts = [builder.add(x_at, builder.mul(_INDEX(j), stride)) for j in range(count)]
            begins = [builder.add(p_at, builder.mul(_INDEX(n), step)) for n in range(columns)]
            places = [
                [c.at(o_at, builder.mul(_INDEX(j), span), n * LANES) for n in range(columns)]
                for j in range(count)
            ]
            zero = ir.Constant(math.sums, None)
            sums = [
                [[c.variable(zero) for _ in range(columns)] for _ in range(count)]
                for _ in range(rounds)
            ]
            with builder.if_else(first) as (then, otherwise):
                with then:
                    for n in range(columns):
                        value = c.load(begin, c.at(channel, n * LANES), math.sums)
                        for j in range(count):
                            builder.store(value, sums[0][j][n])
                with otherwise:
                    for j in range(count):
                        for n in range(columns):
                            value = c.load(out, places[j][n], math.sums)
                            builder.store(value, sums[0][j][n])

            def multiply(word: Any, turn: int) -> None:
                at = builder.mul(word, _INDEX(LANES))
                factors = [
                    math.factors(c.load(panels, c.at(begins[n], at), _INTS)) for n in range(columns)
                ]
                in_row = builder.mul(word, _INDEX(math.words_of_rows))
                for j in range(count):
                    for part in range(math.words_of_rows):
                        number = c.spread(x, c.at(starts[j], in_row, part), _INT)
                        for n in range(columns):
                            total = sums[turn][j][n]
                            value = math.multiply(builder.load(total), number, factors[n][part])
                            builder.store(value, total)

            with cgutils.for_range(builder, builder.udiv(depth, _INDEX(unroll))) as loop:
                base = builder.mul(loop.index, _INDEX(unroll))
                for u in range(unroll):
                    multiply(c.at(base, u), u % rounds)
            for j in range(count):
                for n in range(columns):
                    total = builder.load(sums[0][j][n])
                    for more in sums[1:]:
                        total = math.add(total, builder.load(more[j][n]))
                    c.store(total, out, places[j][n])
                    if kind == INT8:
                        with builder.if_then(last):
                            at = c.at(channel, n * LANES)
                            number = builder.sitofp(total, _FLOATS)
                            share = builder.fmul(
                                c.spread(row_scales, c.at(row, j)), c.load(scales, at)
                            )
                            # One instruction, or a strip's height would decide about the last bit.
                            number = c.sum_with_product(c.load(bias, at), number, share)
                            c.store(number, out, places[j][n])

        end = builder.append_basic_block("strip.end")
        choice = builder.switch(rows, end)
        for count in range(fewest, STRIP + 1):
            block = builder.append_basic_block(f"strip.{count}")
            choice.add_case(_INDEX(count), block)
            builder.position_at_end(block)
            strip(count)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(
        x, _U64, _U64, panels, _U64, _U64, out, _U64, _U64, begin, scales, bias, _U64, row_scales,
        _U64, _U64, types.boolean, types.boolean, _U64, *sizes,
    ), code  # fmt: skip


@cache
def product_of(kind: int) -> Multiply:
    words_of_rows = 2 if kind == WIDENED else 1
    in_tiles = HAS_TILES and kind in (BFLOAT16, INT8)
    whole = int(kind == INT8)

    @njit(parallel=True, **OPTIONS)
    def product(
        x: Floats, panels: Floats, out: Floats, begin: Floats, scales: Floats, bias: Floats,
        row_scales: Floats, threads: int,
    ) -> None:  # fmt: skip
        """x (T, words) times panels (panels, depth, LANES) = out (T, panels * LANES).

        All are words, whatever they hold. Sums begin as `begin` (panels * LANES,). Of INT8 they
        are multiplied by `row_scales` (T,) and `scales`, as long as `begin`, plus `bias`.
        """
        rows, span = out.shape
        count, depth = panels.shape[:2]
        stride, page = _U(x.shape[1]), _U(depth * LANES)
        flat, all_panels, outputs = x.reshape(-1), panels.reshape(-1), out.reshape(-1)
        tiled = in_tiles and rows > _FEW_IN_TILES
        height, width = (MOST_ROWS, MOST_PANELS) if tiled else (STRIP, COLUMNS)
        wide = count // width if tiled or rows > _FEW else 0
        groups = wide + count - wide * width
        # Enough parts for all threads, of no less than two strips; one of tiles is as much.
        parts = min(-(-4 * threads // groups), max(rows // max(2 * STRIP, height), 1))
        for task in prange(groups * parts):
            group, part = task // parts, task % parts
            above, below = rows * part // parts, rows * (part + 1) // parts
            strips = -(-(below - above) // height)
            panel = _U(group * width if group < wide else group + wide * (width - 1))
            for k in range(0, depth, _BLOCK):
                words = min(_BLOCK, depth - k)
                for strip in range(strips):
                    # Strips of equal height: a low one does little for its reads.
                    row = above + (below - above) * strip // strips
                    lines = above + (below - above) * (strip + 1) // strips - row
                    x_at = _U(row) * stride + _U(k * words_of_rows)
                    p_at, o_at = panel * page + _U(k * LANES), _U(row * span) + panel * _U(LANES)
                    # The first is a constant: without tiles there is no such code to compile.
                    if in_tiles and tiled:
                        if group < wide:
                            strip_in_tiles(
                                SHAPES, flat, x_at, stride, all_panels, p_at, page, outputs, o_at,
                                _U(span), begin, scales, bias, panel * _U(LANES), row_scales,
                                _U(row), _U(words), k == 0, k + words == depth, _U(lines),
                                MOST_PANELS, whole,
                            )  # fmt: skip
                        else:
                            strip_in_tiles(
                                SHAPES, flat, x_at, stride, all_panels, p_at, page, outputs, o_at,
                                _U(span), begin, scales, bias, panel * _U(LANES), row_scales,
                                _U(row), _U(words), k == 0, k + words == depth, _U(lines),
                                1, whole,
                            )  # fmt: skip
                    elif group < wide:
                        _strip(
                            flat, x_at, stride, all_panels, p_at, page, outputs, o_at, _U(span),
                            begin, scales, bias, panel * _U(LANES), row_scales, _U(row), _U(words),
                            k == 0, k + words == depth, _U(lines), COLUMNS, kind,
                        )  # fmt: skip
                    else:
                        _strip(
                            flat, x_at, stride, all_panels, p_at, page, outputs, o_at, _U(span),
                            begin, scales, bias, panel * _U(LANES), row_scales, _U(row), _U(words),
                            k == 0, k + words == depth, _U(lines), 1, kind,
                        )  # fmt: skip

    return product  # type: ignore[no-any-return]
