"""Short vectors as values inside Numba functions.

Numba leaves vectorisation to LLVM, which gives up on loops whose length it does not know or whose arrays might overlap.
Here a vector is a type of its own: the functions below emit the vector instructions directly, and LLVM maps them to
whatever the processor has (AVX-512, AVX2, NEON). ``8`` in a name counts points, ``16`` counts channels.

Arrays are flat. ``uint16`` arrays hold the bits of bfloat16 and ``int16`` arrays those of float16: Numba knows neither
type. A position is not checked and may not be negative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model


def instruction(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that Numba code may call and that emits its own instructions (``numba.extending.intrinsic``)."""
    return intrinsic(function)


class Vector(types.Type):
    """A vector of ``lanes`` numbers of type ``dtype``."""

    def __init__(self, dtype: types.Type, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_scalar(fe_type.dtype), fe_type.lanes))


_SCALARS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: ir.IntType(32),
    types.int64: ir.IntType(64),
}
_STORED_AS_16_BITS = {types.uint16: "bfloat16", types.int16: "float16"}


def _scalar(dtype: types.Type) -> ir.Type:
    return _SCALARS[dtype]


def vector_ir(dtype: types.Type, lanes: int) -> ir.VectorType:
    """Name the LLVM type of a vector."""
    return ir.VectorType(_scalar(dtype), lanes)


def working(dtype: types.Type) -> types.Type:
    """Say in which type numbers stored as ``dtype`` are computed with."""
    return types.float32 if dtype in _STORED_AS_16_BITS else dtype


def constant(vector: ir.VectorType, number: float) -> ir.Constant:
    """Fill a vector with one number."""
    return ir.Constant(vector, [number] * vector.count)


def _address(context, builder, array_type, array, position, vector: ir.Type):
    data = context.make_array(array_type)(context, builder, array).data
    element = builder.gep(data, [position])
    return builder.bitcast(element, vector.as_pointer())


def _bytes(dtype: Any) -> int:
    return dtype.bitwidth // 8


def shuffle(builder, first, second, lanes: list[int]):
    """Pick lanes of two vectors; those of the second are counted on from those of the first."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(first, second, mask)


def call(builder, name: str, result: ir.Type, arguments: list):
    """Call an LLVM function by name."""
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, [argument.type for argument in arguments]), name
    )
    return builder.call(function, arguments)


def suffix(vector: ir.VectorType) -> str:
    """Spell a vector type as LLVM's functions do, ``v16f32``."""
    names = {"float": "f32", "double": "f64"}
    return f"v{vector.count}{names.get(str(vector.element), str(vector.element))}"


def is_float(vector: Vector) -> bool:
    """Say whether the lanes are floating point numbers."""
    return isinstance(vector.dtype, types.Float)


def _load_16_bits(builder, words, stored: str, lanes: int):
    """Widen a vector of 16-bit words that hold bfloat16 or float16 to float32."""
    floats = ir.VectorType(ir.FloatType(), lanes)
    if stored == "float16":
        return builder.fpext(builder.bitcast(words, ir.VectorType(ir.HalfType(), lanes)), floats)
    wide = ir.VectorType(ir.IntType(32), lanes)
    return builder.bitcast(builder.shl(builder.zext(words, wide), constant(wide, 16)), floats)


def _emit_load(context, builder, array_type, array, position, lanes: int):
    stored = _STORED_AS_16_BITS.get(array_type.dtype)
    kind = ir.VectorType(ir.IntType(16), lanes) if stored else vector_ir(array_type.dtype, lanes)
    pointer = _address(context, builder, array_type, array, position, kind)
    words = builder.load(pointer, align=_bytes(array_type.dtype))
    return _load_16_bits(builder, words, stored, lanes) if stored else words


def _make_load(lanes: int):
    def load(typingctx, array, position):
        def codegen(context, builder, signature, args):
            return _emit_load(context, builder, signature.args[0], args[0], args[1], lanes)

        return Vector(working(array.dtype), lanes)(array, types.intp), codegen

    return load


