"""The battery: single ops on both sides of Vela's limits, with the data types, ranks and axes that decide.

`python tests/battery.py U85` asks Vela about every case and prints where the check of the same op disagrees.
"""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .op_files import Case, Operand, constant

TYPES = ("INT8", "UINT8", "INT16", "INT32")
#: Further types, only for ops that may have them.
MORE_TYPES = (*TYPES, "INT64", "BOOL")
IMAGE = (1, 8, 8, 4)

UNARY: Mapping[str, str] = {
    "ABS": "AbsOptions", "CEIL": "", "COS": "CosOptions", "ELU": "", "EXP": "ExpOptions", "FLOOR": "",
    "GELU": "GeluOptions", "HARD_SWISH": "HardSwishOptions", "LEAKY_RELU": "LeakyReluOptions", "LOG": "",
    "LOGICAL_NOT": "LogicalNotOptions", "LOGISTIC": "", "NEG": "NegOptions", "QUANTIZE": "QuantizeOptions", "RELU": "",
    "RELU6": "", "RELU_0_TO_1": "", "RELU_N1_TO_1": "", "ROUND": "", "RSQRT": "", "SIGN": "SignOptions", "SIN": "",
    "SQRT": "", "SQUARE": "SquareOptions", "TANH": "", "ZEROS_LIKE": "ZerosLikeOptions",
}  # fmt: skip
BINARY: Mapping[str, str] = {
    "ADD": "AddOptions", "DIV": "DivOptions", "FLOOR_DIV": "FloorDivOptions", "FLOOR_MOD": "FloorModOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions", "MUL": "MulOptions", "POW": "PowOptions",
    "PRELU": "", "SQUARED_DIFFERENCE": "SquaredDifferenceOptions", "SUB": "SubOptions",
}  # fmt: skip
COMPARISON: Mapping[str, str] = {
    "EQUAL": "EqualOptions", "GREATER": "GreaterOptions", "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions", "LESS_EQUAL": "LessEqualOptions", "NOT_EQUAL": "NotEqualOptions",
}  # fmt: skip
LOGICAL: Mapping[str, str] = {"LOGICAL_AND": "LogicalAndOptions", "LOGICAL_OR": "LogicalOrOptions"}
REDUCTION = ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD")


def cases() -> list[Case]:
    """Return the battery, in a fixed order."""
    groups = (_elementwise, _reductions, _movements, _slices, _convolutions, _products, _pools, _resizes, _others, _held_out)
    return [case for group in groups for case in group()]


def _ints(*values: int, dtype: str = "int32") -> Operand:
    return constant(np.array(values, dtype))


def _elementwise() -> Iterator[Case]:
    for op, table in UNARY.items():
        options: dict[str, Any] = {"alpha": 0.1} if op == "LEAKY_RELU" else {}
        for dtype in ("BOOL",) if op == "LOGICAL_NOT" else TYPES:
            image = Operand(IMAGE, dtype)
            yield Case(f"{op} {dtype}", op, (image,), (image,), options, table)
        if op == "LOGICAL_NOT":
            continue
        for target in ("INT16", "UINT8", "INT32") if op == "QUANTIZE" else ():
            yield Case(f"{op} INT8 to {target}", op, (Operand(IMAGE),), (Operand(IMAGE, target),), options, table)
        # The operator's own rescaling, ranks beyond four.
        yield Case(f"{op} rescaled", op, (Operand(IMAGE),), (Operand(IMAGE, scale=0.1),), options, table)
        deep = Operand((1, 2, 2, 8, 8, 4))
        yield Case(f"{op} rank 6", op, (deep,), (deep,), options, table)
    for op, table in (BINARY | COMPARISON | LOGICAL).items():
        for dtype in ("BOOL",) if op in LOGICAL else (*TYPES, "INT64"):
            image = Operand(IMAGE, dtype)
            out = Operand(IMAGE, "BOOL") if op in COMPARISON else image
            yield Case(f"{op} {dtype}", op, (image, image), (out,), {}, table)
            line = Operand((4,), dtype)
            yield Case(f"{op} {dtype} broadcast", op, (image, line), (out,), {}, table)
        if op in LOGICAL:
            continue
        out = Operand(IMAGE, "BOOL") if op in COMPARISON else Operand(IMAGE)
        yield Case(f"{op} both broadcast", op, (Operand((1, 8, 1, 4)), Operand((1, 1, 8, 4))), (out,), {}, table)
        yield Case(f"{op} batch 2", op, (Operand((2, 8, 8, 4)), Operand(IMAGE)), (Operand((2, 8, 8, 4), out.dtype),), {}, table)
        yield Case(f"{op} rescaled", op, (Operand(IMAGE, scale=0.1), Operand(IMAGE)), (out,), {}, table)
        value = constant(np.full((1, 1, 1, 4), 3, np.int8), scale=0.05)
        yield Case(f"{op} constant", op, (Operand(IMAGE), value), (out,), {}, table)
        deep = Operand((1, 2, 2, 8, 8, 4))
        yield Case(f"{op} rank 6", op, (deep, deep), (Operand(deep.shape, out.dtype),), {}, table)


