"""Cases of the battery: ops that move data."""

from collections.abc import Iterator

import numpy as np

from .op_files import IMAGE, MORE_TYPES, Case, Operand, constant, ints


def movements() -> Iterator[Case]:
    """Yield the cases: Reshapes, joins, permutations, paddings."""
    for dtype in MORE_TYPES:
        image = Operand(IMAGE, dtype)
        yield Case(
            f"RESHAPE {dtype}",
            "RESHAPE",
            (image, ints(1, 64, 4)),
            (Operand((1, 64, 4), dtype),),
            {"newShape": [1, 64, 4]},
        )
        yield Case(f"SQUEEZE {dtype}", "SQUEEZE", (image,), (Operand((8, 8, 4), dtype),), {"squeezeDims": [0]})
        yield Case(f"EXPAND_DIMS {dtype}", "EXPAND_DIMS", (Operand((8, 8, 4), dtype), ints(0)), (image,))
        yield Case(
            f"PACK {dtype}",
            "PACK",
            (Operand((8, 4), dtype),) * 2,
            (Operand((2, 8, 4), dtype),),
            {"valuesCount": 2, "axis": 0},
        )
        yield Case(
            f"UNPACK {dtype}",
            "UNPACK",
            (Operand((2, 8, 4), dtype),),
            (Operand((8, 4), dtype),) * 2,
            {"num": 2, "axis": 0},
        )
        yield Case(f"SPLIT {dtype}", "SPLIT", (ints(3), image), (Operand((1, 8, 8, 2), dtype),) * 2, {"numSplits": 2})
        parts = (Operand((1, 8, 8, 1), dtype), Operand((1, 8, 8, 3), dtype))
        yield Case(f"SPLIT_V {dtype}", "SPLIT_V", (image, ints(1, 3), ints(3)), parts, {"numSplits": 2})
        yield Case(
            f"CONCATENATION {dtype}", "CONCATENATION", (image, image), (Operand((1, 8, 8, 8), dtype),), {"axis": 3}
        )
        yield Case(f"TILE {dtype}", "TILE", (image, ints(1, 2, 1, 1)), (Operand((1, 16, 8, 4), dtype),))
        yield Case(f"TRANSPOSE {dtype}", "TRANSPOSE", (image, ints(0, 3, 1, 2)), (Operand((1, 4, 8, 8), dtype),))
        yield Case(f"REVERSE_V2 {dtype}", "REVERSE_V2", (image, ints(1)), (image,))
        yield Case(f"GATHER {dtype}", "GATHER", (image, ints(1, 3)), (Operand((1, 2, 8, 4), dtype),), {"axis": 1})
        pads = ints(0, 0, 1, 1, 2, 2, 0, 0)
        pads = constant(pads.values.reshape(4, 2))
        padded = Operand((1, 10, 12, 4), dtype)
        yield Case(f"PAD {dtype}", "PAD", (image, pads), (padded,))
        yield Case(f"MIRROR_PAD {dtype}", "MIRROR_PAD", (image, pads), (padded,), {"mode": 0})
        # NumPy has every type of these but a boolean's constant is one byte.
        kind = {"BOOL": "bool"}.get(dtype, dtype.lower())
        yield Case(f"PADV2 {dtype}", "PADV2", (image, pads, constant(np.zeros(1, kind), dtype, 0.05)), (padded,))
        yield Case(
            f"DEPTH_TO_SPACE {dtype}", "DEPTH_TO_SPACE", (image,), (Operand((1, 16, 16, 1), dtype),), {"blockSize": 2}
        )
        yield Case(
            f"SPACE_TO_DEPTH {dtype}", "SPACE_TO_DEPTH", (image,), (Operand((1, 4, 4, 16), dtype),), {"blockSize": 2}
        )
        yield Case(f"BROADCAST_TO {dtype}", "BROADCAST_TO", (Operand((1, 1, 8, 4), dtype), ints(*IMAGE)), (image,))
    for permutation in ((0, 1, 3, 2), (0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 2, 1), (3, 1, 2, 0)):
        shape = tuple(IMAGE[axis] for axis in permutation)
        for dtype in ("INT8", "INT32"):
            yield Case(
                f"TRANSPOSE {permutation} {dtype}",
                "TRANSPOSE",
                (Operand(IMAGE, dtype), ints(*permutation)),
                (Operand(shape, dtype),),
            )
    deep = (1, 2, 3, 2, 3, 2)
    yield Case("TRANSPOSE rank 6", "TRANSPOSE", (Operand(deep), ints(5, 4, 3, 2, 1, 0)), (Operand(deep[::-1]),))
    for axis in (0, 1, 2, 3):
        yield Case(f"REVERSE_V2 axis {axis}", "REVERSE_V2", (Operand(IMAGE), ints(axis)), (Operand(IMAGE),))
    for axis, batch in ((0, 0), (1, 1), (1, 0), (2, 0), (3, 0)):
        shape = tuple(2 if i == axis else size for i, size in enumerate(IMAGE))
        indices = constant(np.zeros((1, 2), np.int32)) if batch else ints(0, 0)
        options = {"axis": axis, "batchDims": batch}
        yield Case(f"GATHER axis {axis} batch {batch}", "GATHER", (Operand(IMAGE), indices), (Operand(shape),), options)
    open_indices = Operand((2,), "INT32")
    yield Case("GATHER open indices", "GATHER", (Operand((8, 4)), open_indices), (Operand((2, 4)),), {"axis": 0})
    yield Case(
        "CONCATENATION rescaled",
        "CONCATENATION",
        (Operand(IMAGE), Operand(IMAGE, scale=0.1)),
        (Operand((1, 8, 8, 8), scale=0.1),),
        {"axis": 3},
    )
    yield Case(
        "PAD channels",
        "PAD",
        (Operand(IMAGE), constant(np.array([[0, 0], [0, 0], [0, 0], [1, 1]], np.int32))),
        (Operand((1, 8, 8, 6)),),
    )
    yield Case(
        "PAD INT64 pads",
        "PAD",
        (Operand(IMAGE), constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int64))),
        (Operand((1, 10, 10, 4)),),
    )
    yield Case(
        "PAD batch",
        "PAD",
        (Operand(IMAGE), constant(np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.int32))),
        (Operand((2, 8, 8, 4)),),
    )
    yield Case("PAD open", "PAD", (Operand(IMAGE), Operand((4, 2), "INT32")), (Operand((1, 10, 10, 4)),))