load4 = instruction(_make_load(4))
load8 = instruction(_make_load(8))
load16 = instruction(_make_load(16))


@instruction
def load_pair16(typingctx, array, position):
    """Load 32 channels as two vectors: first and second half, or even and odd channels of bfloat16.

    Even and odd bfloat16 numbers are one shift and one mask away from float32, whereas halves need a slow widening.
    All that stays inside the kernels may keep that order; :func:`store_pair16` undoes it.
    """

    def codegen(context, builder, signature, args):
        array_type, tuple_type = signature.args[0], signature.return_type
        if _STORED_AS_16_BITS.get(array_type.dtype) == "bfloat16":
            words = ir.VectorType(ir.IntType(32), 16)
            floats = ir.VectorType(ir.FloatType(), 16)
            pointer = _address(context, builder, array_type, args[0], args[1], words)
            both = builder.load(pointer, align=2)
            even = builder.bitcast(builder.shl(both, constant(words, 16)), floats)
            odd = builder.bitcast(builder.and_(both, constant(words, 0xFFFF0000)), floats)
            return context.make_tuple(builder, tuple_type, (even, odd))
        second = builder.add(args[1], ir.Constant(args[1].type, 16))
        halves = [_emit_load(context, builder, array_type, args[0], at, 16) for at in (args[1], second)]
        return context.make_tuple(builder, tuple_type, halves)

    vector = Vector(working(array.dtype), 16)
    return types.UniTuple(vector, 2)(array, types.intp), codegen


def _round_to_bfloat16(builder, floats):
    """Round float32 to the nearest bfloat16, ties to even; the bits are in the upper half of 32-bit words."""
    words = ir.VectorType(ir.IntType(32), floats.type.count)
    bits = builder.bitcast(floats, words)
    lowest = builder.and_(builder.lshr(bits, constant(words, 16)), constant(words, 1))
    rounded = builder.add(bits, builder.add(lowest, constant(words, 0x7FFF)))
    is_nan = builder.fcmp_unordered("uno", floats, floats)
    return builder.select(is_nan, constant(words, 0x7FC00000), rounded)


def _emit_store(context, builder, array_type, array, position, vector) -> None:
    stored = _STORED_AS_16_BITS.get(array_type.dtype)
    lanes = vector.type.count
    if stored == "bfloat16":
        words = ir.VectorType(ir.IntType(32), lanes)
        shifted = builder.lshr(_round_to_bfloat16(builder, vector), constant(words, 16))
        vector = builder.trunc(shifted, ir.VectorType(ir.IntType(16), lanes))
    elif stored == "float16":
        vector = builder.fptrunc(vector, ir.VectorType(ir.HalfType(), lanes))
    pointer = _address(context, builder, array_type, array, position, vector.type)
    builder.store(vector, pointer, align=_bytes(array_type.dtype))


@instruction
def store(typingctx, array, position, vector):
    """Store a vector, rounded to what the array holds."""

    def codegen(context, builder, signature, args):
        array, position, vector = args
        _emit_store(context, builder, signature.args[0], array, position, vector)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@instruction
def store_pair16(typingctx, array, position, first, second):
    """Store 32 channels in the order of :func:`load_pair16`."""

    def codegen(context, builder, signature, args):
        array_type = signature.args[0]
        data, position, first, second = args
        if _STORED_AS_16_BITS.get(array_type.dtype) == "bfloat16":
            words = ir.VectorType(ir.IntType(32), 16)
            even = builder.lshr(_round_to_bfloat16(builder, first), constant(words, 16))
            odd = builder.and_(_round_to_bfloat16(builder, second), constant(words, 0xFFFF0000))
            pointer = _address(context, builder, array_type, data, position, words)
            builder.store(builder.or_(even, odd), pointer, align=2)
        else:
            _emit_store(context, builder, array_type, data, position, first)
            _emit_store(
                context, builder, array_type, data, builder.add(position, ir.Constant(position.type, 16)), second
            )
        return context.get_dummy_value()

    return types.void(array, types.intp, first, second), codegen