def _reductions() -> Iterator[Case]:
    for op in REDUCTION:
        for axes in ((1, 2), (1,), (2,), (3,), (1, 2, 3), (0,)):
            shape = tuple(1 if i in axes else size for i, size in enumerate(IMAGE))
            for dtype in TYPES if axes in ((1, 2), (3,)) else ("INT8",):
                name = f"{op} axes {' '.join(map(str, axes))} {dtype}"
                operands = (Operand(IMAGE, dtype), _ints(*axes))
                yield Case(name, op, operands, (Operand(shape, dtype),), {"keepDims": True}, "ReducerOptions")
        for height, width, axes in ((1, 8, (3,)), (8, 1, (3,)), (4096, 1, (1,)), (4097, 1, (1,)), (70, 70, (1, 2))):
            shape = (1, height, width, 4)
            out = tuple(1 if i in axes else size for i, size in enumerate(shape))
            name = f"{op} {height}x{width} axes {' '.join(map(str, axes))}"
            yield Case(
                name, op, (Operand(shape), _ints(*axes)), (Operand(out),), {"keepDims": True}, "ReducerOptions"
            )  # fmt: skip
        batch = (Operand((2, 8, 8, 4)), _ints(1, 2))
        yield Case(f"{op} batch 2", op, batch, (Operand((2, 1, 1, 4)),), {"keepDims": True}, "ReducerOptions")
        open_axes = (Operand(IMAGE), Operand((2,), "INT32"))
        yield Case(f"{op} open axes", op, open_axes, (Operand((1, 1, 1, 4)),), {"keepDims": True}, "ReducerOptions")
    for op in ("ARG_MAX", "ARG_MIN"):
        for dtype in ("INT8", "UINT8"):
            operands = (Operand(IMAGE, dtype), _ints(3))
            yield Case(f"{op} {dtype}", op, operands, (Operand((1, 8, 8), "INT32"),), {"outputType": 2}, f"{_camel(op)}Options")
        for axis in (1, 2, -1):
            shape = tuple(size for i, size in enumerate(IMAGE) if i != axis % 4)
            yield Case(f"{op} axis {axis}", op, (Operand(IMAGE), _ints(axis)), (Operand(shape, "INT32"),), {"outputType": 2}, f"{_camel(op)}Options")
        for channels in (127, 128):
            operands = (Operand((1, 2, 2, channels)), _ints(3))
            yield Case(f"{op} of {channels}", op, operands, (Operand((1, 2, 2), "INT32"),), {"outputType": 2}, f"{_camel(op)}Options")
        operands = (Operand(IMAGE), _ints(3))
        yield Case(f"{op} to INT64", op, operands, (Operand((1, 8, 8), "INT64"),), {"outputType": 4}, f"{_camel(op)}Options")


def _camel(op: str) -> str:
    return "".join(part.capitalize() for part in op.split("_"))