def slices() -> Iterator[Case]:
    """Yield the cases: SLICE and STRIDED_SLICE."""
    for dtype in MORE_TYPES:
        image, out = Operand(IMAGE, dtype), Operand((1, 4, 4, 2), dtype)
        yield Case(f"SLICE {dtype}", "SLICE", (image, ints(0, 1, 1, 1), ints(1, 4, 4, 2)), (out,))
        operands = (image, ints(0, 0, 0, 0), ints(1, 4, 4, 2), ints(1, 1, 1, 1))
        yield Case(f"STRIDED_SLICE {dtype}", "STRIDED_SLICE", operands, (out,))
    open_begin = (Operand(IMAGE), Operand((4,), "INT32"), ints(1, 4, 4, 2))
    yield Case("SLICE open", "SLICE", open_begin, (Operand((1, 4, 4, 2)),))
    for name, begin, end, strides, shape in (
        ("rows", (0, 0, 0, 0), (1, 8, 8, 4), (1, 2, 2, 1), (1, 4, 4, 4)),
        ("channels", (0, 0, 0, 0), (1, 8, 8, 4), (1, 1, 1, 2), (1, 8, 8, 2)),
        ("backwards", (0, 7, 0, 0), (1, 0, 8, 4), (1, -1, 1, 1), (1, 7, 8, 4)),
        ("strides 3", (0, 0, 0, 0), (1, 8, 8, 4), (1, 3, 3, 1), (1, 3, 3, 4)),
    ):
        operands = (Operand(IMAGE), ints(*begin), ints(*end), ints(*strides))
        yield Case(f"STRIDED_SLICE {name}", "STRIDED_SLICE", operands, (Operand(shape),))
