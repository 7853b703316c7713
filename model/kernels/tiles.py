"""Products of rows in tiles, on CPUs that have them (AMX of Intel's Xeons from 2023 on).

A tile is a register of up to sixteen rows of sixteen words. One instruction multiplies a tile of
rows by a tile of weights and adds the products to a tile of sums; a vector's does a sixteenth of
that. Weights lie as `products.py` packs them: sixteen words of a panel's depth are a tile as they
are, whether a word holds two bfloat16 or four numbers of eight bits. There are none for float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.kernels.vectors import FEATURES, LANES, VectorCode

SIDE = 16
"""Rows of a tile, and words in a row of it."""
HAS_TILES = LANES == SIDE and {"amx-tile", "amx-bf16", "amx-int8"} <= FEATURES
MOST_ROWS, MOST_PANELS = 2 * SIDE, 2
"""Rows and panels whose sums stay in tiles together: four of the eight there are."""
_SUMS = (0, 1), (2, 3)
_ROWS, _WEIGHTS = (4, 5), (6, 7)
_BYTE, _INT, _INDEX = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_INTS, _FLOATS = ir.VectorType(_INT, SIDE), ir.VectorType(ir.FloatType(), SIDE)
_U64 = types.uint64


def _shapes() -> NDArray[np.uint8]:
    """(rows of a strip, 64): what the CPU is told of the tiles' sizes, for each height."""
    shapes = np.zeros((MOST_ROWS + 1, 64), np.uint8)
    shapes[:, 0] = 1  # the only way of dividing the registers that there is
    for rows in range(1, MOST_ROWS + 1):
        heights = dict.fromkeys(_WEIGHTS, SIDE)
        for half, height in enumerate((min(rows, SIDE), rows - SIDE)):
            if height > 0:
                heights |= dict.fromkeys((*_SUMS[half], _ROWS[half]), height)
        for tile, height in heights.items():
            shapes[rows, 16 + 2 * tile] = 4 * SIDE  # bytes in a row
            shapes[rows, 48 + tile] = height
    return shapes


SHAPES = _shapes()


class _Tiles:
    """The instructions; a tile is named by its number."""

    def __init__(self, code: VectorCode, *, whole: bool) -> None:
        self._code = code
        self._product = "llvm.x86.tdpbusd" if whole else "llvm.x86.tdpbf16ps"

    def shape(self, shapes: Any, rows: Any) -> None:
        at = self._code.builder.mul(rows, _INDEX(64))
        self._call("llvm.x86.ldtilecfg", [self._code.address(shapes, at, _BYTE)])

    def release(self) -> None:
        """What a thread's tiles hold is saved and restored whenever another runs, until this."""
        self._call("llvm.x86.tilerelease", [])

    def load(self, tile: int, data: Any, index: Any, stride: Any) -> None:
        """Rows are `stride` words apart."""
        self._move("llvm.x86.tileloadd64", tile, data, index, stride)

    def store(self, tile: int, data: Any, index: Any, stride: Any) -> None:
        self._move("llvm.x86.tilestored64", tile, data, index, stride)

    def multiply(self, total: int, rows: int, weights: int) -> None:
        self._call(self._product, [_BYTE(total), _BYTE(rows), _BYTE(weights)])

    def _move(self, name: str, tile: int, data: Any, index: Any, stride: Any) -> None:
        in_bytes = self._code.builder.mul(stride, _INDEX(4))
        self._call(name, [_BYTE(tile), self._code.address(data, index, _BYTE), in_bytes])

    def _call(self, name: str, arguments: list[Any]) -> None:
        self._code.call(name, ir.VoidType(), arguments)


@intrinsic(prefer_literal=True)
def strip_in_tiles(
    typing: Any, shapes: Any, x: Any, x_at: Any, stride: Any, panels: Any, p_at: Any, step: Any,
    out: Any, o_at: Any, span: Any, begin: Any, scales: Any, bias: Any, channel: Any,
    row_scales: Any, row: Any, depth: Any, first: Any, last: Any, rows: Any, columns: Any,
    whole: Any,
) -> Any:  # fmt: skip
    """A strip of up to MOST_ROWS rows times up to MOST_PANELS panels, over a part of the depth.

    The arguments are those of `products._strip`, and SHAPES. `whole` is whether numbers are of
    eight bits. The depth is a multiple of SIDE. The last two arguments are constants.
    """
    sizes = columns, whole
    columns, whole = (n.literal_value for n in sizes)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c = VectorCode(context, builder, SIDE)
        shapes, x, panels, out, begin, scales, bias, row_scales = (
            c.data(signature.args[i], arguments[i]) for i in (0, 1, 4, 7, 10, 11, 12, 14)
        )
        x_at, stride, p_at, step, o_at, span, channel, row, depth, first, last, rows = (
            arguments[i] for i in (2, 3, 5, 6, 8, 9, 13, 15, 16, 17, 18, 19)
        )
        tiles = _Tiles(c, whole=bool(whole))
        panel = [builder.add(p_at, builder.mul(_INDEX(n), step)) for n in range(columns)]

        def multiply(halves: int) -> None:
            starts = [c.at(x_at, builder.mul(_INDEX(h * SIDE), stride)) for h in range(halves)]
            places = [
                [c.at(o_at, builder.mul(_INDEX(h * SIDE), span), n * SIDE) for n in range(columns)]
                for h in range(halves)
            ]
            sums = [(h, n) for h in range(halves) for n in range(columns)]
            with builder.if_else(first) as (then, otherwise):
                with then:
                    for h, n in sums:
                        tiles.load(_SUMS[h][n], begin, c.at(channel, n * SIDE), _INDEX(0))
                with otherwise:
                    for h, n in sums:
                        tiles.load(_SUMS[h][n], out, places[h][n], span)
            with cgutils.for_range(builder, builder.udiv(depth, _INDEX(SIDE))) as loop:
                word = builder.mul(loop.index, _INDEX(SIDE))
                for h in range(halves):
                    tiles.load(_ROWS[h], x, c.at(starts[h], word), stride)
                for n in range(columns):
                    at = c.at(panel[n], builder.mul(word, _INDEX(SIDE)))
                    tiles.load(_WEIGHTS[n], panels, at, _INDEX(SIDE))
                    for h in range(halves):
                        tiles.multiply(_SUMS[h][n], _ROWS[h], _WEIGHTS[n])
            for h, n in sums:
                tiles.store(_SUMS[h][n], out, places[h][n], span)

        tiles.shape(shapes, rows)
        with builder.if_else(builder.icmp_unsigned(">", rows, _INDEX(SIDE))) as (then, otherwise):
            with then:
                multiply(2)
            with otherwise:
                multiply(1)
        tiles.release()
        if whole:
            with builder.if_then(last), cgutils.for_range(builder, rows) as loop:
                share = c.spread(row_scales, c.at(row, loop.index))
                for n in range(columns):
                    at = c.at(channel, n * SIDE)
                    place = c.at(o_at, builder.mul(loop.index, span), n * SIDE)
                    number = builder.sitofp(c.load(out, place, _INTS), _FLOATS)
                    scale = builder.fmul(share, c.load(scales, at))
                    c.store(c.sum_with_product(c.load(bias, at), number, scale), out, place)
        return context.get_dummy_value()

    return types.void(
        shapes, x, _U64, _U64, panels, _U64, _U64, out, _U64, _U64, begin, scales, bias, _U64,
        row_scales, _U64, _U64, types.boolean, types.boolean, _U64, *sizes,
    ), code  # fmt: skip