def _movements() -> Iterator[Case]:
    for dtype in MORE_TYPES:
        image = Operand(IMAGE, dtype)
        yield Case(f"RESHAPE {dtype}", "RESHAPE", (image, _ints(1, 64, 4)), (Operand((1, 64, 4), dtype),), {"newShape": [1, 64, 4]}, "ReshapeOptions")
        yield Case(f"SQUEEZE {dtype}", "SQUEEZE", (image,), (Operand((8, 8, 4), dtype),), {"squeezeDims": [0]}, "SqueezeOptions")
        yield Case(f"EXPAND_DIMS {dtype}", "EXPAND_DIMS", (Operand((8, 8, 4), dtype), _ints(0)), (image,), {}, "ExpandDimsOptions")
        yield Case(f"PACK {dtype}", "PACK", (Operand((8, 4), dtype),) * 2, (Operand((2, 8, 4), dtype),), {"valuesCount": 2, "axis": 0}, "PackOptions")
        yield Case(f"UNPACK {dtype}", "UNPACK", (Operand((2, 8, 4), dtype),), (Operand((8, 4), dtype),) * 2, {"num": 2, "axis": 0}, "UnpackOptions")
        yield Case(f"SPLIT {dtype}", "SPLIT", (_ints(3), image), (Operand((1, 8, 8, 2), dtype),) * 2, {"numSplits": 2}, "SplitOptions")
        parts = (Operand((1, 8, 8, 1), dtype), Operand((1, 8, 8, 3), dtype))
        yield Case(f"SPLIT_V {dtype}", "SPLIT_V", (image, _ints(1, 3), _ints(3)), parts, {"numSplits": 2}, "SplitVOptions")
        yield Case(f"CONCATENATION {dtype}", "CONCATENATION", (image, image), (Operand((1, 8, 8, 8), dtype),), {"axis": 3}, "ConcatenationOptions")
        yield Case(f"TILE {dtype}", "TILE", (image, _ints(1, 2, 1, 1)), (Operand((1, 16, 8, 4), dtype),), {}, "TileOptions")
        yield Case(f"TRANSPOSE {dtype}", "TRANSPOSE", (image, _ints(0, 3, 1, 2)), (Operand((1, 4, 8, 8), dtype),), {}, "TransposeOptions")
        yield Case(f"REVERSE_V2 {dtype}", "REVERSE_V2", (image, _ints(1)), (image,), {}, "ReverseV2Options")
        yield Case(f"GATHER {dtype}", "GATHER", (image, _ints(1, 3)), (Operand((1, 2, 8, 4), dtype),), {"axis": 1}, "GatherOptions")
        pads = _ints(0, 0, 1, 1, 2, 2, 0, 0)
        pads = constant(pads.values.reshape(4, 2))
        padded = Operand((1, 10, 12, 4), dtype)
        yield Case(f"PAD {dtype}", "PAD", (image, pads), (padded,), {}, "PadOptions")
        yield Case(f"MIRROR_PAD {dtype}", "MIRROR_PAD", (image, pads), (padded,), {"mode": 0}, "MirrorPadOptions")
        # NumPy has every type of these but a boolean's constant is one byte.
        kind = {"BOOL": "bool"}.get(dtype, dtype.lower())
        yield Case(f"PADV2 {dtype}", "PADV2", (image, pads, constant(np.zeros(1, kind), dtype, 0.05)), (padded,), {}, "PadV2Options")
        yield Case(f"DEPTH_TO_SPACE {dtype}", "DEPTH_TO_SPACE", (image,), (Operand((1, 16, 16, 1), dtype),), {"blockSize": 2}, "DepthToSpaceOptions")
        yield Case(f"SPACE_TO_DEPTH {dtype}", "SPACE_TO_DEPTH", (image,), (Operand((1, 4, 4, 16), dtype),), {"blockSize": 2}, "SpaceToDepthOptions")
        yield Case(f"BROADCAST_TO {dtype}", "BROADCAST_TO", (Operand((1, 1, 8, 4), dtype), _ints(*IMAGE)), (image,), {}, "BroadcastToOptions")
    for permutation in ((0, 1, 3, 2), (0, 2, 1, 3), (0, 2, 3, 1), (0, 3, 2, 1), (3, 1, 2, 0)):
        shape = tuple(IMAGE[axis] for axis in permutation)
        for dtype in ("INT8", "INT32"):
            yield Case(f"TRANSPOSE {permutation} {dtype}", "TRANSPOSE", (Operand(IMAGE, dtype), _ints(*permutation)), (Operand(shape, dtype),), {}, "TransposeOptions")
    deep = (1, 2, 3, 2, 3, 2)
    yield Case("TRANSPOSE rank 6", "TRANSPOSE", (Operand(deep), _ints(5, 4, 3, 2, 1, 0)), (Operand(deep[::-1]),), {}, "TransposeOptions")
    for axis in (0, 1, 2, 3):
        yield Case(f"REVERSE_V2 axis {axis}", "REVERSE_V2", (Operand(IMAGE), _ints(axis)), (Operand(IMAGE),), {}, "ReverseV2Options")
    for axis, batch in ((0, 0), (1, 1), (1, 0), (2, 0), (3, 0)):
        shape = tuple(2 if i == axis else size for i, size in enumerate(IMAGE))
        indices = constant(np.zeros((1, 2), np.int32)) if batch else _ints(0, 0)
        options = {"axis": axis, "batchDims": batch}
        yield Case(f"GATHER axis {axis} batch {batch}", "GATHER", (Operand(IMAGE), indices), (Operand(shape),), options, "GatherOptions")
    open_indices = Operand((2,), "INT32")
    yield Case("GATHER open indices", "GATHER", (Operand((8, 4)), open_indices), (Operand((2, 4)),), {"axis": 0}, "GatherOptions")
    yield Case("CONCATENATION rescaled", "CONCATENATION", (Operand(IMAGE), Operand(IMAGE, scale=0.1)), (Operand((1, 8, 8, 8), scale=0.1),), {"axis": 3}, "ConcatenationOptions")
    yield Case("PAD channels", "PAD", (Operand(IMAGE), constant(np.array([[0, 0], [0, 0], [0, 0], [1, 1]], np.int32))), (Operand((1, 8, 8, 6)),), {}, "PadOptions")
    yield Case("PAD INT64 pads", "PAD", (Operand(IMAGE), constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int64))), (Operand((1, 10, 10, 4)),), {}, "PadOptions")
    yield Case("PAD batch", "PAD", (Operand(IMAGE), constant(np.array([[1, 0], [0, 0], [0, 0], [0, 0]], np.int32))), (Operand((2, 8, 8, 4)),), {}, "PadOptions")
    yield Case("PAD open", "PAD", (Operand(IMAGE), Operand((4, 2), "INT32")), (Operand((1, 10, 10, 4)),), {}, "PadOptions")


