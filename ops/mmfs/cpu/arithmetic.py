"""Arithmetic on the vectors of :mod:`mmfs.cpu.vectors` inside Numba functions."""

from __future__ import annotations

import math
import operator

from llvmlite import ir
from numba.core import types
from numba.extending import overload

from mmfs.cpu.vectors import Vector, call, constant, instruction, is_float, shuffle, suffix, vector_ir, working


def _make_splat(lanes: int):
    def splat(typingctx, like, number):
        def codegen(context, builder, signature, args):
            vector, given = signature.return_type, signature.args[1]
            kind = vector_ir(vector.dtype, lanes)
            undefined = ir.Constant(kind, ir.Undefined)
            number = context.cast(builder, args[1], given, vector.dtype)
            single = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
            return shuffle(builder, single, undefined, [0] * lanes)

        return Vector(working(like.dtype), lanes)(like, number), codegen

    splat.__doc__ = f"Fill {lanes} lanes with a number, in the working precision of an array (or vector) ``like``."
    return splat


splat8 = instruction(_make_splat(8))
splat16 = instruction(_make_splat(16))


def _make_binary(float_instruction: str, integer_instruction: str):
    def binary(typingctx, a, b):
        def codegen(context, builder, signature, args):
            name = float_instruction if is_float(signature.args[0]) else integer_instruction
            return getattr(builder, name)(*args)

        return a(a, b), codegen

    return binary


_add = instruction(_make_binary("fadd", "add"))
_sub = instruction(_make_binary("fsub", "sub"))
_mul = instruction(_make_binary("fmul", "mul"))


