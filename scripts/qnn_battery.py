"""Models of one op each, to ask Qualcomm's compiler about: by op, data type, rank and attribute."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.graph.edit import builtin_code, pack
from edgepack.graph.read import schema

SHAPE = (1, 8, 8, 8)
SHAPES = {1: (16,), 2: (4, 16), 3: (1, 8, 8), 4: SHAPE, 5: (1, 2, 4, 4, 8), 6: (1, 2, 2, 2, 4, 4)}


@dataclass(frozen=True)
class T:
    """A tensor: its shape, and its data type unless it is that of the model; `values` makes it a constant."""

    shape: tuple[int, ...]
    dtype: str = ""
    values: Any = None
    per_channel: int = -1


@dataclass(frozen=True)
class Case:
    """One model.

    Attributes:
        op: TFLite name.
        name: What it varies.
        dtype: Data type of the activations.
        inputs: Its inputs.
        outputs: Its outputs.
        options: Fields of its options.
    """

    op: str
    name: str
    dtype: str
    inputs: tuple[T, ...]
    outputs: tuple[T, ...]
    options: dict[str, Any] = field(default_factory=dict)


INTS, ALL = ("INT8", "UINT8", "INT16"), ("INT8", "UINT8", "INT16", "FLOAT32")
WITH_INT32 = (*ALL, "INT32")

_OPTIONS = {
    "FULLY_CONNECTED": "FullyConnected", "AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D", "L2_POOL_2D": "Pool2D",
    "CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "CONV_3D": "Conv3D", "MEAN": "Reducer",
    "SUM": "Reducer", "REDUCE_MAX": "Reducer", "REDUCE_MIN": "Reducer", "REDUCE_ANY": "Reducer",
    "REDUCE_ALL": "Reducer", "REDUCE_PROD": "Reducer", "L2_NORMALIZATION": "L2Norm", "BATCH_MATMUL": "BatchMatMul",
    "PADV2": "PadV2", "SELECT_V2": "SelectV2", "TOPK_V2": "TopKV2", "BATCH_TO_SPACE_ND": "BatchToSpaceND",
    "SPACE_TO_BATCH_ND": "SpaceToBatchND", "CONCATENATION": "Concatenation", "REVERSE_V2": "ReverseV2",
}  # fmt: skip


def model(case: Case) -> bytes:
    """Return the .tflite of a case."""
    names = schema()
    root, graph = names.ModelT(), names.SubGraphT()
    root.version, root.description, root.buffers = 3, b"MLIR Converted.", [names.BufferT()]
    graph.name, graph.tensors, code, op = b"main", [], names.OperatorCodeT(), names.OperatorT()

    def add(spec: T, name: str) -> int:
        dtype = spec.dtype or case.dtype
        tensor = names.TensorT()
        tensor.name, tensor.shape, tensor.hasRank = name.encode(), np.array(spec.shape, np.int32), True
        tensor.type = getattr(names.TensorType, dtype)
        if spec.values is not None:
            buffer = names.BufferT()
            if dtype == "INT4":
                buffer.data = np.full((int(np.prod(spec.shape)) + 1) // 2, 0x11, np.uint8)
            else:
                values = np.broadcast_to(np.asarray(spec.values), spec.shape)
                values = values.astype("bool" if dtype == "BOOL" else dtype.lower())
                buffer.data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            tensor.buffer = len(root.buffers)
            root.buffers.append(buffer)
        has_scale = dtype in {"INT4", "INT8", "UINT8", "INT16"} or (name.startswith("bias") and case.dtype in INTS)
        if has_scale:
            q = names.QuantizationParametersT()
            channels = spec.shape[spec.per_channel] if spec.per_channel >= 0 else 1
            q.scale = np.full(channels, 3e-3 if name.startswith("bias") else 0.05, np.float32)
            q.zeroPoint = np.full(channels, 128 if dtype == "UINT8" else 0, np.int64)
            q.quantizedDimension = max(spec.per_channel, 0)
            tensor.quantization = q
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    sources = []
    for number, spec in enumerate(case.inputs):
        kind = "bias" if case.op in _BIASED and number == _BIASED[case.op] else "x" if spec.values is None else "c"
        sources.append(add(spec, f"{kind}{number}"))
    results = [add(spec, f"y{number}") for number, spec in enumerate(case.outputs)]
    code.builtinCode, code.version = builtin_code(case.op), 1
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    op.opcodeIndex, op.inputs, op.outputs = 0, np.array(sources, np.int32), np.array(results, np.int32)
    camel = _OPTIONS.get(case.op) or "".join(part.capitalize() for part in case.op.split("_"))
    if hasattr(names.BuiltinOptions, f"{camel}Options"):
        op.builtinOptionsType = getattr(names.BuiltinOptions, f"{camel}Options")
        op.builtinOptions = getattr(names, f"{camel}OptionsT")()
        for key, value in case.options.items():
            if not hasattr(op.builtinOptions, key):
                raise ValueError(f"{case.op} has no option {key}")
            setattr(op.builtinOptions, key, value)
    graph.operators, root.operatorCodes = [op], [code]
    graph.inputs = np.array([i for i, s in zip(sources, case.inputs, strict=True) if s.values is None], np.int32)
    graph.outputs = op.outputs
    root.subgraphs = [graph]
    return pack(root)


_BIASED = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3, "CONV_3D": 2}


def _ints(*values: int) -> T:
    return T((len(values),), "INT32", np.array(values))


def cases() -> Iterator[Case]:
    """Yield all cases, the most common ops first."""
    yield from _layers()
    yield from _unary()
    yield from _binary()
    yield from _reductions()
    yield from _movement()
    yield from _indices()
    yield from _logic()
    yield from _types()
    yield from _computed()


def _unary() -> Iterator[Case]:
    same = [
        "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOGISTIC", "TANH", "HARD_SWISH", "GELU", "ELU", "LEAKY_RELU",
        "SOFTMAX", "LOG_SOFTMAX", "L2_NORMALIZATION", "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "SQUARE", "SIN",
        "COS", "CEIL", "FLOOR", "ROUND", "SIGN",
    ]  # fmt: skip
    for op in same:
        options: dict[str, Any] = {"beta": 1.0} if op == "SOFTMAX" else {"alpha": 0.2} if op == "LEAKY_RELU" else {}
        for dtype in WITH_INT32:
            yield Case(op, "rank4", dtype, (T(SHAPE),), (T(SHAPE),), options)
        for rank in (1, 2, 3, 5, 6):
            for dtype in ("INT8", "INT16", "FLOAT32") if rank == 5 else ("INT8", "FLOAT32"):
                yield Case(op, f"rank{rank}", dtype, (T(SHAPES[rank]),), (T(SHAPES[rank]),), options)


def _binary() -> Iterator[Case]:
    for op in ["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW", "FLOOR_DIV", "FLOOR_MOD"]:
        for dtype in WITH_INT32:
            yield Case(op, "dyn_dyn", dtype, (T(SHAPE), T(SHAPE)), (T(SHAPE),))
            yield Case(op, "const_right", dtype, (T(SHAPE), T((8,), values=3)), (T(SHAPE),))
            yield Case(op, "const_left", dtype, (T((8,), values=3), T(SHAPE)), (T(SHAPE),))
            yield Case(op, "scalar", dtype, (T(SHAPE), T((), values=3)), (T(SHAPE),))
        for rank in (1, 2, 3, 5, 6):
            for dtype in ("INT8", "INT16", "FLOAT32") if rank == 5 else ("INT8", "FLOAT32"):
                yield Case(op, f"rank{rank}", dtype, (T(SHAPES[rank]), T(SHAPES[rank])), (T(SHAPES[rank]),))
        if op in {"ADD", "SUB", "MUL"}:
            for activation in (1, 2, 3):
                for dtype in INTS:
                    yield Case(op, f"fused{activation}", dtype, (T(SHAPE), T(SHAPE)), (T(SHAPE),),
                               {"fusedActivationFunction": activation})  # fmt: skip
    for dtype in ALL:
        yield Case("PRELU", "channel", dtype, (T(SHAPE), T((1, 1, 8), values=1)), (T(SHAPE),))
        for kinds in (("", ""), ("", "c"), ("c", "")):
            a, b = (T((2, 4, 8), values=1 if kind else None) for kind in kinds)
            yield Case("BATCH_MATMUL", "_".join(k or "d" for k in kinds), dtype, (a, T((2, 8, 6), values=b.values)),
                       (T((2, 4, 6)),))  # fmt: skip
        yield Case("BATCH_MATMUL", "rank4", dtype, (T((1, 2, 4, 8)), T((1, 2, 8, 6))), (T((1, 2, 4, 6)),))
        yield Case("BATCH_MATMUL", "adj_y", dtype, (T((2, 4, 8)), T((2, 6, 8))), (T((2, 4, 6)),), {"adjY": True})
        yield Case("BATCH_MATMUL", "adj_x", dtype, (T((2, 8, 4)), T((2, 8, 6))), (T((2, 4, 6)),), {"adjX": True})


def _weights(dtype: str, shape: tuple[int, ...], axis: int) -> list[tuple[str, T]]:
    if dtype == "FLOAT32":
        return [("float", T(shape, "FLOAT32", 0.1)), ("dynamic-range", T(shape, "INT8", 1, axis))]
    if dtype == "UINT8":
        return [("uint8", T(shape, "UINT8", 1)), ("per-tensor", T(shape, "INT8", 1))]
    kinds = [
        ("int8", T(shape, "INT8", 1, axis)),
        ("per-tensor", T(shape, "INT8", 1)),
        ("int4", T(shape, "INT4", 1, axis)),
    ]
    return [*kinds, ("int16", T(shape, "INT16", 1))] if dtype == "INT16" else kinds


def _biases(dtype: str, size: int) -> list[tuple[str, T | None]]:
    if dtype == "FLOAT32":
        return [("bias", T((size,), "FLOAT32", 0.1)), ("nobias", None)]
    wide = [("bias64", T((size,), "INT64", 5))] if dtype == "INT16" else []
    return [("bias32", T((size,), "INT32", 5)), *wide, ("nobias", None)]


def _layers() -> Iterator[Case]:
    conv = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    for dtype in ALL:
        for weights_name, weights in _weights(dtype, (8, 3, 3, 8), 0):
            for bias_name, bias in _biases(dtype, 8):
                inputs = (T(SHAPE), weights, *([bias] if bias else []))
                yield Case("CONV_2D", f"{weights_name}_{bias_name}", dtype, inputs, (T(SHAPE),), conv)
        for weights_name, weights in _weights(dtype, (1, 3, 3, 8), 3):
            for bias_name, bias in _biases(dtype, 8):
                inputs = (T(SHAPE), weights, *([bias] if bias else []))
                options = {**conv, "depthMultiplier": 1}
                yield Case("DEPTHWISE_CONV_2D", f"{weights_name}_{bias_name}", dtype, inputs, (T(SHAPE),), options)
        for weights_name, weights in _weights(dtype, (8, 16), 0):
            for bias_name, bias in _biases(dtype, 8):
                inputs = (T((1, 16)), weights, *([bias] if bias else []))
                yield Case("FULLY_CONNECTED", f"{weights_name}_{bias_name}", dtype, inputs, (T((1, 8)),))
        for weights_name, weights in _weights(dtype, (8, 3, 3, 8), 0):
            for bias_name, bias in _biases(dtype, 8):
                inputs = (_ints(1, 16, 16, 8), weights, T(SHAPE), *([bias] if bias else []))
                yield Case("TRANSPOSE_CONV", f"{weights_name}_{bias_name}", dtype, inputs, (T((1, 16, 16, 8)),),
                           {"strideW": 2, "strideH": 2})  # fmt: skip
        name, weights = _weights(dtype, (8, 3, 3, 8), 0)[0]
        bias = _biases(dtype, 8)[1 if dtype == "INT16" else 0][1]
        assert bias is not None
        for activation in (1, 2, 3):
            yield Case("CONV_2D", f"fused{activation}", dtype, (T(SHAPE), weights, bias), (T(SHAPE),),
                       {**conv, "fusedActivationFunction": activation})  # fmt: skip
        yield Case("CONV_2D", "dynamic", dtype, (T(SHAPE), T((8, 3, 3, 8)), bias), (T(SHAPE),), conv)
        yield Case("CONV_2D", "grouped", dtype, (T(SHAPE), _weights(dtype, (8, 3, 3, 4), 0)[0][1], bias), (T(SHAPE),),
                   conv)  # fmt: skip
        yield Case("CONV_2D", "dilated", dtype, (T(SHAPE), weights, bias), (T(SHAPE),),
                   {**conv, "dilationWFactor": 2, "dilationHFactor": 2})  # fmt: skip
        yield Case("FULLY_CONNECTED", "dynamic", dtype, (T((4, 16)), T((8, 16))), (T((4, 8)),))
        yield Case("FULLY_CONNECTED", "rank3_keep", dtype, (T((1, 4, 16)), _weights(dtype, (8, 16), 0)[0][1]),
                   (T((1, 4, 8)),), {"keepNumDims": True})  # fmt: skip
        for pool in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"):
            for padding in (0, 1):
                yield Case(pool, f"pad{padding}", dtype, (T(SHAPE),), (T((1, 4, 4, 8)),),
                           {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2,
                            "padding": padding})  # fmt: skip
    for dtype in ("FLOAT32", "INT8"):
        for name, weights in (("const", T((3, 3, 3, 8, 8), values=1)), ("dyn", T((3, 3, 3, 8, 8)))):
            yield Case("CONV_3D", name, dtype, (T((1, 4, 4, 4, 8)), weights), (T((1, 4, 4, 4, 8)),),
                       {"strideW": 1, "strideH": 1, "strideD": 1, "dilationWFactor": 1, "dilationHFactor": 1,
                        "dilationDFactor": 1})  # fmt: skip


def _reductions() -> Iterator[Case]:
    for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"):
        for dtype in WITH_INT32:
            yield Case(op, "hw", dtype, (T(SHAPE), _ints(1, 2)), (T((1, 8)),))
            yield Case(op, "hw_keep", dtype, (T(SHAPE), _ints(1, 2)), (T((1, 1, 1, 8)),), {"keepDims": True})
            yield Case(op, "last", dtype, (T(SHAPE), _ints(3)), (T((1, 8, 8)),))
        yield Case(op, "rank5", "INT8", (T(SHAPES[5]), _ints(2, 3)), (T((1, 2, 8)),))
        yield Case(op, "rank6", "INT8", (T(SHAPES[6]), _ints(2, 3)), (T((1, 2, 4, 4)),))
        yield Case(op, "rank6_float", "FLOAT32", (T(SHAPES[6]), _ints(2, 3)), (T((1, 2, 4, 4)),))
    for op in ("REDUCE_ANY", "REDUCE_ALL"):
        yield Case(op, "last", "BOOL", (T(SHAPE), _ints(3)), (T((1, 8, 8)),))
    for op in ("ARG_MAX", "ARG_MIN"):
        for dtype in WITH_INT32:
            for index, code in (("INT32", 2), ("INT64", 4)):
                for axis in (3, 1):
                    out = T((1, 8, 8), index)
                    yield Case(op, f"axis{axis}_{index}", dtype, (T(SHAPE), T((), "INT32", axis)), (out,),
                               {"outputType": code})  # fmt: skip
    for dtype in (*ALL, "INT32"):
        for exclusive, reverse in ((False, False), (True, False), (False, True), (True, True)):
            yield Case("CUMSUM", f"{'x' if exclusive else ''}{'r' if reverse else ''}", dtype,
                       (T(SHAPE), T((), "INT32", 3)), (T(SHAPE),),
                       {"exclusive": exclusive, "reverse": reverse})  # fmt: skip


def _movement() -> Iterator[Case]:
    for dtype in WITH_INT32:
        yield Case(
            "RESHAPE",
            "rank3",
            dtype,
            (T(SHAPE), _ints(1, 64, 8)),
            (T((1, 64, 8)),),
            {"newShape": np.array([1, 64, 8], np.int32)},
        )
        yield Case("TRANSPOSE", "rank4", dtype, (T(SHAPE), _ints(0, 3, 1, 2)), (T(SHAPE),))
        yield Case("STRIDED_SLICE", "scalar", dtype, (T((4,)), _ints(1), _ints(2), _ints(1)), (T(()),),
                   {"shrinkAxisMask": 1})  # fmt: skip
        yield Case("PACK", "scalars", dtype, (T(()), T(()), T((), values=3)), (T((3,)),), {"axis": 0, "valuesCount": 3})
        yield Case("SQUEEZE", "1", dtype, (T((1, 1, 8, 8)),), (T((1, 8, 8)),), {"squeezeDims": np.array([1], np.int32)})
        yield Case("EXPAND_DIMS", "1", dtype, (T((1, 8, 8)), T((), "INT32", 1)), (T((1, 1, 8, 8)),))
        yield Case("CONCATENATION", "last", dtype, (T(SHAPE), T(SHAPE)), (T((1, 8, 8, 16)),), {"axis": 3})
        yield Case(
            "PACK", "last", dtype, (T((1, 8, 8)), T((1, 8, 8))), (T((1, 8, 8, 2)),), {"axis": 3, "valuesCount": 2}
        )
        yield Case("UNPACK", "axis1", dtype, (T((1, 3, 8)),), (T((1, 8)),) * 3, {"axis": 1, "num": 3})
        yield Case("SPLIT", "last", dtype, (T((), "INT32", 3), T(SHAPE)), (T((1, 8, 8, 4)),) * 2, {"numSplits": 2})
        yield Case("SPLIT_V", "last", dtype, (T(SHAPE), _ints(2, 6), T((), "INT32", 3)),
                   (T((1, 8, 8, 2)), T((1, 8, 8, 6))), {"numSplits": 2})  # fmt: skip
        yield Case("SLICE", "const", dtype, (T(SHAPE), _ints(0, 1, 1, 0), _ints(1, 4, 4, 8)), (T((1, 4, 4, 8)),))
        yield Case("SLICE", "dynamic_begin", dtype, (T(SHAPE), T((4,), "INT32"), _ints(1, 4, 4, 8)), (T((1, 4, 4, 8)),))
        yield Case("STRIDED_SLICE", "step2", dtype,
                   (T(SHAPE), _ints(0, 0, 0, 0), _ints(1, 8, 8, 8), _ints(1, 2, 2, 1)), (T((1, 4, 4, 8)),))  # fmt: skip
        yield Case("STRIDED_SLICE", "shrink", dtype,
                   (T(SHAPE), _ints(0, 0, 1, 0), _ints(1, 8, 2, 8), _ints(1, 1, 1, 1)), (T((1, 8, 8)),),
                   {"shrinkAxisMask": 4})  # fmt: skip
        yield Case("STRIDED_SLICE", "negative", dtype,
                   (T(SHAPE), _ints(0, 7, 0, 0), _ints(1, -9, 8, 8), _ints(1, -1, 1, 1)), (T(SHAPE),))  # fmt: skip
        pads = T((4, 2), "INT32", [[0, 0], [1, 1], [1, 1], [0, 0]])
        yield Case("PAD", "hw", dtype, (T(SHAPE), pads), (T((1, 10, 10, 8)),))
        yield Case("PADV2", "const", dtype, (T(SHAPE), pads, T((), values=1)), (T((1, 10, 10, 8)),))
        for mode in (0, 1):
            yield Case("MIRROR_PAD", f"mode{mode}", dtype, (T(SHAPE), pads), (T((1, 10, 10, 8)),), {"mode": mode})
        yield Case("TILE", "hw", dtype, (T(SHAPE), _ints(1, 2, 3, 1)), (T((1, 16, 24, 8)),))
        yield Case("BROADCAST_TO", "hw", dtype, (T((1, 1, 1, 8)), _ints(*SHAPE)), (T(SHAPE),))
        yield Case("DEPTH_TO_SPACE", "2", dtype, (T(SHAPE),), (T((1, 16, 16, 2)),), {"blockSize": 2})
        yield Case("SPACE_TO_DEPTH", "2", dtype, (T(SHAPE),), (T((1, 4, 4, 32)),), {"blockSize": 2})
        yield Case("SPACE_TO_BATCH_ND", "b2", dtype, (T(SHAPE), _ints(2, 2), T((2, 2), "INT32", 0)), (T((4, 4, 4, 8)),))
        yield Case("BATCH_TO_SPACE_ND", "b2", dtype, (T((4, 4, 4, 8)), _ints(2, 2), T((2, 2), "INT32", 0)), (T(SHAPE),))
        yield Case("REVERSE_V2", "1", dtype, (T(SHAPE), _ints(1)), (T(SHAPE),))
        for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
            for name, options in (
                ("plain", {}),
                ("align", {"alignCorners": True}),
                ("half", {"halfPixelCenters": True}),
            ):
                yield Case(op, name, dtype, (T(SHAPE), _ints(16, 16)), (T((1, 16, 16, 8)),), options)
    for dtype in ("INT8", "FLOAT32", "INT16"):
        six, five = SHAPES[6], SHAPES[5]
        yield Case(
            "RESHAPE", "to6", dtype, (T((1, 8, 8, 2)), _ints(*six)), (T(six),), {"newShape": np.array(six, np.int32)}
        )
        yield Case(
            "RESHAPE",
            "from6",
            dtype,
            (T(six), _ints(1, 128)),
            (T((1, 128)),),
            {"newShape": np.array([1, 128], np.int32)},
        )
        yield Case(
            "RESHAPE", "to5", dtype, (T((1, 16, 16)), _ints(*five)), (T(five),), {"newShape": np.array(five, np.int32)}
        )
        yield Case("TRANSPOSE", "rank6", dtype, (T(six), _ints(0, 1, 3, 2, 4, 5)), (T(six),))
        yield Case("TRANSPOSE", "rank5", dtype, (T(five), _ints(0, 1, 3, 2, 4)), (T(five),))
        yield Case("CONCATENATION", "rank6", dtype, (T(six), T(six)), (T((1, 2, 2, 2, 4, 8)),), {"axis": 5})
        yield Case("CONCATENATION", "rank5", dtype, (T(five), T(five)), (T((1, 2, 4, 4, 16)),), {"axis": 4})
        yield Case("PACK", "rank6", dtype, (T(five), T(five)), (T((1, 2, 2, 4, 4, 8)),), {"axis": 2, "valuesCount": 2})
        yield Case("TILE", "rank6", dtype, (T(six), _ints(1, 2, 1, 1, 1, 1)), (T((1, 4, 2, 2, 4, 4)),))
        yield Case("EXPAND_DIMS", "rank6", dtype, (T(five), T((), "INT32", 1)), (T((1, 1, 2, 4, 4, 8)),))


def _indices() -> Iterator[Case]:
    for dtype in WITH_INT32:
        yield Case("GATHER", "const_index", dtype, (T(SHAPES[2]), _ints(0, 2)), (T((2, 16)),), {"axis": 0})
        yield Case("GATHER", "dynamic_index", dtype, (T(SHAPES[2]), T((3,), "INT32")), (T((3, 16)),), {"axis": 0})
        yield Case(
            "GATHER", "const_data", dtype, (T(SHAPES[2], values=1), T((3,), "INT32")), (T((3, 16)),), {"axis": 0}
        )
        yield Case("GATHER", "axis3", dtype, (T(SHAPE), _ints(0, 2)), (T((1, 8, 8, 2)),), {"axis": 3})
        yield Case("GATHER", "scalar_index", dtype, (T(SHAPE), T((), "INT32", 1)), (T((1, 8, 8)),), {"axis": 1})
        yield Case(
            "GATHER",
            "batch_dims",
            dtype,
            (T((2, 4, 8)), T((2, 3), "INT32")),
            (T((2, 3, 8)),),
            {"axis": 1, "batchDims": 1},
        )
        yield Case("GATHER", "int64", dtype, (T(SHAPES[2]), T((3,), "INT64")), (T((3, 16)),), {"axis": 0})
        yield Case("GATHER_ND", "const", dtype, (T(SHAPE), T((2, 2), "INT32", [[0, 1], [0, 2]])), (T((2, 8, 8)),))
        yield Case("EMBEDDING_LOOKUP", "const", dtype, (T((3,), "INT32"), T((4, 16), values=1)), (T((3, 16)),))
        yield Case(
            "SCATTER_ND", "const", dtype, (T((2, 1), "INT32", [[0], [2]]), T((2, 16)), _ints(4, 16)), (T((4, 16)),)
        )
        yield Case(
            "ONE_HOT",
            "values",
            dtype,
            (T((4,), "INT32"), T((), "INT32", 6), T((), values=1), T((), values=0)),
            (T((4, 6)),),
            {"axis": -1},
        )
        yield Case("TOPK_V2", "3", dtype, (T(SHAPES[2]), T((), "INT32", 3)), (T((4, 3)), T((4, 3), "INT32")))
        yield Case("DYNAMIC_UPDATE_SLICE", "const", dtype, (T(SHAPE), T((1, 4, 4, 8)), _ints(0, 0, 0, 0)), (T(SHAPE),))


def _logic() -> Iterator[Case]:
    for op in ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"]:
        for dtype in WITH_INT32:
            yield Case(op, "dyn", dtype, (T(SHAPE), T(SHAPE)), (T(SHAPE, "BOOL"),))
            yield Case(op, "const", dtype, (T(SHAPE), T((), values=1)), (T(SHAPE, "BOOL"),))
    for op in ("LOGICAL_AND", "LOGICAL_OR"):
        yield Case(op, "dyn", "BOOL", (T(SHAPE), T(SHAPE)), (T(SHAPE),))
    yield Case("LOGICAL_NOT", "dyn", "BOOL", (T(SHAPE),), (T(SHAPE),))
    for op in ("SELECT", "SELECT_V2"):
        for dtype in WITH_INT32:
            yield Case(op, "dyn", dtype, (T(SHAPE, "BOOL"), T(SHAPE), T(SHAPE)), (T(SHAPE),))
            yield Case(op, "const", dtype, (T(SHAPE, "BOOL"), T(SHAPE), T(SHAPE, values=1)), (T(SHAPE),))
        yield Case(op, "broadcast", "FLOAT32", (T(SHAPE, "BOOL"), T(SHAPE), T((), values=1)), (T(SHAPE),))
    for name, then, other in (
        ("wide_then", (1, 8, 8, 1), SHAPE),
        ("wide_else", SHAPE, (8,)),
        ("wide_both", (8,), (8,)),
    ):
        yield Case("SELECT_V2", name, "INT16", (T(SHAPE, "BOOL"), T(then), T(other)), (T(SHAPE),))


def _types() -> Iterator[Case]:
    kinds = ("INT8", "UINT8", "INT16", "INT32", "INT64", "FLOAT32", "FLOAT16", "BOOL")
    for before in kinds:
        for after in kinds:
            if before != after:
                yield Case("CAST", f"to_{after}", "INT32", (T(SHAPE, before),), (T(SHAPE, after),))
    for before in ("INT8", "UINT8", "INT16"):
        for after in ("INT8", "UINT8", "INT16"):
            yield Case("QUANTIZE", f"to_{after}", before, (T(SHAPE),), (T(SHAPE, after),))
        yield Case("QUANTIZE", f"from_float_to_{before}", before, (T(SHAPE, "FLOAT32"),), (T(SHAPE),))
        for rank in (1, 2, 4, 5, 6):
            yield Case("DEQUANTIZE", f"rank{rank}", before, (T(SHAPES[rank]),), (T(SHAPES[rank], "FLOAT32"),))
    yield Case("DEQUANTIZE", "float16", "FLOAT16", (T(SHAPE),), (T(SHAPE, "FLOAT32"),))


def _computed() -> Iterator[Case]:
    """Parameters that are computed at run time, by position."""

    def ints(*shape: int) -> T:
        return T(shape, "INT32")

    x, zero = T(SHAPE), T((2, 2), "INT32", 0)
    for dtype in ("INT8", "FLOAT32"):
        axes, padded, half = T((1, 8)), T((1, 10, 10, 8)), T((1, 4, 4, 8))
        for op in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
            yield Case(op, "computed1", dtype, (x, ints(2)), (axes,))
        for op in ("PAD", "MIRROR_PAD"):
            yield Case(op, "computed1", dtype, (x, ints(4, 2)), (padded,))
        pads = T((4, 2), "INT32", [[0, 0], [1, 1], [1, 1], [0, 0]])
        yield Case("PADV2", "computed1", dtype, (x, ints(4, 2), T((), values=1)), (padded,))
        yield Case("PADV2", "computed2", dtype, (x, pads, T(())), (padded,))
        yield Case("SLICE", "computed1", dtype, (x, ints(4), _ints(1, 4, 4, 8)), (half,))
        yield Case("SLICE", "computed2", dtype, (x, _ints(0, 0, 0, 0), ints(4)), (half,))
        begin, end, step = _ints(0, 0, 0, 0), _ints(1, 4, 4, 8), _ints(1, 1, 1, 1)
        for position in (1, 2, 3):
            given = [begin, end, step]
            given[position - 1] = ints(4)
            yield Case("STRIDED_SLICE", f"computed{position}", dtype, (x, *given), (half,))
        yield Case("TILE", "computed1", dtype, (x, ints(4)), (T((1, 16, 8, 8)),))
        yield Case("TRANSPOSE", "computed1", dtype, (x, ints(4)), (x,))
        yield Case("REVERSE_V2", "computed1", dtype, (x, ints(1)), (x,))
        yield Case("RESHAPE", "computed1", dtype, (x, ints(2)), (T((1, 512)),))
        yield Case("BROADCAST_TO", "computed1", dtype, (T((1, 1, 1, 8)), ints(4)), (x,))
        for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
            yield Case(op, "computed1", dtype, (x, ints(2)), (T((1, 16, 16, 8)),))
        yield Case("SPLIT", "computed0", dtype, (ints(), x), (half,) * 2, {"numSplits": 2})
        parts = (T((1, 8, 8, 2)), T((1, 8, 8, 6)))
        yield Case("SPLIT_V", "computed1", dtype, (x, ints(2), T((), "INT32", 3)), parts, {"numSplits": 2})
        yield Case("SPLIT_V", "computed2", dtype, (x, _ints(2, 6), ints()), parts, {"numSplits": 2})
        yield Case("ARG_MAX", "computed1", dtype, (x, ints()), (T((1, 8, 8), "INT32"),), {"outputType": 2})
        yield Case("TOPK_V2", "computed1", dtype, (T(SHAPES[2]), ints()), (T((4, 3)), T((4, 3), "INT32")))
        blocks = T((4, 4, 4, 8))
        yield Case("SPACE_TO_BATCH_ND", "computed1", dtype, (x, ints(2), zero), (blocks,))
        yield Case("SPACE_TO_BATCH_ND", "computed2", dtype, (x, _ints(2, 2), ints(2, 2)), (blocks,))
        yield Case("BATCH_TO_SPACE_ND", "computed1", dtype, (blocks, ints(2), zero), (x,))
        yield Case("BATCH_TO_SPACE_ND", "computed2", dtype, (blocks, _ints(2, 2), ints(2, 2)), (x,))
        yield Case("SCATTER_ND", "computed2", dtype, (ints(2, 1), T((2, 16)), ints(2)), (T((4, 16)),))
        yield Case("ONE_HOT", "computed1", dtype, (ints(4), ints(), T((), values=1), T((), values=0)), (T((4, 6)),),
                   {"axis": -1})  # fmt: skip
    yield Case("CUMSUM", "computed1", "FLOAT32", (x, ints()), (x,))
    for op in ("CUMSUM", "GATHER", "SELECT_V2"):
        # Which ranks keep an op off v68, where lower ones cannot be created.
        for rank in (5, 6):
            shape = SHAPES[rank]
            if op == "CUMSUM":
                yield Case(op, f"rank{rank}", "FLOAT32", (T(shape), T((), "INT32", rank - 1)), (T(shape),))
            elif op == "GATHER":
                yield Case(op, f"rank{rank}", "FLOAT32", (T(shape), _ints(0, 2)), (T((*shape[:-1], 2)),),
                           {"axis": rank - 1})  # fmt: skip
            elif op == "SELECT_V2":
                yield Case(op, f"rank{rank}", "FLOAT32", (T(shape, "BOOL"), T(shape), T(shape)), (T(shape),))
