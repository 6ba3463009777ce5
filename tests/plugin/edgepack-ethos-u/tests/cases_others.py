"""Cases of the battery: further ops, and cases that were added after the op tables were written."""

from collections.abc import Iterator

import numpy as np

from .op_files import IMAGE, TYPES, Case, Operand, constant, ints


def others() -> Iterator[Case]:
    """Yield the cases: SOFTMAX, CAST, SCATTER_ND and ops that no NPU has."""
    for dtype in TYPES:
        yield Case(f"SOFTMAX {dtype}", "SOFTMAX", (Operand(IMAGE, dtype),), (Operand(IMAGE, dtype),), {"beta": 1.0})
    for size in (255, 256, 257):
        image = Operand((1, size, size, 4))
        yield Case(f"SOFTMAX {size}x{size}", "SOFTMAX", (image,), (image,), {"beta": 1.0})
    for source, target in (
        ("INT8", "INT16"),
        ("INT8", "INT32"),
        ("INT16", "INT8"),
        ("INT32", "INT8"),
        ("BOOL", "INT8"),
        ("UINT8", "INT8"),
        ("INT32", "INT64"),
    ):
        yield Case(f"CAST {source} to {target}", "CAST", (Operand(IMAGE, source),), (Operand(IMAGE, target),))
    yield Case("SELECT_V2", "SELECT_V2", (Operand(IMAGE, "BOOL"), Operand(IMAGE), Operand(IMAGE)), (Operand(IMAGE),))
    yield Case("TOPK_V2", "TOPK_V2", (Operand((1, 8)), ints(2)), (Operand((1, 2)), Operand((1, 2), "INT32")))
    yield Case("CUMSUM", "CUMSUM", (Operand((1, 8)), ints(1)), (Operand((1, 8)),))
    yield Case("SHAPE", "SHAPE", (Operand(IMAGE),), (Operand((4,), "INT32"),), {"outType": 2})
    yield Case("GATHER_ND", "GATHER_ND", (Operand((8, 4)), constant(np.zeros((2, 1), np.int32))), (Operand((2, 4)),))
    for name, indices in (("", [[0], [2]]), (" repeated", [[1], [1]]), (" of rank 2", [[0, 1], [2, 1]])):
        last = len(indices[0])
        updates = Operand((2, 4)) if last == 1 else Operand((2,))
        operands = (constant(np.array(indices, np.int32)), updates, ints(8, 4))
        yield Case(f"SCATTER_ND{name}", "SCATTER_ND", operands, (Operand((8, 4)),))
    yield Case(
        "SPACE_TO_BATCH_ND",
        "SPACE_TO_BATCH_ND",
        (Operand(IMAGE), ints(2, 2), constant(np.zeros((2, 2), np.int32))),
        (Operand((4, 4, 4, 4)),),
    )
    yield Case(
        "BATCH_TO_SPACE_ND",
        "BATCH_TO_SPACE_ND",
        (Operand((4, 4, 4, 4)), ints(2, 2), constant(np.zeros((2, 2), np.int32))),
        (Operand(IMAGE),),
    )
    yield Case("LOG_SOFTMAX", "LOG_SOFTMAX", (Operand((1, 8)),), (Operand((1, 8)),))
    yield Case("L2_NORMALIZATION", "L2_NORMALIZATION", (Operand((1, 8)),), (Operand((1, 8)),))


