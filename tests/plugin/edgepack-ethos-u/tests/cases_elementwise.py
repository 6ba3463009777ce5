"""Cases of the battery: elementwise ops and reductions."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .op_files import IMAGE, TYPES, Case, Operand, constant, ints

UNARY = (
    "ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG", "LOGICAL_NOT", "LOGISTIC",
    "NEG", "QUANTIZE", "RELU", "RELU6", "RELU_0_TO_1", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIGN", "SIN", "SQRT",
    "SQUARE", "TANH", "ZEROS_LIKE",
)  # fmt: skip
BINARY = (
    "ADD", "DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "MUL", "POW", "PRELU", "SQUARED_DIFFERENCE", "SUB",
)  # fmt: skip
COMPARISON = ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL")
LOGICAL = ("LOGICAL_AND", "LOGICAL_OR")
REDUCTION = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")


def elementwise() -> Iterator[Case]:
    """Yield the cases: Ops of one and two inputs, with broadcasting."""
    for op in UNARY:
        options: dict[str, Any] = {"alpha": 0.1} if op == "LEAKY_RELU" else {}
        for dtype in ("BOOL",) if op == "LOGICAL_NOT" else TYPES:
            image = Operand(IMAGE, dtype)
            yield Case(f"{op} {dtype}", op, (image,), (image,), options)
        if op == "LOGICAL_NOT":
            continue
        for target in ("INT16", "UINT8", "INT32") if op == "QUANTIZE" else ():
            yield Case(f"{op} INT8 to {target}", op, (Operand(IMAGE),), (Operand(IMAGE, target),), options)
        # The operator's own rescaling, ranks beyond four.
        yield Case(f"{op} rescaled", op, (Operand(IMAGE),), (Operand(IMAGE, scale=0.1),), options)
        deep = Operand((1, 2, 2, 8, 8, 4))
        yield Case(f"{op} rank 6", op, (deep,), (deep,), options)
    for op in (*BINARY, *COMPARISON, *LOGICAL):
        for dtype in ("BOOL",) if op in LOGICAL else (*TYPES, "INT64"):
            image = Operand(IMAGE, dtype)
            out = Operand(IMAGE, "BOOL") if op in COMPARISON else image
            yield Case(f"{op} {dtype}", op, (image, image), (out,))
            line = Operand((4,), dtype)
            yield Case(f"{op} {dtype} broadcast", op, (image, line), (out,))
        if op in LOGICAL:
            continue
        out = Operand(IMAGE, "BOOL") if op in COMPARISON else Operand(IMAGE)
        yield Case(f"{op} both broadcast", op, (Operand((1, 8, 1, 4)), Operand((1, 1, 8, 4))), (out,))
        yield Case(f"{op} batch 2", op, (Operand((2, 8, 8, 4)), Operand(IMAGE)), (Operand((2, 8, 8, 4), out.dtype),))
        yield Case(f"{op} rescaled", op, (Operand(IMAGE, scale=0.1), Operand(IMAGE)), (out,))
        value = constant(np.full((1, 1, 1, 4), 3, np.int8), scale=0.05)
        yield Case(f"{op} constant", op, (Operand(IMAGE), value), (out,))
        deep = Operand((1, 2, 2, 8, 8, 4))
        yield Case(f"{op} rank 6", op, (deep, deep), (Operand(deep.shape, out.dtype),))


def reductions() -> Iterator[Case]:
    """Yield the cases: Reductions and ARG_MAX along each axis."""
    for op in REDUCTION:
        for axes in ((1, 2), (1,), (2,), (3,), (1, 2, 3), (0,)):
            shape = tuple(1 if i in axes else size for i, size in enumerate(IMAGE))
            for dtype in TYPES if axes in ((1, 2), (3,)) else ("INT8",):
                name = f"{op} axes {' '.join(map(str, axes))} {dtype}"
                operands = (Operand(IMAGE, dtype), ints(*axes))
                yield Case(name, op, operands, (Operand(shape, dtype),), {"keepDims": True})
        for height, width, axes in ((1, 8, (3,)), (8, 1, (3,)), (4096, 1, (1,)), (4097, 1, (1,)), (70, 70, (1, 2))):
            shape = (1, height, width, 4)
            out = tuple(1 if i in axes else size for i, size in enumerate(shape))
            name = f"{op} {height}x{width} axes {' '.join(map(str, axes))}"
            yield Case(
                name, op, (Operand(shape), ints(*axes)), (Operand(out),), {"keepDims": True})  # fmt: skip
        batch = (Operand((2, 8, 8, 4)), ints(1, 2))
        yield Case(f"{op} batch 2", op, batch, (Operand((2, 1, 1, 4)),), {"keepDims": True})
        open_axes = (Operand(IMAGE), Operand((2,), "INT32"))
        yield Case(f"{op} open axes", op, open_axes, (Operand((1, 1, 1, 4)),), {"keepDims": True})
    for op in ("ARG_MAX", "ARG_MIN"):
        for dtype in ("INT8", "UINT8"):
            operands = (Operand(IMAGE, dtype), ints(3))
            yield Case(f"{op} {dtype}", op, operands, (Operand((1, 8, 8), "INT32"),), {"outputType": 2})
        for axis in (1, 2, -1):
            shape = tuple(size for i, size in enumerate(IMAGE) if i != axis % 4)
            yield Case(
                f"{op} axis {axis}", op, (Operand(IMAGE), ints(axis)), (Operand(shape, "INT32"),), {"outputType": 2}
            )
        for channels in (127, 128):
            operands = (Operand((1, 2, 2, channels)), ints(3))
            yield Case(f"{op} of {channels}", op, operands, (Operand((1, 2, 2), "INT32"),), {"outputType": 2})
        operands = (Operand(IMAGE), ints(3))
        yield Case(f"{op} to INT64", op, operands, (Operand((1, 8, 8), "INT64"),), {"outputType": 4})
