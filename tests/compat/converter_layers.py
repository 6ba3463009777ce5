"""Convert small layers with TFLiteConverter, and record the verdict of Google's analyzer on each float file.

A layer is named after the TFLite op it becomes and its form. The files are `FOLDER/NAME.tflite` (float),
`FOLDER/NAME int8.tflite`, `FOLDER/NAME int16.tflite` (16-bit activations; not for other forms) and, from the analyzer,
`FOLDER/analyzer.json` (name -> whether it calls the float file compatible with the GPU delegate).
"""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

IMAGE = (1, 8, 8, 4)
_RANDOM = np.random.default_rng(0)

Layer = tuple[Callable[..., Any], tuple[Any, ...]]


def w(*shape: int) -> Any:
    """Return constant weights."""
    return tf.constant(_RANDOM.normal(0, 0.3, shape).astype(np.float32))


def _sparse(*shape: int) -> Any:
    return tf.constant(np.where(_RANDOM.uniform(size=shape) < 0.05, 1.0, 0.0).astype(np.float32))


def _as_number(condition: Any) -> Any:
    return tf.cast(condition, tf.float32)


def _conv(x: Any, *, kernel: Any = None, **settings: Any) -> Any:
    kernel = w(3, 3, 4, 6) if kernel is None else kernel
    strides, padding = settings.pop("strides", 1), settings.pop("padding", "SAME")
    return tf.nn.conv2d(x, kernel, strides, padding, **settings) + w(kernel.shape[-1])


def _depthwise(x: Any, *, stride: int = 1, multiplier: int = 1, dilation: int = 1) -> Any:
    kernel = w(3, 3, x.shape[3], multiplier)
    result = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME", dilations=[dilation] * 2)
    return result + w(x.shape[3] * multiplier)


def _lstm(features: int) -> Layer:
    shape = tf_keras.layers.Input((5, features), batch_size=1)
    return tf_keras.Sequential([shape, tf_keras.layers.LSTM(8, return_sequences=True)]), ((1, 5, features),)


def _prelu(x: Any, slopes: Any) -> Any:
    return tf.nn.relu(x) + -slopes * tf.nn.relu(-x)


def _slice(x: Any, **masks: Any) -> Any:
    return tf.strided_slice(x, [0, 1, 1, 0], [1, 8, 8, 4], masks.pop("strides", [1, 1, 1, 1]), **masks)


_UNARY: dict[str, Callable[[Any], Any]] = {
    "ABS": tf.abs, "CEIL": tf.math.ceil, "COS": tf.cos, "ELU": tf.nn.elu, "EXP": tf.exp, "FLOOR": tf.floor,
    "GELU": lambda x: tf.nn.gelu(x, approximate=True), "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3) * (1 / 6),
    "L2_NORMALIZATION": lambda x: tf.math.l2_normalize(x, -1), "LEAKY_RELU": tf.nn.leaky_relu, "LOG": tf.math.log,
    "LOGISTIC": tf.sigmoid, "LOG_SOFTMAX": tf.nn.log_softmax, "NEG": tf.negative, "RELU": tf.nn.relu,
    "RELU6": tf.nn.relu6, "RELU_0_TO_1": lambda x: tf.minimum(tf.maximum(x, 0.0), 1.0),
    "RELU_N1_TO_1": lambda x: tf.maximum(-1.0, tf.minimum(x, 1.0)), "ROUND": tf.round, "RSQRT": tf.math.rsqrt,
    "SIGN": tf.sign, "SIN": tf.sin, "SQRT": tf.sqrt, "SQUARE": tf.square, "TANH": tf.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "ADD": tf.add, "ATAN2": tf.atan2, "DIV": tf.divide, "FLOOR_DIV": tf.math.floordiv, "FLOOR_MOD": tf.math.floormod,
    "MAXIMUM": tf.maximum, "MINIMUM": tf.minimum, "MUL": tf.multiply, "POW": tf.pow,
    "SQUARED_DIFFERENCE": tf.math.squared_difference, "SUB": tf.subtract,
}  # fmt: skip
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "EQUAL": tf.equal, "GREATER": tf.greater, "GREATER_EQUAL": tf.greater_equal, "LESS": tf.less,
    "LESS_EQUAL": tf.less_equal, "NOT_EQUAL": tf.not_equal,
}  # fmt: skip
_REDUCED: dict[str, Callable[..., Any]] = {
    "MEAN": tf.reduce_mean, "REDUCE_MAX": tf.reduce_max, "REDUCE_MIN": tf.reduce_min, "REDUCE_PROD": tf.reduce_prod,
    "SUM": tf.reduce_sum,
}  # fmt: skip
_INTS = (((4,), tf.int32),)
#: More dimensions than any GPU supports, in an order that no reshape can reduce.
_DEEP = (2, 1, 1, 2, 2, 2, 4)