def held_out() -> Iterator[Case]:
    """Cases that were added after the op tables were written, to judge them."""
    for dtype in (*TYPES, "INT64"):
        image = Operand(IMAGE, dtype)
        yield Case(
            f"GATHER axis 0 {dtype}", "GATHER", (image, ints(0, 0)), (Operand((2, 8, 8, 4), dtype),), {"axis": 0}
        )
        operands = (Operand(IMAGE, "BOOL"), image, image)
        yield Case(f"SELECT_V2 {dtype}", "SELECT_V2", operands, (image,))
        yield Case(f"SELECT {dtype}", "SELECT", operands, (image,))
        one = constant(np.array([[0], [2]], np.int32))
        yield Case(
            f"SCATTER_ND {dtype}", "SCATTER_ND", (one, Operand((2, 4), dtype), ints(8, 4)), (Operand((8, 4), dtype),)
        )
    for source in ("INT8", "INT16", "INT32"):
        for target in ("UINT8", "BOOL", "FLOAT32"):
            yield Case(f"CAST {source} to {target}", "CAST", (Operand(IMAGE, source),), (Operand(IMAGE, target),))
    yield Case(
        "ARG_MAX axis 0", "ARG_MAX", (Operand((4, 8, 8, 4)), ints(0)), (Operand((8, 8, 4), "INT32"),), {"outputType": 2}
    )
    yield Case("RESHAPE open shape", "RESHAPE", (Operand(IMAGE), Operand((3,), "INT32")), (Operand((1, 64, 4)),))
    for stride_h, stride_w, kernel in ((1, 2, 3), (2, 1, 3), (3, 2, 5), (2, 4, 4)):
        out = Operand((1, 8 * stride_h, 8 * stride_w, 8))
        operands = (
            ints(*out.shape), constant(np.ones((8, kernel, kernel, 4), np.int8), scale=0.02), Operand(IMAGE),
            constant(np.zeros(8, np.int32), scale=0.001),
        )  # fmt: skip
        options = {"strideH": stride_h, "strideW": stride_w, "padding": 0}
        yield Case(f"TRANSPOSE_CONV {stride_h}x{stride_w}", "TRANSPOSE_CONV", operands, (out,), options)
    for stride_h, stride_w in ((1, 4), (4, 1), (8, 8), (3, 5)):
        out = Operand((1, -(-16 // stride_h), -(-16 // stride_w), 8))
        operands = (
            Operand((1, 16, 16, 4)), constant(np.ones((8, 3, 3, 4), np.int8), scale=0.02),
            constant(np.zeros(8, np.int32), scale=0.001),
        )  # fmt: skip
        options = {"strideH": stride_h, "strideW": stride_w, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0}
        yield Case(f"CONV_2D {stride_h}x{stride_w}", "CONV_2D", operands, (out,), options)
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for height, width in ((8, 16), (16, 8), (40, 40), (8, 24), (12, 12)):
            yield Case(
                f"{op} {height}x{width} held out",
                op,
                (Operand(IMAGE), ints(height, width)),
                (Operand((1, height, width, 4)),),
            )
    for shape, axes in (
        ((1, 8, 1, 4), (1, 3)),
        ((1, 1, 8, 4), (2, 3)),
        ((1, 8, 4), (1,)),
        ((8, 4), (1,)),
        ((8, 4), (0,)),
    ):
        out = tuple(1 if i in axes else size for i, size in enumerate(shape))
        name = "x".join(map(str, shape))
        for op in ("MEAN", "SUM", "REDUCE_MAX"):
            yield Case(
                f"{op} of {name} axes {axes}", op, (Operand(shape), ints(*axes)), (Operand(out),), {"keepDims": True}
            )
    for rank in (3, 5):
        shape = (2, 3, 4, 5, 6)[:rank]
        permutation = tuple(reversed(range(rank)))
        yield Case(f"TRANSPOSE rank {rank}", "TRANSPOSE", (Operand(shape), ints(*permutation)), (Operand(shape[::-1]),))
        pads = constant(np.array([[1, 1]] * rank, np.int32))
        yield Case(f"PAD rank {rank}", "PAD", (Operand(shape), pads), (Operand(tuple(size + 2 for size in shape)),))
        yield Case(
            f"SLICE rank {rank}",
            "SLICE",
            (Operand(shape), ints(*[1] * rank), ints(*[1] * rank)),
            (Operand((1,) * rank),),
        )
        yield Case(
            f"CONCATENATION rank {rank}",
            "CONCATENATION",
            (Operand(shape), Operand(shape)),
            (Operand((4, *shape[1:])),),
            {"axis": 0},
        )
        yield Case(f"SOFTMAX rank {rank}", "SOFTMAX", (Operand(shape),), (Operand(shape),), {"beta": 1.0})
        yield Case(
            f"MIRROR_PAD rank {rank}",
            "MIRROR_PAD",
            (Operand(shape), pads),
            (Operand(tuple(size + 2 for size in shape)),),
            {"mode": 1},
        )
