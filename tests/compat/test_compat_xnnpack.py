"""The CPU target's op table agrees with the runtime about what XNNPACK runs."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from oneop_files import act, const, one_op_file

from edgepack.compat import check
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.profiles import get_target

SHAPE = (1, 8, 8, 4)
CONV = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
POOL = {"filterHeight": 2, "filterWidth": 2, "strideH": 2, "strideW": 2, "padding": 1}
FLOAT_ONLY = ("ABS", "CEIL", "COS", "EXP", "FLOOR", "HARD_SWISH", "LOG", "NEG", "RELU", "RELU6", "RSQRT", "SIN", "SQRT")


def weighted(dtype: str, shape: tuple[int, ...], outputs: int) -> list[dict[str, Any]]:
    if dtype == "FLOAT32":
        return [const(np.ones(shape, np.float32)), const(np.zeros(outputs, np.float32))]
    kind = np.uint8 if dtype == "UINT8" else np.int8
    return [const(np.ones(shape, kind)), const(np.zeros(outputs, np.int32), 0.02 * 0.05)]


def files(dtype: str) -> Iterator[tuple[str, bytes]]:
    """Yield one file per op and form that the runtime loads in this type."""
    x = act(SHAPE, dtype)
    low = {"INT8": -128, "UINT8": 0}.get(dtype)
    for op in FLOAT_ONLY:
        if dtype == "FLOAT32" or (dtype == "INT8" and op in {"ABS", "EXP", "HARD_SWISH", "RELU", "RELU6"}):
            yield op, one_op_file(op, [x], [x])
    yield "LOGISTIC", one_op_file("LOGISTIC", [x], [act(SHAPE, dtype, 1 / 256, low)])
    yield "LEAKY_RELU", one_op_file("LEAKY_RELU", [x], [x], {"alpha": 0.2}, "LeakyReluOptions")
    for op, table in (("ADD", "AddOptions"), ("SUB", "SubOptions"), ("MUL", "MulOptions")):
        for activation in (0, 1, 3, 4):
            options = {"fusedActivationFunction": activation}
            yield f"{op} {activation}", one_op_file(op, [x, x], [x], options, table, 2)
    for op in ("MAXIMUM", "MINIMUM"):
        yield op, one_op_file(op, [x, x], [x], {}, "MaximumMinimumOptions", 2)
    for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        yield op, one_op_file(op, [x], [act((1, 4, 4, 4), dtype)], POOL, "Pool2DOptions", 2)
    yield (
        "CONV_2D",
        one_op_file(
            "CONV_2D", [x, *weighted(dtype, (6, 3, 3, 4), 6)], [act((1, 8, 8, 6), dtype)], CONV, "Conv2DOptions", 3
        ),
    )
    yield (
        "DEPTHWISE_CONV_2D",
        one_op_file(
            "DEPTHWISE_CONV_2D",
            [x, *weighted(dtype, (1, 3, 3, 4), 4)],
            [x],
            {**CONV, "depthMultiplier": 1},
            "DepthwiseConv2DOptions",
            3,
        ),
    )
    yield (
        "FULLY_CONNECTED",
        one_op_file(
            "FULLY_CONNECTED",
            [act((1, 16), dtype), *weighted(dtype, (6, 16), 6)],
            [act((1, 6), dtype)],
            {},
            "FullyConnectedOptions",
            4,
        ),
    )
    for count in (2, 5, 6):
        out = act((1, 8, 8, 4 * count), dtype)
        yield (
            f"CONCATENATION {count}",
            one_op_file("CONCATENATION", [x] * count, [out], {"axis": 3}, "ConcatenationOptions", 2),
        )
    for op in ("MEAN", "SUM", "REDUCE_MAX"):
        yield (
            op,
            one_op_file(op, [x, const([1, 2])], [act((1, 1, 1, 4), dtype)], {"keepDims": True}, "ReducerOptions", 2),
        )
    yield (
        "MEAN of computed axes",
        one_op_file(
            "MEAN", [x, act((2,), "INT32")], [act((1, 1, 1, 4), dtype)], {"keepDims": True}, "ReducerOptions", 2
        ),
    )
    yield "RESHAPE", one_op_file("RESHAPE", [x, const([1, 256])], [act((1, 256), dtype)], {}, "ReshapeOptions")
    yield (
        "TRANSPOSE",
        one_op_file("TRANSPOSE", [x, const([0, 3, 1, 2])], [act((1, 4, 8, 8), dtype)], {}, "TransposeOptions", 2),
    )
    yield (
        "PAD",
        one_op_file(
            "PAD", [x, const([[0, 0], [1, 1], [1, 1], [0, 0]])], [act((1, 10, 10, 4), dtype)], {}, "PadOptions", 2
        ),
    )
    for op, table in (
        ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    ):
        yield op, one_op_file(op, [x, const([16, 16])], [act((1, 16, 16, 4), dtype)], {}, table, 2)
    for stride, mask in ((1, 0), (2, 0), (1, 1)):
        shape = (1, 8 // stride, 8 // stride, 4)[mask:]
        ends = [const([0, 0, 0, 0]), const([1, 8, 8, 4]), const([1, stride, stride, 1])]
        yield (
            f"STRIDED_SLICE {stride} {mask}",
            one_op_file(
                "STRIDED_SLICE", [x, *ends], [act(shape, dtype)], {"shrinkAxisMask": mask}, "StridedSliceOptions", 2
            ),
        )
    yield (
        "SPLIT",
        one_op_file(
            "SPLIT", [const(np.int32(3)), x], [act((1, 8, 8, 2), dtype)] * 2, {"numSplits": 2}, "SplitOptions", 2
        ),
    )
    yield "TILE", one_op_file("TILE", [x, const([1, 1, 1, 2])], [act((1, 8, 8, 8), dtype)], {}, "TileOptions", 2)
    yield (
        "SOFTMAX",
        one_op_file(
            "SOFTMAX", [act((1, 10), dtype)], [act((1, 10), dtype, 1 / 256, low)], {"beta": 1.0}, "SoftmaxOptions", 2
        ),
    )
    for rank in (5, 6, 7):
        wide = act((1,) * (rank - 3) + (8, 8, 4), dtype)
        yield f"ADD of rank {rank}", one_op_file("ADD", [wide, wide], [wide], {}, "AddOptions", 2)
    if dtype == "FLOAT32":
        hybrid = [const(np.ones((6, 16), np.int8)), const(np.zeros(6, np.float32))]
        yield (
            "FULLY_CONNECTED hybrid",
            one_op_file(
                "FULLY_CONNECTED",
                [act((1, 16), dtype), *hybrid],
                [act((1, 6), dtype)],
                {"asymmetricQuantizeInputs": True},
                "FullyConnectedOptions",
                9,
            ),
        )
        yield (
            "SOFTMAX of beta 2",
            one_op_file("SOFTMAX", [act((1, 10), dtype)], [act((1, 10), dtype)], {"beta": 2.0}, "SoftmaxOptions"),
        )


CASES = [
    pytest.param(data, id=f"{dtype} {name}") for dtype in ("FLOAT32", "INT8", "UINT8") for name, data in files(dtype)
]


@pytest.mark.parametrize("data", CASES)
def test_the_table_says_what_xnnpack_does(data: bytes) -> None:
    """The check places an op on the accelerator exactly when the runtime delegates it to XNNPACK."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    delegated = any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details())
    finding = check(read_model(data), get_target("cpu")).ops[0]
    assert (finding.placement is Placement.ACCELERATOR) == delegated, finding
