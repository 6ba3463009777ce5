"""Cases of the battery: convolutions, products, pools and resizes."""

from collections.abc import Iterator

import numpy as np

from .op_files import IMAGE, TYPES, Case, Operand, constant, ints


def _window(size: int, kernel: int, stride: int, dilation: int = 1, same: bool = False) -> int:
    return -(-size // stride) if same else (size - (kernel - 1) * dilation - 1) // stride + 1


def convolutions() -> Iterator[Case]:
    """Yield the cases: Convolutions on both sides of the limits of strides, kernels and dilation."""
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
            yield Case(
                f"CONV_2D {name} {dtype}",
                "CONV_2D",
                (image, weights, bias),
                (Operand((1, out, out, 8), dtype),),
                options,
            )
            weights = constant(np.ones((1, kernel, kernel, 4), kind), scale=0.02)
            bias = constant(bias.values[:4], scale=0.001)
            yield Case(
                f"DEPTHWISE_CONV_2D {name} {dtype}", "DEPTHWISE_CONV_2D", (image, weights, bias),
                (Operand((1, out, out, 4), dtype),), {**options, "depthMultiplier": 1})  # fmt: skip
    image, plain = (
        Operand((1, 16, 16, 4)),
        {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1, "padding": 0},
    )
    weights = constant(np.ones((8, 3, 3, 4), np.int8), scale=0.02)
    yield Case("CONV_2D no bias", "CONV_2D", (image, weights, None), (Operand((1, 16, 16, 8)),), plain)
    yield Case(
        "CONV_2D batch 2",
        "CONV_2D",
        (Operand((2, 16, 16, 4)), weights, constant(np.zeros(8, np.int32), scale=0.001)),
        (Operand((2, 16, 16, 8)),),
        plain,
    )
    wide = constant(np.full((2, 3, 3, 4), 127, np.int8), scale=0.02)
    yield Case(
        "CONV_2D open weights",
        "CONV_2D",
        (image, Operand((2, 3, 3, 4)), constant(np.zeros(2, np.int32), scale=0.001)),
        (Operand((1, 16, 16, 2)),),
        plain,
    )
    yield Case("CONV_2D open bias", "CONV_2D", (image, wide, Operand((2,), "INT32")), (Operand((1, 16, 16, 2)),), plain)
    for name, stride, same, kernel in (
        ("2", 2, True, 3),
        ("1", 1, True, 3),
        ("3", 3, True, 3),
        ("2 VALID", 2, False, 3),
        ("4", 4, True, 4),
    ):
        out = 8 * stride if same else (8 - 1) * stride + kernel
        for dtype in ("INT8", "INT16") if name == "2" else ("INT8",):
            operands = (
                ints(1, out, out, 8), constant(np.ones((8, kernel, kernel, 4), np.int8), scale=0.02),
                Operand(IMAGE, dtype),
                constant(np.zeros(8, np.int64 if dtype == "INT16" else np.int32), scale=0.001),
            )  # fmt: skip
            options = {"strideH": stride, "strideW": stride, "padding": 0 if same else 1}
            yield Case(
                f"TRANSPOSE_CONV stride {name} {dtype}",
                "TRANSPOSE_CONV",
                operands,
                (Operand((1, out, out, 8), dtype),),
                options,
            )


def products() -> Iterator[Case]:
    """Yield the cases: FULLY_CONNECTED and BATCH_MATMUL."""
    for dtype in TYPES:
        wide = np.int64 if dtype == "INT16" else np.int32
        kind = "uint8" if dtype == "UINT8" else "int8"
        operands = (
            Operand((1, 32), dtype),
            constant(np.ones((8, 32), kind), scale=0.02),
            constant(np.zeros(8, wide), scale=0.001),
        )
        yield Case(f"FULLY_CONNECTED {dtype}", "FULLY_CONNECTED", operands, (Operand((1, 8), dtype),))
        left, right = Operand((1, 4, 8, 16), dtype), Operand((1, 4, 16, 8), dtype)
        yield Case(f"BATCH_MATMUL {dtype}", "BATCH_MATMUL", (left, right), (Operand((1, 4, 8, 8), dtype),))
    weights = constant(np.ones((8, 32), np.int8), scale=0.02)
    bias = constant(np.zeros(8, np.int32), scale=0.001)
    for name, shape in (("rank 3", (1, 4, 32)), ("rank 4", (1, 2, 2, 32)), ("batch 4", (4, 32))):
        out = Operand((*shape[:-1], 8))
        yield Case(
            f"FULLY_CONNECTED {name}",
            "FULLY_CONNECTED",
            (Operand(shape), weights, bias),
            (out,),
            {"keepNumDims": len(shape) > 2},
        )
    yield Case("FULLY_CONNECTED no bias", "FULLY_CONNECTED", (Operand((1, 32)), weights, None), (Operand((1, 8)),))
    yield Case(
        "FULLY_CONNECTED open weights",
        "FULLY_CONNECTED",
        (Operand((1, 32)), Operand((8, 32)), bias),
        (Operand((1, 8)),),
    )
    left = Operand((1, 4, 8, 16))
    yield Case(
        "BATCH_MATMUL adjoint", "BATCH_MATMUL", (left, Operand((1, 4, 8, 16))), (Operand((1, 4, 8, 8)),), {"adjY": True}
    )
    yield Case(
        "BATCH_MATMUL constant",
        "BATCH_MATMUL",
        (Operand((1, 8, 16)), constant(np.ones((1, 16, 8), np.int8), scale=0.02)),
        (Operand((1, 8, 8)),),
    )
    yield Case("BATCH_MATMUL broadcast", "BATCH_MATMUL", (left, Operand((1, 1, 16, 8))), (Operand((1, 4, 8, 8)),))


def pools() -> Iterator[Case]:
    """Yield the cases: Pools on both sides of the limits of kernels and strides."""
    for op in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"):
        for name, kernel, stride, same, size in (
            ("2x2", 2, 2, False, 16), ("8x8 SAME", 8, 1, True, 16), ("9x9 SAME", 9, 1, True, 16),
            ("9x9", 9, 1, False, 16),
            ("stride 4", 4, 4, False, 16), ("stride 4 SAME", 5, 4, True, 16), ("256x1", 256, 1, False, 256),
            ("257x1", 257, 1, False, 257),
        ):  # fmt: skip
            width = 1 if "x1" in name else kernel
            height_out = _window(size, kernel, stride, 1, same)
            width_out = 1 if width == 1 else height_out
            options = {
                "filterHeight": kernel,
                "filterWidth": width,
                "strideH": stride,
                "strideW": stride,
                "padding": 0 if same else 1,
            }
            for dtype in TYPES if name == "2x2" else ("INT8",):
                image = Operand((1, size, 1 if width == 1 else size, 4), dtype)
                yield Case(
                    f"{op} {name} {dtype}", op, (image,), (Operand((1, height_out, width_out, 4), dtype),), options
                )


def resizes() -> Iterator[Case]:
    """Yield the cases: Resizing by whole and other factors."""
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        for height, width in ((16, 16), (24, 24), (32, 32), (64, 64), (16, 32), (8, 8), (4, 4), (11, 11), (128, 128)):
            for name, options in (("", {}), (" half pixels", {"halfPixelCenters": True})):
                out = Operand((1, height, width, 4))
                yield Case(f"{op} {height}x{width}{name}", op, (Operand(IMAGE), ints(height, width)), (out,), options)
        for factor in (2, 3, 4, 8):
            size = 7 * factor + 1
            yield Case(
                f"{op} corners {factor}",
                op,
                (Operand(IMAGE), ints(size, size)),
                (Operand((1, size, size, 4)),),
                {"alignCorners": True},
            )
        for dtype in TYPES[1:]:
            yield Case(f"{op} {dtype}", op, (Operand(IMAGE, dtype), ints(16, 16)), (Operand((1, 16, 16, 4), dtype),))
        yield Case(f"{op} of 1x1", op, (Operand((1, 1, 1, 4)), ints(5, 7)), (Operand((1, 5, 7, 4)),))