def _first_lanes(builder, count, lanes: int):
    """Make a mask of the first ``count`` lanes."""
    words = ir.VectorType(ir.IntType(32), lanes)
    count = builder.trunc(count, ir.IntType(32))
    single = builder.insert_element(ir.Constant(words, ir.Undefined), count, ir.Constant(ir.IntType(32), 0))
    spread = shuffle(builder, single, ir.Constant(words, ir.Undefined), [0] * lanes)
    return builder.icmp_signed("<", ir.Constant(words, list(range(lanes))), spread)


def _make_load_first(lanes: int):
    def load_first(typingctx, array, position, count, other):
        def codegen(context, builder, signature, args):
            array_type = signature.args[0]
            data, position, count, other = args
            kind = vector_ir(array_type.dtype, lanes)
            pointer = _address(context, builder, array_type, data, position, kind)
            align = ir.Constant(ir.IntType(32), _bytes(array_type.dtype))
            mask = _first_lanes(builder, count, lanes)
            name = f"llvm.masked.load.{suffix(kind)}.p0"
            return call(builder, name, kind, [pointer, align, mask, other])

        return Vector(array.dtype, lanes)(array, types.intp, types.intp, other), codegen

    return load_first


load_first8 = instruction(_make_load_first(8))
load_first16 = instruction(_make_load_first(16))


@instruction
def store_first(typingctx, array, position, count, vector):
    """Store the first ``count`` lanes only."""

    def codegen(context, builder, signature, args):
        array_type = signature.args[0]
        data, position, count, vector = args
        pointer = _address(context, builder, array_type, data, position, vector.type)
        align = ir.Constant(ir.IntType(32), _bytes(array_type.dtype))
        mask = _first_lanes(builder, count, vector.type.count)
        name = f"llvm.masked.store.{suffix(vector.type)}.p0"
        call(builder, name, ir.VoidType(), [vector, pointer, align, mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), codegen


@instruction
def at(typingctx, array, position):
    """Read one element without the check for negative positions."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.gep(data, [args[1]]))

    return array.dtype(array, types.intp), codegen


@instruction
def address(typingctx, array):
    """Give the address of an array's first element."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), codegen


@instruction
def prefetch(typingctx, array, position):
    """Ask for the cache line of an element that will be read soon; any position will do."""

    def codegen(context, builder, signature, args):
        array, position = args
        pointer = _address(context, builder, signature.args[0], array, position, ir.IntType(8))
        read_soon = [ir.Constant(ir.IntType(32), number) for number in (0, 3, 1)]
        call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *read_soon])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@instruction
def store_corners(typingctx, array, position, a, b, c, d):
    """Store four numbers for each of eight points, the four of a point side by side."""

    def codegen(context, builder, signature, args):
        data, position, a, b, c, d = args
        ab, cd = (shuffle(builder, x, y, list(range(16))) for x, y in ((a, b), (c, d)))
        lanes = [corner * 8 + point for point in range(8) for corner in range(4)]
        _emit_store(context, builder, signature.args[0], data, position, shuffle(builder, ab, cd, lanes))
        return context.get_dummy_value()

    return types.void(array, types.intp, a, b, c, d), codegen


@instruction
def load_corners(typingctx, array, position):
    """Load what :func:`store_corners` stored: four vectors of eight."""

    def codegen(context, builder, signature, args):
        both = _emit_load(context, builder, signature.args[0], args[0], args[1], 32)
        parts = [shuffle(builder, both, both, list(range(corner, 32, 4))) for corner in range(4)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(Vector(array.dtype, 8), 4)(array, types.intp), codegen
