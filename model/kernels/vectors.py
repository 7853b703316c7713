"""Vector code for Numba's kernels that neither Numba nor LLVM makes of loops by itself.

Numba's floor and its view of a number's bits are calls, and a loop with a call in it is no vector
code. And LLVM keeps sums in memory where it cannot prove that arrays are apart. So the innermost
steps are written here in LLVM's own vector types, which it turns into the instructions that the CPU
at hand has: sixteen numbers at once with AVX-512, eight with AVX2, four elsewhere.

Indices are unsigned (uint64), arrays flat, contiguous and float32, but for pages of the cache,
which may hold bfloat16 instead: uint16, the upper halves of the numbers.
"""

import contextlib
import ctypes
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from model.kernels import cache

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Pages = Floats | Halves

config.CACHE_DIR = str(cache.folder())

OPTIONS: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "cache": True,
    "nogil": True,
}
LINE = 16
"""Numbers in a line of memory; of halves it holds twice as many."""
NONE = 2**64 - 1
"""The index of nothing."""
_FLOAT, _INT, _INDEX = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_HALF = ir.IntType(16)
_U = types.uint64
_BYTES = ir.IntType(8).as_pointer()
_ARCH_PRCTL = 158
_LOG2E = np.float32(1.4426950408889634)
# 2**x on [-1/2, 1/2]: Taylor's terms, off by 2e-7 of the value at most.
_C = tuple(np.float32(0.6931471805599453**k / f) for k, f in enumerate((1, 1, 2, 6, 24, 120, 720)))


def _may_use_tiles() -> bool:
    """Ask Linux for them, which gives them to a process and its threads, or kills it at their first
    use. Older ones and sandboxes refuse."""
    request, tile_data = 0x1023, 18
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(None).syscall(_ARCH_PRCTL, request, tile_data) == 0  # type: ignore[no-any-return]
    return False


def _features() -> frozenset[str]:
    """What the CPU can do that Numba compiles for, as LLVM calls it."""
    if config.CPU_NAME is None and config.CPU_FEATURES is None:
        features = binding.get_host_cpu_features()
        if not features.get("amx-tile") or _may_use_tiles():
            return frozenset(name for name, has in features.items() if has)
        features.update({name: False for name in features if name.startswith("amx")})
        config.CPU_FEATURES = features.flatten()  # part of the name in Numba's cache
    named = (config.CPU_FEATURES or "").split(",")
    return frozenset(name[1:] for name in named if name.startswith("+"))


FEATURES = _features()
# Numbers in a vector register, and how many registers sums may take.
LANES, SUMS = (16, 24) if "avx512f" in FEATURES else (8, 12) if "avx2" in FEATURES else (4, 12)