#: Layers whose op every target supports in any size, as long as the size is static.
_OPENED = (
    "ADD", "ADD_N", "BITCAST", "BITWISE_XOR", "CONCATENATION", "CUMSUM", "DEPTH_TO_SPACE", "HARD_SWISH", "LOGICAL_AND",
    "LOGICAL_NOT", "LOGICAL_OR", "PACK", "PAD", "PADV2", "PRELU", "REDUCE_ALL", "REDUCE_ANY", "RESHAPE", "REVERSE_V2",
    "RIGHT_SHIFT", "SELECT", "SELECT_V2", "SLICE", "SPACE_TO_DEPTH", "TRANSPOSE",
)  # fmt: skip


def _opened(shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return shapes whose second dimension is open; some come with a type."""
    opened = []
    for entry in shapes:
        typed = isinstance(entry[0], tuple)
        shape = entry[0] if typed else entry
        shape = (shape[0], None, *shape[2:])
        opened.append((shape, entry[1]) if typed else shape)
    return tuple(opened)


LAYERS: dict[str, Layer] = {
    **{name: (function, (IMAGE,)) for name, function in _UNARY.items()},
    **{name: (function, (IMAGE, IMAGE)) for name, function in _BINARY.items()},
    **{
        name: (lambda x, y, function=function: _as_number(function(x, y)), (IMAGE, IMAGE))
        for name, function in _COMPARED.items()
    },
    **{
        name: (lambda x, function=function: function(x, [1, 2], keepdims=True), (IMAGE,))
        for name, function in _REDUCED.items()
    },
    "ADD_N": (lambda x, y: tf.add_n([x, y]), (IMAGE, IMAGE)),
    "ARG_MAX": (lambda x: tf.argmax(x, 3, output_type=tf.int32), (IMAGE,)),
    "ARG_MIN": (lambda x: tf.argmin(x, 3, output_type=tf.int32), (IMAGE,)),
    "AVERAGE_POOL_2D": (lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), (IMAGE,)),
    "BATCH_MATMUL": (tf.matmul, ((1, 4, 8), (1, 8, 6))),
    "BATCH_TO_SPACE_ND": (lambda x: tf.batch_to_space(x, [2, 2], [[0, 0], [0, 0]]), ((4, 4, 4, 4),)),
    "BITCAST": (lambda x: tf.bitcast(x, tf.int32), (IMAGE,)),
    "BITWISE_XOR": (tf.bitwise.bitwise_xor, ((IMAGE, tf.int32), (IMAGE, tf.int32))),
    "BROADCAST_TO": (lambda x: tf.broadcast_to(x, [2, 3, 4, 5, 6]), ((1, 3, 1, 5, 6),)),
    "CAST": (lambda x: tf.cast(x, tf.int32), (IMAGE,)),
    "CONCATENATION": (lambda x, y: tf.concat([x, y], 3), (IMAGE, IMAGE)),
    "CONV_2D": (_conv, (IMAGE,)),
    "CONV_3D": (lambda x: tf.nn.conv3d(x, w(2, 2, 2, 3, 4), [1] * 5, "VALID"), ((1, 4, 4, 4, 3),)),
    "CUMSUM": (lambda x: tf.cumsum(x, 1), (IMAGE,)),
    "DEPTHWISE_CONV_2D": (_depthwise, ((1, 8, 8, 32),)),
    "DEPTH_TO_SPACE": (lambda x: tf.nn.depth_to_space(x, 2), (IMAGE,)),
    "EMBEDDING_LOOKUP": (lambda i: tf.nn.embedding_lookup(w(16, 8), i), _INTS),
    "EXPAND_DIMS": (lambda x: tf.expand_dims(x, 1), ((1, 8),)),
    "FULLY_CONNECTED": (lambda x: tf.matmul(x, w(16, 6)) + w(6), ((1, 16),)),
    "GATHER": (lambda x: tf.gather(x, [0, 2], axis=3), (IMAGE,)),
    "GATHER_ND": (lambda x: tf.gather_nd(x, [[0, 1], [0, 2]]), (IMAGE,)),
    "LOGICAL_AND": (lambda x, y: _as_number(tf.logical_and(x > 0, y > 0)), (IMAGE, IMAGE)),
    "LOGICAL_NOT": (tf.logical_not, ((IMAGE, tf.bool),)),
    "LOGICAL_OR": (lambda x, y: _as_number(tf.logical_or(x > 0, y > 0)), (IMAGE, IMAGE)),
    "MAX_POOL_2D": (lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"), (IMAGE,)),
    "MIRROR_PAD": (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), (IMAGE,)),
    "ONE_HOT": (lambda i: tf.one_hot(i, 8), _INTS),
    "PACK": (lambda x, y: tf.stack([x, y], 1), ((1, 8), (1, 8))),
    "PAD": (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), (IMAGE,)),
    "PADV2": (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=0.5), (IMAGE,)),
    "PRELU": (lambda x: _prelu(x, w(1, 1, 4)), (IMAGE,)),
    "QUANTIZE": (lambda x: tf.maximum(x, tf.sigmoid(x)), (IMAGE,)),
    "REDUCE_ALL": (lambda x: tf.reduce_all(x > 0, 3), (IMAGE,)),
    "REDUCE_ANY": (lambda x: tf.reduce_any(x > 0, 3), (IMAGE,)),
    "RESHAPE": (lambda x: tf.reshape(x, [1, 256]), (IMAGE,)),
    "RESIZE_BILINEAR": (lambda x: tf.image.resize(x, [16, 16]), (IMAGE,)),
    "RESIZE_NEAREST_NEIGHBOR": (lambda x: tf.raw_ops.ResizeNearestNeighbor(images=x, size=[16, 16]), (IMAGE,)),
    "REVERSE_V2": (lambda x: tf.reverse(x, [2]), (IMAGE,)),
    "RIGHT_SHIFT": (tf.bitwise.right_shift, ((IMAGE, tf.int32), (IMAGE, tf.int32))),
    "SCATTER_ND": (lambda x: tf.scatter_nd([[1], [3]], x, [8, 4]), ((2, 4),)),
    "SELECT": (lambda x, y: tf.raw_ops.Select(condition=x > y, x=x, y=y), (IMAGE, IMAGE)),
    "SELECT_V2": (lambda x, y: tf.where(x > y, x, 0.0), (IMAGE, IMAGE)),
    "SLICE": (lambda x: tf.slice(x, [0, 1, 1, 0], [1, 4, 4, 4]), (IMAGE,)),
    "SOFTMAX": (tf.nn.softmax, ((1, 10),)),
    "SPACE_TO_BATCH_ND": (lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]]), (IMAGE,)),
    "SPACE_TO_DEPTH": (lambda x: tf.nn.space_to_depth(x, 2), (IMAGE,)),
    "SPLIT": (lambda x: tuple(tf.split(x, 2, 3)), (IMAGE,)),
    "SPLIT_V": (lambda x: tuple(tf.split(x, [1, 3], 3)), (IMAGE,)),
    "SQUEEZE": (lambda x: tf.squeeze(x, [1]), ((1, 1, 8, 4),)),
    "STRIDED_SLICE": (lambda x: _slice(x, strides=[1, 2, 2, 1]), (IMAGE,)),
    "TILE": (lambda x: tf.tile(x, [1, 1, 1, 2]), (IMAGE,)),
    "TOPK_V2": (lambda x: tf.math.top_k(x, 2).values, (IMAGE,)),
    "TRANSPOSE": (lambda x: tf.transpose(x, [0, 2, 1, 3]), (IMAGE,)),
    "TRANSPOSE_CONV": (lambda x: tf.nn.conv2d_transpose(x, w(3, 3, 6, 4), [1, 16, 16, 6], 2) + w(6), (IMAGE,)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm(6),
    "UNPACK": (lambda x: tuple(tf.unstack(x, axis=1)), ((1, 2, 8),)),
    # Forms that at least one target refuses.
    **{f"{name} deep": (function, (_DEEP,)) for name, function in _UNARY.items()},
    **{f"{name} deep": (function, (_DEEP, _DEEP)) for name, function in _BINARY.items()},
    **{
        f"{name} deep": (lambda x, y, function=function: _as_number(function(x, y)), (_DEEP, _DEEP))
        for name, function in _COMPARED.items()
    },
    **{
        f"{name} deep": (lambda x, function=function: function(x, [3, 5], keepdims=True), (_DEEP,))
        for name, function in _REDUCED.items()
    },
    "ADD rank5": (tf.add, ((2, 2, 8, 8, 4), (2, 2, 8, 8, 4))),
    "ADD ranks": (tf.add, ((2, 8, 8, 4), (8, 8, 4))),
    "ADD relu1": (lambda x, y: tf.maximum(-1.0, tf.minimum(x + y, 1.0)), (IMAGE, IMAGE)),
    "AVERAGE_POOL_2D relu": (lambda x: tf.nn.relu6(tf.nn.avg_pool2d(x, 2, 2, "VALID")), (IMAGE,)),
    "CAST int64": (lambda x: tf.cast(x, tf.int64), (IMAGE,)),
    "CONCATENATION constant": (lambda x: tf.concat([x, w(1, 8, 8, 4)], 3), (IMAGE,)),
    "CONCATENATION zeros": (lambda x: tf.concat([x, tf.zeros((1, 8, 8, 4))], 3), (IMAGE,)),
    "CONV_2D batch": (_conv, ((4, 8, 8, 4),)),
    "CONV_2D computed": (lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), (IMAGE, (3, 3, 4, 6))),
    "CONV_2D dilated": (lambda x: tf.nn.conv2d(x, w(3, 3, 4, 6), 1, "SAME", dilations=[1, 2]), (IMAGE,)),
    "CONV_2D grouped": (lambda x: _conv(x, kernel=w(3, 3, 2, 6)), (IMAGE,)),
    "CONV_2D stride4": (lambda x: _conv(x, strides=4), (IMAGE,)),
    "CUMSUM exclusive": (lambda x, i: tf.cumsum(x, tf.reduce_sum(i) * 0 + 1), (IMAGE, ((1,), tf.int32))),
    "DENSIFY": (lambda x: _conv(x, kernel=_sparse(1, 1, 4, 64)), (IMAGE,)),
    "DEPTHWISE_CONV_2D multiplied": (lambda x: _depthwise(x, multiplier=2, dilation=2), (IMAGE,)),
    "FULLY_CONNECTED one scale": (lambda x: tf.matmul(x, w(16, 6)) + w(6), ((1, 16),)),
    "FULLY_CONNECTED map": (lambda x: tf.tensordot(x, w(16, 6), [[2], [0]]) + w(6), ((1, 5, 16),)),
    "FULLY_CONNECTED computed": (lambda x, y: tf.matmul(x, y, transpose_b=True), ((1, 16), (6, 16))),
    "GATHER square": (lambda x: tf.gather(x, [[0, 1], [2, 3]], axis=2), ((1, 8, 4),)),
    "LESS shown": (tf.less, (IMAGE, IMAGE)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM wide": _lstm(1280),
    "MEAN batch": (lambda x: tf.reduce_mean(x, [0, 1]), (IMAGE,)),
    "MEAN channels": (lambda x: tf.reduce_mean(x, 3), ((1, 4, 4, 6),)),
    "MEAN large": (lambda x: tf.reduce_mean(x, [1, 2], keepdims=True), ((1, 256, 128, 3),)),
    "MIRROR_PAD symmetric": (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"), (IMAGE,)),
    "PACK batch": (lambda x, y: tf.stack([x, y], 0), ((1, 8), (1, 8))),
    "PRELU map": (lambda x: _prelu(x, w(8, 8, 4)), (IMAGE,)),
    "RELU full": (tf.nn.relu, ((2, 2, 8, 8, 4),)),
    "RESIZE_BILINEAR aligned": (
        lambda x: tf.raw_ops.ResizeBilinear(images=x, size=[16, 16], align_corners=True), (IMAGE,)
    ),
    "RESIZE_BILINEAR large": (lambda x: tf.image.resize(x, [64, 64]), (IMAGE,)),
    "SEGMENT_SUM": (lambda x: tf.math.segment_sum(x, [0, 0, 1, 1]), ((4, 6),)),
    "SOFTMAX large": (tf.nn.softmax, ((1, 20000),)),
    "SOFTMAX map": (tf.nn.softmax, (IMAGE,)),
    "SPLIT batch": (lambda x: tuple(tf.split(x, 2, 0)), ((2, 8),)),
    "STRIDED_SLICE shrink": (lambda x: x[:, 2], (IMAGE,)),
    "STRIDED_SLICE axis": (lambda x: tf.strided_slice(x, [0, 0], [1, 8], [1, 1], new_axis_mask=1), ((1, 8),)),
    "TRANSPOSE large": (lambda x: tf.transpose(x, [0, 2, 1, 3]), ((1, 784, 3, 85),)),
}  # fmt: skip
LAYERS |= {f"{name} open": (LAYERS[name][0], _opened(LAYERS[name][1])) for name in _OPENED}


def _specs(shapes: tuple[Any, ...]) -> list[Any]:
    specs = []
    for i, entry in enumerate(shapes):
        typed = len(entry) == 2 and isinstance(entry[0], tuple)
        shape, kind = entry if typed else (entry, tf.float32)
        specs.append(tf.TensorSpec(shape, kind, name=f"x{i}"))
    return specs


def _samples(specs: list[Any]) -> Iterator[list[Any]]:
    for _ in range(2):
        yield [
            _RANDOM.uniform(0.1, 1, spec.shape).astype(np.float32)
            if spec.dtype == tf.float32
            else np.ones(spec.shape, spec.dtype.as_numpy_dtype)
            for spec in specs
        ]


def _compatible(data: bytes) -> bool:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        tf.lite.experimental.Analyzer.analyze(model_content=data, gpu_compatibility=True)
    return "Your model looks compatible with GPU delegate" in printed.getvalue()


def _converter(name: str, function: Any, concrete: Any) -> Any:
    holder = function if isinstance(function, tf.Module) else concrete
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    if name == "DENSIFY":
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if name == "FULLY_CONNECTED one scale":
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def write(folder_: str) -> None:
    """Write all files; a layer that cannot be quantized has only its float file."""
    folder = Path(folder_)
    verdicts = {}
    for name, (function, shapes) in LAYERS.items():
        specs = _specs(shapes)
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        data = _converter(name, function, concrete).convert()
        (folder / f"{name}.tflite").write_bytes(data)
        verdicts[name] = _compatible(data)
        form = name.partition(" ")[2]
        if name == "DENSIFY" or form in ("deep", "open"):
            continue
        for scheme, kind in (("int8", tf.int8), *(() if form else (("int16", tf.int16),))):
            converter = _converter(name, function, concrete)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda specs=specs: _samples(specs)
            if kind is tf.int16:
                wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
                converter.target_spec.supported_ops = [wide, tf.lite.OpsSet.TFLITE_BUILTINS]
            if all(spec.dtype == tf.float32 for spec in specs) and "CAST" not in name:
                converter.inference_input_type = converter.inference_output_type = kind
            with contextlib.suppress(Exception):
                # Not every op can be quantized in every scheme; the float file exists in any case.
                (folder / f"{name} {scheme}.tflite").write_bytes(converter.convert())
    (folder / "analyzer.json").write_text(json.dumps(verdicts, indent=1, sort_keys=True))