def _overload_operator(symbol, emit) -> None:
    @overload(symbol)
    def choose(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: emit(a, b)
        return None


_overload_operator(operator.add, _add)
_overload_operator(operator.sub, _sub)
_overload_operator(operator.mul, _mul)


@instruction
def fma(typingctx, a, b, c):
    """Compute ``a * b + c`` with one rounding."""

    def codegen(context, builder, signature, args):
        return call(builder, f"llvm.fma.{suffix(args[0].type)}", args[0].type, list(args))

    return a(a, b, c), codegen


@instruction
def floor(typingctx, a):
    """Round down."""

    def codegen(context, builder, signature, args):
        return call(builder, f"llvm.floor.{suffix(args[0].type)}", args[0].type, [args[0]])

    return a(a), codegen


@instruction
def clamp(typingctx, a, low, high):
    """Limit to ``[low, high]``; NaN becomes ``low``."""

    def codegen(context, builder, signature, args):
        a, low, high = args
        raised = builder.select(builder.fcmp_ordered(">", a, low), a, low)
        return builder.select(builder.fcmp_ordered("<", raised, high), raised, high)

    return a(a, low, high), codegen


@instruction
def hat(typingctx, distance):
    """Compute the bilinear weight ``max(0, 1 - |distance|)``; 0 for NaN."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        size = call(builder, f"llvm.fabs.{suffix(kind)}", kind, [args[0]])
        weight = builder.fsub(constant(kind, 1.0), size)
        zero = constant(kind, 0.0)
        return builder.select(builder.fcmp_ordered(">", weight, zero), weight, zero)

    return distance(distance), codegen


@instruction
def hat_slope(typingctx, distance):
    """Compute the slope of :func:`hat`: 1 in ``[-1, 0)``, -1 in ``[0, 1)``, 0 elsewhere."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        one, minus, zero = (constant(kind, number) for number in (1.0, -1.0, 0.0))
        falls = builder.fcmp_ordered(">=", args[0], zero)
        sign = builder.select(falls, minus, one)
        inside = builder.and_(builder.fcmp_ordered(">=", args[0], minus), builder.fcmp_ordered("<", args[0], one))
        return builder.select(inside, sign, zero)

    return distance(distance), codegen


@instruction
def to_int32(typingctx, a):
    """Convert whole numbers to int32."""

    def codegen(context, builder, signature, args):
        return builder.fptosi(args[0], ir.VectorType(ir.IntType(32), args[0].type.count))

    return Vector(types.int32, a.lanes)(a), codegen


@instruction
def to_float64(typingctx, a):
    """Widen to float64."""

    def codegen(context, builder, signature, args):
        if signature.args[0].dtype == types.float64:
            return args[0]
        return builder.fpext(args[0], ir.VectorType(ir.DoubleType(), args[0].type.count))

    return Vector(types.float64, a.lanes)(a), codegen


# ln 2 in two parts (the first has trailing zeros, so that its multiples are exact), smallest argument, exponent bits,
# and the coefficients of (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, highest power first: for float32 the minimax
# polynomial of the Cephes library, for float64 the Taylor series.
_EXP_CONSTANTS = {
    "f32": (0.693359375, -2.12194440e-4, -87.3, 127, 23),
    "f64": (6.93147180369123816490e-01, 1.90821492927058770002e-10, -708.0, 1023, 52),
}
_EXP_COEFFICIENTS = {
    "f32": (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
    "f64": tuple(1.0 / math.factorial(n) for n in range(14, 1, -1)),
}


@instruction
def exp(typingctx, a):
    """Compute ``exp`` for arguments of at most about 1, to the last bit or two; 0 below the smallest normal number."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        precision = suffix(kind)[-3:]
        high, low, smallest, bias, mantissa = _EXP_CONSTANTS[precision]
        underflows = builder.fcmp_ordered("<", args[0], constant(kind, smallest))
        x = builder.select(underflows, constant(kind, smallest), args[0])

        def multiply_add(p, q, r):
            return call(builder, f"llvm.fma.{suffix(kind)}", kind, [p, q, r])

        scaled = builder.fmul(x, constant(kind, 1.4426950408889634))
        power = call(builder, f"llvm.rint.{suffix(kind)}", kind, [scaled])
        rest = multiply_add(power, constant(kind, -high), x)
        rest = multiply_add(power, constant(kind, -low), rest)
        first, *others = _EXP_COEFFICIENTS[precision]
        series = constant(kind, first)
        for coefficient in others:
            series = multiply_add(series, rest, constant(kind, coefficient))
        series = multiply_add(series, builder.fmul(rest, rest), rest)
        series = builder.fadd(series, constant(kind, 1.0))
        words = ir.VectorType(ir.IntType(32 if precision == "f32" else 64), kind.count)
        exponent = builder.add(builder.fptosi(power, words), constant(words, bias))
        factor = builder.bitcast(builder.shl(exponent, constant(words, mantissa)), kind)
        return builder.select(underflows, constant(kind, 0.0), builder.fmul(series, factor))

    return a(a), codegen


def _tree(builder, vector, combine):
    while vector.type.count > 1:
        half = vector.type.count // 2
        low = shuffle(builder, vector, vector, list(range(half)))
        high = shuffle(builder, vector, vector, list(range(half, 2 * half)))
        vector = combine(low, high)
    return builder.extract_element(vector, ir.Constant(ir.IntType(32), 0))


@instruction
def add_lanes(typingctx, a):
    """Add up the lanes, always in the same order."""

    def codegen(context, builder, signature, args):
        return _tree(builder, args[0], builder.fadd)

    return a.dtype(a), codegen


@instruction
def highest_lane(typingctx, a):
    """Take the largest lane."""

    def codegen(context, builder, signature, args):
        def larger(x, y):
            return builder.select(builder.fcmp_ordered(">", x, y), x, y)

        return _tree(builder, args[0], larger)

    return a.dtype(a), codegen


@instruction
def larger(typingctx, a, b):
    """Take the larger number in every lane; ``b`` where ``a`` is NaN."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), codegen


@instruction
def any_greater(typingctx, a, b):
    """Say whether ``a > b`` in any lane."""

    def codegen(context, builder, signature, args):
        bits = ir.IntType(args[0].type.count)
        above = builder.bitcast(builder.fcmp_ordered(">", *args), bits)
        return builder.icmp_unsigned("!=", above, ir.Constant(bits, 0))

    return types.boolean(a, b), codegen


@instruction
def add_lanes_of_four(typingctx, a, b, c, d):
    """Add up the lanes of four vectors of 16: a vector of the four sums."""

    def codegen(context, builder, signature, args):
        low, high = list(range(8)), list(range(8, 16))

        def fold(x, y, first: list[int], second: list[int]):
            joined = [*first, *(16 + lane for lane in first)]
            crossed = [*second, *(16 + lane for lane in second)]
            return builder.fadd(shuffle(builder, x, y, joined), shuffle(builder, x, y, crossed))

        ab, cd = (fold(x, y, low, high) for x, y in (args[:2], args[2:]))  # 8 lanes of each
        fours = [0, 1, 2, 3, 8, 9, 10, 11]
        all_four = fold(ab, cd, fours, [lane + 4 for lane in fours])  # 4 lanes of each
        for step in (2, 1):
            all_four = builder.fadd(all_four, shuffle(builder, all_four, all_four, [lane ^ step for lane in range(16)]))
        return shuffle(builder, all_four, all_four, [0, 4, 8, 12])

    return Vector(a.dtype, 4)(a, b, c, d), codegen


@instruction
def split_points(typingctx, xy):
    """Separate eight interleaved points into their x and their y."""

    def codegen(context, builder, signature, args):
        parts = [shuffle(builder, args[0], args[0], list(range(first, 16, 2))) for first in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(Vector(xy.dtype, 8), 2)(xy), codegen


@instruction
def join_points(typingctx, x, y):
    """Interleave eight x and eight y."""

    def codegen(context, builder, signature, args):
        return shuffle(
            builder, args[0], args[1], [lane for pair in zip(range(8), range(8, 16), strict=True) for lane in pair]
        )

    return Vector(x.dtype, 16)(x, y), codegen