@intrinsic
def _floor(context: Any, x: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        floor = builder.module.declare_intrinsic("llvm.floor", [_FLOAT])
        return builder.call(floor, arguments)

    return types.float32(types.float32), code


@intrinsic
def _power_of_two(context: Any, whole: Any) -> Any:
    """2**whole for a whole number as a float: its bits are put together."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        exponent = builder.add(builder.fptosi(arguments[0], _INT), _INT(127))
        return builder.bitcast(builder.shl(exponent, _INT(23)), _FLOAT)

    return types.float32(types.float32), code


@njit(inline="always", **OPTIONS)
def exp(x: np.float32) -> np.float32:
    """e**x without a branch or a call, so that loops of it become vector instructions."""
    y = min(max(x * _LOG2E, np.float32(-126.0)), np.float32(126.0))
    n = _floor(y + np.float32(0.5))
    f = y - n
    p = _C[0] + f * (_C[1] + f * (_C[2] + f * (_C[3] + f * (_C[4] + f * (_C[5] + f * _C[6])))))
    return p * _power_of_two(n)  # type: ignore[no-any-return]


@intrinsic
def _rank(context: Any, x: Any) -> Any:
    """A whole number that is larger where x is; that of NaN is above all others. LLVM makes vector
    code of the largest whole number in a row, but not of the largest float."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rank = _turned(builder, builder.bitcast(arguments[0], _INT))
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.select(is_nan, _INT(0x7FFFFFFF), rank)

    return types.int32(types.float32), code


@intrinsic
def _of_rank(context: Any, rank: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(_turned(builder, arguments[0]), _FLOAT)

    return types.float32(types.int32), code


def _turned(builder: Any, bits: Any) -> Any:
    """The bits of negative numbers in reverse order; twice is none."""
    sign = builder.ashr(bits, _INT(31))
    return builder.xor(bits, builder.and_(sign, _INT(0x7FFFFFFF)))


@njit(inline="always", **OPTIONS)
def largest(x: Floats, begin: int, count: int, least: np.float32) -> np.float32:
    """The largest of `least` and x[begin : begin + count]; NaN if one of them is."""
    rank = _rank(least)
    for t in range(count):
        rank = max(rank, _rank(x[begin + np.uint64(t)]))
    return _of_rank(rank)  # type: ignore[no-any-return]


@njit(inline="always", **OPTIONS)
def largest_magnitude(x: Floats) -> np.float32:
    rank = np.int32(0)
    for t in range(x.shape[0]):
        rank = max(rank, _rank(abs(x[t])))
    return _of_rank(rank)  # type: ignore[no-any-return]


class VectorCode:
    """What one step of a microkernel writes: addresses, vectors, products, prefetches."""

    def __init__(self, context: Any, builder: Any, lanes: int) -> None:
        self.context, self.builder = context, builder
        self.vector = ir.VectorType(_FLOAT, lanes)
        self._fma = f"llvm.fma.v{lanes}f32"

    def data(self, kind: Any, array: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, array).data

    def at(self, index: Any, *steps: Any) -> Any:
        """index plus each step, a constant or a value."""
        for step in steps:
            index = self.builder.add(index, _INDEX(step) if isinstance(step, int) else step)
        return index

    def address(self, data: Any, index: Any, kind: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [index]), kind.as_pointer())

    def load(self, data: Any, index: Any, kind: Any = None) -> Any:
        """A vector of the kind, of floats where none is named."""
        return self.builder.load(self.address(data, index, kind or self.vector), align=4)

    def load_page(self, data: Any, index: Any) -> Any:
        """A vector of floats from a page of either kind."""
        if data.type.pointee != _HALF:
            return self.load(data, index)
        halves = ir.VectorType(_HALF, self.vector.count)
        words = ir.VectorType(_INT, self.vector.count)
        loaded = self.builder.load(self.address(data, index, halves), align=2)
        sixteen = ir.Constant(words, [16] * self.vector.count)
        upper = self.builder.shl(self.builder.zext(loaded, words), sixteen)
        return self.builder.bitcast(upper, self.vector)

    def store(self, value: Any, data: Any, index: Any) -> None:
        self.builder.store(value, self.address(data, index, value.type), align=4)

    def spread(self, data: Any, index: Any, kind: Any = _FLOAT) -> Any:
        """One number of the kind in every lane."""
        number = self.builder.load(self.address(data, index, kind))
        none = ir.Constant(ir.VectorType(kind, self.vector.count), ir.Undefined)
        first = self.builder.insert_element(none, number, _INT(0))
        lanes = ir.Constant(ir.VectorType(_INT, self.vector.count), None)
        return self.builder.shuffle_vector(first, first, lanes)

    def call(self, name: str, result: Any, arguments: list[Any]) -> Any:
        """LLVM's own function of that name."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """total += a * b, of a variable."""
        self.builder.store(self.sum_with_product(self.builder.load(total), a, b), total)

    def sum_with_product(self, total: Any, a: Any, b: Any) -> Any:
        return self.call(self._fma, self.vector, [a, b, total])

    def variable(self, value: Any) -> Any:
        """A place on the stack that becomes a register."""
        place = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, place)
        return place

    def sum(self) -> Any:
        return self.variable(ir.Constant(self.vector, None))

    def fetch(self, data: Any, index: Any, round_: Any, lines: int) -> None:
        """Asks for the memory lines of this round ahead of their use; none where there is NONE."""
        line = LINE if data.type.pointee == _FLOAT else 2 * LINE
        with self.builder.if_then(self.builder.icmp_unsigned("!=", index, _INDEX(NONE))):
            begin = self.at(index, self.builder.mul(round_, _INDEX(lines * line)))
            for n in range(lines):
                pointer = self.builder.gep(data, [self.at(begin, n * line)])
                address = self.builder.bitcast(pointer, _BYTES)
                how = [_INT(0), _INT(2), _INT(1)]
                self.call("llvm.prefetch.p0i8", ir.VoidType(), [address, *how])


def _line(pages: Any) -> int:
    """How many of these pages' numbers lie in a line of memory."""
    return LINE * 32 // int(pages.dtype.bitwidth)


@intrinsic
def number_for(typing: Any, pages: Any, number: Any) -> Any:
    """A float as these pages hold it: as it is, or the upper half of the nearest bfloat16."""
    if pages.dtype == types.float32:
        return types.float32(pages, types.float32), lambda _c, _b, _s, arguments: arguments[1]

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.bitcast(arguments[1], _INT)
        odd = builder.and_(builder.lshr(word, _INT(16)), _INT(1))
        nearest = builder.add(word, builder.add(odd, _INT(0x7FFF)))
        # What is added to the lower half of NaN may carry over into infinity or zero.
        is_nan = builder.fcmp_unordered("uno", arguments[1], arguments[1])
        word = builder.select(is_nan, builder.or_(word, _INT(0x400000)), nearest)
        return builder.trunc(builder.lshr(word, _INT(16)), _HALF)

    return types.uint16(pages, types.float32), code


def divisor(number: int, most: int) -> int:
    """The largest power of two up to `most` that divides `number`, a multiple of one itself."""
    found = 1
    while 2 * found <= most and number % (2 * found) == 0:
        found *= 2
    return found


@intrinsic(prefer_literal=True)
def score_page(
    typing: Any, queries: Any, q: Any, keys: Any, key: Any, scores: Any, s: Any, later: Any,
    ahead: Any, strip: Any, depth: Any, size: Any, span: Any, width: Any,
) -> Any:  # fmt: skip
    """Scores of `strip` queries with a page of keys.

    queries[q:] are `strip` rows of `depth`, keys[key:] is `depth` rows of `size`, scores[s:] are
    `strip` rows of `size`, `span` apart. Meanwhile a page of `width`, at later[ahead:], is fetched
    from memory, unless ahead is NONE. The last five arguments are constants.
    """
    sizes = strip, depth, size, span, width
    strip, depth, size, span, width = (n.literal_value for n in sizes)
    lanes, unroll = divisor(size, LANES), divisor(depth, 8)
    columns = size // lanes
    # A sum has to wait for the one before it: several at a time hide that.
    rounds = 2 if strip * columns < 8 and unroll > 1 else 1
    fetches = -(-size * width // (_line(later) * (depth // unroll)))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c = VectorCode(context, builder, lanes)
        queries, keys, scores, later = (
            c.data(signature.args[i], arguments[i]) for i in (0, 2, 4, 6)
        )
        q, key, s, ahead_at = (arguments[i] for i in (1, 3, 5, 7))
        sums = [[[c.sum() for _ in range(columns)] for _ in range(strip)] for _ in range(rounds)]
        with cgutils.for_range(builder, _INDEX(depth // unroll)) as loop:
            base = builder.mul(loop.index, _INDEX(unroll))
            for u in range(unroll):
                row = c.at(key, builder.mul(base, _INDEX(size)), u * size)
                parts = [c.load_page(keys, c.at(row, lanes * n)) for n in range(columns)]
                for j in range(strip):
                    number = c.spread(queries, c.at(q, base, j * depth + u))
                    for n in range(columns):
                        c.add_product(sums[u % rounds][j][n], number, parts[n])
            c.fetch(later, ahead_at, loop.index, fetches)
        for j in range(strip):
            for n in range(columns):
                total = builder.load(sums[0][j][n])
                for more in sums[1:]:
                    total = builder.fadd(total, builder.load(more[j][n]))
                c.store(total, scores, c.at(s, j * span + n * lanes))
        return context.get_dummy_value()

    return types.void(queries, _U, keys, _U, scores, _U, later, _U, *sizes), code


@intrinsic(prefer_literal=True)
def mix_page(
    typing: Any, shares: Any, s: Any, values: Any, value: Any, mixed: Any, m: Any, later: Any,
    ahead: Any, count: Any, strip: Any, size: Any, width: Any, span: Any, depth: Any,
) -> Any:  # fmt: skip
    """The first tokens of a page of values, mixed by `strip` rows of shares.

    shares[s:] are `strip` rows of up to `size`, `span` apart, values[value:] is `count` rows of
    `width`, and mixed[m:], `strip` rows of `width`, grows by their product. What lies behind
    `count` may be anything. Meanwhile a page of `depth` is fetched, as above. The last five
    arguments are constants.
    """
    sizes = strip, size, width, span, depth
    strip, size, width, span, depth = (n.literal_value for n in sizes)
    lanes = divisor(width, LANES)
    columns = width // lanes
    together = max(min(columns, SUMS // strip), 1)
    fetches = -(-depth // _line(later))

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c = VectorCode(context, builder, lanes)
        shares, values, mixed, later = (
            c.data(signature.args[i], arguments[i]) for i in (0, 2, 4, 6)
        )
        s, value, m, ahead_at, count = (arguments[i] for i in (1, 3, 5, 7, 8))
        for first in range(0, columns, together):
            chosen = range(first, min(first + together, columns))
            places = [[c.at(m, j * width + n * lanes) for n in chosen] for j in range(strip)]
            sums = [[c.variable(c.load(mixed, place)) for place in row] for row in places]
            with cgutils.for_range(builder, count) as loop:
                row = c.at(value, builder.mul(loop.index, _INDEX(width)))
                parts = [c.load_page(values, c.at(row, n * lanes)) for n in chosen]
                for j in range(strip):
                    number = c.spread(shares, c.at(s, loop.index, j * span))
                    for total, part in zip(sums[j], parts, strict=True):
                        c.add_product(total, number, part)
                if not first:
                    c.fetch(later, ahead_at, loop.index, fetches)
            for row, totals in zip(places, sums, strict=True):
                for place, total in zip(row, totals, strict=True):
                    c.store(builder.load(total), mixed, place)
        return context.get_dummy_value()

    return types.void(shares, _U, values, _U, mixed, _U, later, _U, _U, *sizes), code