def _slices() -> Iterator[Case]:
    for dtype in MORE_TYPES:
        image, out = Operand(IMAGE, dtype), Operand((1, 4, 4, 2), dtype)
        yield Case(f"SLICE {dtype}", "SLICE", (image, _ints(0, 1, 1, 1), _ints(1, 4, 4, 2)), (out,), {}, "SliceOptions")
        operands = (image, _ints(0, 0, 0, 0), _ints(1, 4, 4, 2), _ints(1, 1, 1, 1))
        yield Case(f"STRIDED_SLICE {dtype}", "STRIDED_SLICE", operands, (out,), {}, "StridedSliceOptions")
    open_begin = (Operand(IMAGE), Operand((4,), "INT32"), _ints(1, 4, 4, 2))
    yield Case("SLICE open", "SLICE", open_begin, (Operand((1, 4, 4, 2)),), {}, "SliceOptions")
    for name, begin, end, strides, shape in (
        ("rows", (0, 0, 0, 0), (1, 8, 8, 4), (1, 2, 2, 1), (1, 4, 4, 4)),
        ("channels", (0, 0, 0, 0), (1, 8, 8, 4), (1, 1, 1, 2), (1, 8, 8, 2)),
        ("backwards", (0, 7, 0, 0), (1, 0, 8, 4), (1, -1, 1, 1), (1, 7, 8, 4)),
        ("strides 3", (0, 0, 0, 0), (1, 8, 8, 4), (1, 3, 3, 1), (1, 3, 3, 4)),
    ):
        operands = (Operand(IMAGE), _ints(*begin), _ints(*end), _ints(*strides))
        yield Case(f"STRIDED_SLICE {name}", "STRIDED_SLICE", operands, (Operand(shape),), {}, "StridedSliceOptions")


