"""Sixty-four bytes of ASCII text at once, in the processor's vectors. Compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from decontam.text.hashing import SEED, add_word, compiled, finish, inlined

BLOCK = 64
"""Bytes whose kinds fit into the bits of one number."""
BLOCKS = 64
"""Blocks that are read before their tokens are hashed: few enough for the first cache."""
TOKENS = BLOCK // 2
"""Tokens that may end in a block."""
Buffers = tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.int32]]]


def buffers() -> Buffers:
    """Scratch of `edges`: folded text uint8[…] with a block of zeros at its end, borders of tokens int32[…]."""
    return np.zeros((BLOCKS + 2) * BLOCK, np.uint8), np.zeros(BLOCKS * BLOCK + 2, np.int32)


def _vector(builder: Any, context: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Pointer to the 64 bytes of an array of uint8 from a place on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), ir.VectorType(ir.IntType(8), BLOCK).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def _fold(typing: Any, data: Any, i: Any, folded: Any, at: Any) -> Any:
    """Write data[i:i + 64] to folded[at:at + 64], the letters A to Z made small. The caller knows that both are there.

    Returns two numbers of a bit for each byte: is it an ASCII word character, is it not ASCII.
    """

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(ir.IntType(8), BLOCK)

        def every(value: int) -> Any:
            return ir.Constant(kind, [value] * BLOCK)

        def among(vector: Any, first: str, count: int) -> Any:
            return builder.icmp_unsigned("<", builder.sub(vector, every(ord(first))), every(count))

        raw = builder.load(_vector(builder, context, signature.args[0], args[0], args[1]), align=1)
        small = builder.or_(raw, builder.select(among(raw, "A", 26), every(0x20), every(0)))
        builder.store(small, _vector(builder, context, signature.args[2], args[2], args[3]), align=1)
        word = builder.or_(among(small, "a", 26), builder.or_(among(raw, "0", 10), among(raw, "_", 1)))
        high = builder.icmp_signed("<", raw, every(0))
        number = ir.IntType(64)
        return cgutils.pack_array(builder, [builder.bitcast(word, number), builder.bitcast(high, number)])

    return types.UniTuple(types.uint64, 2)(data, types.intp, folded, types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def _load(typing: Any, data: Any, i: Any) -> Any:
    """The bytes data[i:i + 8] of uint8[…] as a uint64, wherever they stand. The caller knows that they are there."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        number = context.get_value_type(types.uint64)
        place = builder.bitcast(builder.gep(array.data, [args[1]]), number.as_pointer())
        return builder.load(place, align=1)

    return types.uint64(data, types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def _zeros_below(typing: Any, word: Any) -> Any:
    """Zero bits below the lowest one; 64 where there is none."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], context.get_constant(types.boolean, 0))

    return types.int64(types.uint64), code


@compiled
def edges(data: Any, i: int, end: int, blocks: int, folded: Any, borders: Any) -> Any:
    """The tokens at the beginning of data[i:end], which begins with a token or between two.

    Stops after that many blocks, or before what is not ASCII; a token that may go on there is left out. Returns (how
    many numbers of `borders` are filled: first and last byte (exclusive) of each token, counted from i; the next
    byte). folded[k] is data[i + k] with small letters.
    """
    size = min(end - i, blocks * BLOCK)
    spare = len(folded) - BLOCK
    count, before = 0, np.uint64(0)
    for at in range(0, size, BLOCK):
        if i + at + BLOCK <= len(data):
            word, high = _fold(data, i + at, folded, at)
        else:
            folded[spare:] = 0
            for k in range(len(data) - i - at):
                folded[spare + k] = data[i + at + k]
            word, high = _fold(folded, spare, folded, at)
        stop = min(size - at, _zeros_below(high))
        if stop < BLOCK:
            word &= (np.uint64(1) << np.uint64(stop)) - np.uint64(1)
        change = word ^ (word << np.uint64(1) | before)
        before = word >> np.uint64(BLOCK - 1)
        while change:
            borders[count] = at + _zeros_below(change)
            count += 1
            change &= change - np.uint64(1)
        if stop < min(size - at, BLOCK):
            size = at + stop
            break
    if count & 1:
        borders[count] = size
        count += 1
    if count and borders[count - 1] == size and i + size < end:
        count -= 2
        size = borders[count]
    return count, i + size


@inlined
def hashed(folded: Any, begin: int, end: int) -> Any:
    """Hash of the ASCII token folded[begin:end]; eight bytes after it may be read."""
    h, k, left = SEED, np.int64(begin), np.int64(end - begin)
    while left > 8:
        h = add_word(h, _load(folded, k))
        k += 8
        left -= 8
    unused = np.uint64(64 - 8 * left)
    return finish(add_word(h, _load(folded, k) << unused >> unused))