def _window(size: int, kernel: int, stride: int, dilation: int = 1, same: bool = False) -> int:
    return -(-size // stride) if same else (size - (kernel - 1) * dilation - 1) // stride + 1


def _convolutions() -> Iterator[Case]:
    for name, kernel, stride, dilation, same, size in (
        ("3x3", 3, 1, 1, True, 16), ("stride 2", 3, 2, 1, True, 16), ("stride 3", 3, 3, 1, True, 16),
        ("stride 4", 5, 4, 1, True, 16), ("stride 4 VALID", 3, 4, 1, False, 16), ("dilated", 3, 1, 2, False, 16),
        ("dilated, stride 4", 3, 4, 2, False, 16), ("stride 4, no padding", 4, 4, 1, True, 16),
        ("64x64", 64, 1, 1, False, 80), ("65x65", 65, 1, 1, False, 80), ("stride 5", 5, 5, 1, True, 16),
    ):  # fmt: skip
        out = _window(size, kernel, stride, dilation, same)
        steps = {"strideH": stride, "strideW": stride, "dilationHFactor": dilation, "dilationWFactor": dilation}
        options = {**steps, "padding": 0 if same else 1}
        for dtype in ("INT8", "UINT8", "INT16") if name in ("3x3", "stride 4") else ("INT8",):
            kind = "uint8" if dtype == "UINT8" else "int8"
            bias = constant(np.zeros(8, np.int64 if dtype == "INT16" else np.int32), scale=0.001)
            image = Operand((1, size, size, 4), dtype)
            weights = constant(np.ones((8, kernel, kernel, 4), kind), scale=0.02)
            yield Case(f"CONV_2D {name} {dtype}", "CONV_2D", (image, weights, bias), (Operand((1, out, out, 8), dtype),), options, "Conv2DOptions")
            weights = constant(np.ones((1, kernel, kernel, 4), kind), scale=0.02)
            bias = constant(bias.values[:4], scale=0.001)
            yield Case(
                f"DEPTHWISE_CONV_2D {name} {dtype}", "DEPTHWISE_CONV_2D", (image, weights, bias),
                (Operand((1, out, out, 4), dtype),), {**options, "depthMultiplier": 1}, "DepthwiseConv2DOptions",
            )  # fmt: skip
    image, plain = Operand((1, 16, 16, 4)), {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0}
    weights = constant(np.ones((8, 3, 3, 4), np.int8), scale=0.02)
    yield Case("CONV_2D no bias", "CONV_2D", (image, weights, None), (Operand((1, 16, 16, 8)),), plain, "Conv2DOptions")
    yield Case("CONV_2D batch 2", "CONV_2D", (Operand((2, 16, 16, 4)), weights, constant(np.zeros(8, np.int32), scale=0.001)), (Operand((2, 16, 16, 8)),), plain, "Conv2DOptions")
    wide = constant(np.full((2, 3, 3, 4), 127, np.int8), scale=0.02)
    yield Case("CONV_2D open weights", "CONV_2D", (image, Operand((2, 3, 3, 4)), constant(np.zeros(2, np.int32), scale=0.001)), (Operand((1, 16, 16, 2)),), plain, "Conv2DOptions")
    yield Case("CONV_2D open bias", "CONV_2D", (image, wide, Operand((2,), "INT32")), (Operand((1, 16, 16, 2)),), plain, "Conv2DOptions")
    for name, stride, same, kernel in (("2", 2, True, 3), ("1", 1, True, 3), ("3", 3, True, 3), ("2 VALID", 2, False, 3), ("4", 4, True, 4)):
        out = 8 * stride if same else (8 - 1) * stride + kernel
        for dtype in ("INT8", "INT16") if name == "2" else ("INT8",):
            operands = (
                _ints(1, out, out, 8), constant(np.ones((8, kernel, kernel, 4), np.int8), scale=0.02), Operand(IMAGE, dtype),
                constant(np.zeros(8, np.int64 if dtype == "INT16" else np.int32), scale=0.001),
            )  # fmt: skip
            options = {"strideH": stride, "strideW": stride, "padding": 0 if same else 1}
            yield Case(f"TRANSPOSE_CONV stride {name} {dtype}", "TRANSPOSE_CONV", operands, (Operand((1, out, out, 8), dtype),), options, "TransposeConvOptions")


def _products() -> Iterator[Case]:
    for dtype in TYPES:
        wide = np.int64 if dtype == "INT16" else np.int32
        kind = "uint8" if dtype == "UINT8" else "int8"
        operands = (Operand((1, 32), dtype), constant(np.ones((8, 32), kind), scale=0.02), constant(np.zeros(8, wide), scale=0.001))
        yield Case(f"FULLY_CONNECTED {dtype}", "FULLY_CONNECTED", operands, (Operand((1, 8), dtype),), {}, "FullyConnectedOptions")
        left, right = Operand((1, 4, 8, 16), dtype), Operand((1, 4, 16, 8), dtype)
        yield Case(f"BATCH_MATMUL {dtype}", "BATCH_MATMUL", (left, right), (Operand((1, 4, 8, 8), dtype),), {}, "BatchMatMulOptions")
    weights = constant(np.ones((8, 32), np.int8), scale=0.02)
    bias = constant(np.zeros(8, np.int32), scale=0.001)
    for name, shape in (("rank 3", (1, 4, 32)), ("rank 4", (1, 2, 2, 32)), ("batch 4", (4, 32))):
        out = Operand((*shape[:-1], 8))
        yield Case(f"FULLY_CONNECTED {name}", "FULLY_CONNECTED", (Operand(shape), weights, bias), (out,), {"keepNumDims": len(shape) > 2}, "FullyConnectedOptions")
    yield Case("FULLY_CONNECTED no bias", "FULLY_CONNECTED", (Operand((1, 32)), weights, None), (Operand((1, 8)),), {}, "FullyConnectedOptions")
    yield Case("FULLY_CONNECTED open weights", "FULLY_CONNECTED", (Operand((1, 32)), Operand((8, 32)), bias), (Operand((1, 8)),), {}, "FullyConnectedOptions")
    left = Operand((1, 4, 8, 16))
    yield Case("BATCH_MATMUL adjoint", "BATCH_MATMUL", (left, Operand((1, 4, 8, 16))), (Operand((1, 4, 8, 8)),), {"adjY": True}, "BatchMatMulOptions")
    yield Case("BATCH_MATMUL constant", "BATCH_MATMUL", (Operand((1, 8, 16)), constant(np.ones((1, 16, 8), np.int8), scale=0.02)), (Operand((1, 8, 8)),), {}, "BatchMatMulOptions")
    yield Case("BATCH_MATMUL broadcast", "BATCH_MATMUL", (left, Operand((1, 1, 16, 8))), (Operand((1, 4, 8, 8)),), {}, "BatchMatMulOptions")


def _pools() -> Iterator[Case]:
    for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"):
        for name, kernel, stride, same, size in (
            ("2x2", 2, 2, False, 16), ("8x8 SAME", 8, 1, True, 16), ("9x9 SAME", 9, 1, True, 16), ("9x9", 9, 1, False, 16),
            ("stride 4", 4, 4, False, 16), ("stride 4 SAME", 5, 4, True, 16), ("256x1", 256, 1, False, 256),
            ("257x1", 257, 1, False, 257),
        ):  # fmt: skip
            width = 1 if "x1" in name else kernel
            height_out = _window(size, kernel, stride, 1, same)
            width_out = 1 if width == 1 else height_out
            options = {"filterHeight": kernel, "filterWidth": width, "strideH": stride, "strideW": stride, "padding": 0 if same else 1}
            for dtype in TYPES if name == "2x2" else ("INT8",):
                image = Operand((1, size, 1 if width == 1 else size, 4), dtype)
                yield Case(f"{op} {name} {dtype}", op, (image,), (Operand((1, height_out, width_out, 4), dtype),), options, "Pool2DOptions")


def _resizes() -> Iterator[Case]:
    for op, table in (("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")):
        for height, width in ((16, 16), (24, 24), (32, 32), (64, 64), (16, 32), (8, 8), (4, 4), (11, 11), (128, 128)):
            for name, options in (("", {}), (" half pixels", {"halfPixelCenters": True})):
                out = Operand((1, height, width, 4))
                yield Case(f"{op} {height}x{width}{name}", op, (Operand(IMAGE), _ints(height, width)), (out,), options, table)
        for factor in (2, 3, 4, 8):
            size = 7 * factor + 1
            yield Case(f"{op} corners {factor}", op, (Operand(IMAGE), _ints(size, size)), (Operand((1, size, size, 4)),), {"alignCorners": True}, table)
        for dtype in TYPES[1:]:
            yield Case(f"{op} {dtype}", op, (Operand(IMAGE, dtype), _ints(16, 16)), (Operand((1, 16, 16, 4), dtype),), {}, table)
        yield Case(f"{op} of 1x1", op, (Operand((1, 1, 1, 4)), _ints(5, 7)), (Operand((1, 5, 7, 4)),), {}, table)


def _others() -> Iterator[Case]:
    for dtype in TYPES:
        yield Case(f"SOFTMAX {dtype}", "SOFTMAX", (Operand(IMAGE, dtype),), (Operand(IMAGE, dtype),), {"beta": 1.0}, "SoftmaxOptions")
    for size in (255, 256, 257):
        image = Operand((1, size, size, 4))
        yield Case(f"SOFTMAX {size}x{size}", "SOFTMAX", (image,), (image,), {"beta": 1.0}, "SoftmaxOptions")
    for source, target in (("INT8", "INT16"), ("INT8", "INT32"), ("INT16", "INT8"), ("INT32", "INT8"), ("BOOL", "INT8"), ("UINT8", "INT8"), ("INT32", "INT64")):
        yield Case(f"CAST {source} to {target}", "CAST", (Operand(IMAGE, source),), (Operand(IMAGE, target),), {}, "CastOptions")
    yield Case("SELECT_V2", "SELECT_V2", (Operand(IMAGE, "BOOL"), Operand(IMAGE), Operand(IMAGE)), (Operand(IMAGE),), {}, "SelectV2Options")
    yield Case("TOPK_V2", "TOPK_V2", (Operand((1, 8)), _ints(2)), (Operand((1, 2)), Operand((1, 2), "INT32")), {}, "TopKV2Options")
    yield Case("CUMSUM", "CUMSUM", (Operand((1, 8)), _ints(1)), (Operand((1, 8)),), {}, "CumsumOptions")
    yield Case("SHAPE", "SHAPE", (Operand(IMAGE),), (Operand((4,), "INT32"),), {"outType": 2}, "ShapeOptions")
    yield Case("GATHER_ND", "GATHER_ND", (Operand((8, 4)), constant(np.zeros((2, 1), np.int32))), (Operand((2, 4)),), {}, "GatherNdOptions")
    for name, indices in (("", [[0], [2]]), (" repeated", [[1], [1]]), (" of rank 2", [[0, 1], [2, 1]])):
        last = len(indices[0])
        updates = Operand((2, 4)) if last == 1 else Operand((2,))
        operands = (constant(np.array(indices, np.int32)), updates, _ints(8, 4))
        yield Case(f"SCATTER_ND{name}", "SCATTER_ND", operands, (Operand((8, 4)),), {}, "ScatterNdOptions")
    yield Case("SPACE_TO_BATCH_ND", "SPACE_TO_BATCH_ND", (Operand(IMAGE), _ints(2, 2), constant(np.zeros((2, 2), np.int32))), (Operand((4, 4, 4, 4)),), {}, "SpaceToBatchNDOptions")
    yield Case("BATCH_TO_SPACE_ND", "BATCH_TO_SPACE_ND", (Operand((4, 4, 4, 4)), _ints(2, 2), constant(np.zeros((2, 2), np.int32))), (Operand(IMAGE),), {}, "BatchToSpaceNDOptions")
    yield Case("LOG_SOFTMAX", "LOG_SOFTMAX", (Operand((1, 8)),), (Operand((1, 8)),), {}, "LogSoftmaxOptions")
    yield Case("L2_NORMALIZATION", "L2_NORMALIZATION", (Operand((1, 8)),), (Operand((1, 8)),), {}, "L2NormOptions")


def _held_out() -> Iterator[Case]:
    """Cases that were added after the op tables were written, to judge them."""
    for dtype in (*TYPES, "INT64"):
        image = Operand(IMAGE, dtype)
        yield Case(f"GATHER axis 0 {dtype}", "GATHER", (image, _ints(0, 0)), (Operand((2, 8, 8, 4), dtype),), {"axis": 0}, "GatherOptions")
        operands = (Operand(IMAGE, "BOOL"), image, image)
        yield Case(f"SELECT_V2 {dtype}", "SELECT_V2", operands, (image,), {}, "SelectV2Options")
        yield Case(f"SELECT {dtype}", "SELECT", operands, (image,), {}, "SelectOptions")
        one = constant(np.array([[0], [2]], np.int32))
        yield Case(f"SCATTER_ND {dtype}", "SCATTER_ND", (one, Operand((2, 4), dtype), _ints(8, 4)), (Operand((8, 4), dtype),), {}, "ScatterNdOptions")
    for source in ("INT8", "INT16", "INT32"):
        for target in ("UINT8", "BOOL", "FLOAT32"):
            yield Case(f"CAST {source} to {target}", "CAST", (Operand(IMAGE, source),), (Operand(IMAGE, target),), {}, "CastOptions")
    yield Case("ARG_MAX axis 0", "ARG_MAX", (Operand((4, 8, 8, 4)), _ints(0)), (Operand((8, 8, 4), "INT32"),), {"outputType": 2}, "ArgMaxOptions")
    yield Case("RESHAPE open shape", "RESHAPE", (Operand(IMAGE), Operand((3,), "INT32")), (Operand((1, 64, 4)),), {}, "ReshapeOptions")
    for stride_h, stride_w, kernel in ((1, 2, 3), (2, 1, 3), (3, 2, 5), (2, 4, 4)):
        out = Operand((1, 8 * stride_h, 8 * stride_w, 8))
        operands = (
            _ints(*out.shape), constant(np.ones((8, kernel, kernel, 4), np.int8), scale=0.02), Operand(IMAGE),
            constant(np.zeros(8, np.int32), scale=0.001),
        )  # fmt: skip
        options = {"strideH": stride_h, "strideW": stride_w, "padding": 0}
        yield Case(f"TRANSPOSE_CONV {stride_h}x{stride_w}", "TRANSPOSE_CONV", operands, (out,), options, "TransposeConvOptions")
    for stride_h, stride_w in ((1, 4), (4, 1), (8, 8), (3, 5)):
        out = Operand((1, -(-16 // stride_h), -(-16 // stride_w), 8))
        operands = (
            Operand((1, 16, 16, 4)), constant(np.ones((8, 3, 3, 4), np.int8), scale=0.02),
            constant(np.zeros(8, np.int32), scale=0.001),
        )  # fmt: skip
        options = {"strideH": stride_h, "strideW": stride_w, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0}
        yield Case(f"CONV_2D {stride_h}x{stride_w}", "CONV_2D", operands, (out,), options, "Conv2DOptions")
    for op, table in (("RESIZE_BILINEAR", "ResizeBilinearOptions"), ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions")):
        for height, width in ((8, 16), (16, 8), (40, 40), (8, 24), (12, 12)):
            yield Case(f"{op} {height}x{width} held out", op, (Operand(IMAGE), _ints(height, width)), (Operand((1, height, width, 4)),), {}, table)
    for shape, axes in (((1, 8, 1, 4), (1, 3)), ((1, 1, 8, 4), (2, 3)), ((1, 8, 4), (1,)), ((8, 4), (1,)), ((8, 4), (0,))):
        out = tuple(1 if i in axes else size for i, size in enumerate(shape))
        name = "x".join(map(str, shape))
        for op in ("MEAN", "SUM", "REDUCE_MAX"):
            yield Case(f"{op} of {name} axes {axes}", op, (Operand(shape), _ints(*axes)), (Operand(out),), {"keepDims": True}, "ReducerOptions")
    for rank in (3, 5):
        shape = (2, 3, 4, 5, 6)[:rank]
        permutation = tuple(reversed(range(rank)))
        yield Case(f"TRANSPOSE rank {rank}", "TRANSPOSE", (Operand(shape), _ints(*permutation)), (Operand(shape[::-1]),), {}, "TransposeOptions")
        pads = constant(np.array([[1, 1]] * rank, np.int32))
        yield Case(f"PAD rank {rank}", "PAD", (Operand(shape), pads), (Operand(tuple(size + 2 for size in shape)),), {}, "PadOptions")
        yield Case(f"SLICE rank {rank}", "SLICE", (Operand(shape), _ints(*[1] * rank), _ints(*[1] * rank)), (Operand((1,) * rank),), {}, "SliceOptions")
        yield Case(f"CONCATENATION rank {rank}", "CONCATENATION", (Operand(shape), Operand(shape)), (Operand((4, *shape[1:])),), {"axis": 0}, "ConcatenationOptions")
        yield Case(f"SOFTMAX rank {rank}", "SOFTMAX", (Operand(shape),), (Operand(shape),), {"beta": 1.0}, "SoftmaxOptions")
        yield Case(f"MIRROR_PAD rank {rank}", "MIRROR_PAD", (Operand(shape), pads), (Operand(tuple(size + 2 for size in shape)),), {"mode": 1}, "MirrorPadOptions")
