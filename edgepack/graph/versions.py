"""Operator versions: the version of each op of a .tflite that follows from its types, shapes and options.

Source: tensorflow/compiler/mlir/lite/tools/versioning/op_version.cc in github.com/tensorflow/tensorflow, checked
against files that TFLiteConverter 2.21 wrote for 120 one-op models in float, float16, dynamic range and int8. Versions
decide which runtime a file needs: with 1 everywhere, as some producers write, old runtimes misread the file.

One deliberate difference: TFLiteConverter 2.21 leaves the versions of int8 and the `min_runtime_version` of float in
int16x8 files, and op_version.cc returns 1 for some of their convolutions. Here they get those of the kernels with
int16 activations: CONV_2D 4, DEPTHWISE_CONV_2D 5 and FULLY_CONNECTED 7 (TensorFlow 2.3), with 32-bit biases those of
2.15, also TRANSPOSE_CONV 5, for which op_version.cc reads the output shape in place of the activation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp

from edgepack.graph.memo import Memo
from edgepack.graph.model import Graph, Model, Op, Tensor


@dataclass(frozen=True)
class _Call:
    """An op with its tensors, the input of the rules below."""

    op: Op
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]

    def input(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def type(self, index: int) -> str:
        """Type of an input, empty when it is left out."""
        tensor = self.input(index)
        return "" if tensor is None else tensor.dtype

    def rank(self, index: int) -> int:
        tensor = self.input(index)
        return 0 if tensor is None else tensor.rank

    @property
    def first_output(self) -> Tensor | None:
        return self.outputs[0] if self.outputs else None

    @property
    def output(self) -> str:
        return self.outputs[0].dtype if self.outputs else ""

    def types(self, weights: int = 1, data: int = 0) -> tuple[str, str, str]:
        """Types of activation, weights and output."""
        return self.type(data), self.type(weights), self.output

    def flag(self, name: str) -> bool:
        value = self.op.options.get(name, 0)
        # `quantized_bias_type` FLOAT32 is the schema's default and means that it is not set.
        return bool(value) and value not in ("NONE", "FLOAT32")


#: Returns the version that the op needs, 0 when the rule does not apply.
_Rule = Callable[[_Call], int]

_HYBRID = ("FLOAT32", "INT8", "FLOAT32")
_INT16X8 = ("INT16", "INT8", "INT16")


def _scale(tensor: Tensor | None) -> float:
    if tensor is None or tensor.quantization is None or not tensor.quantization.scale.size:
        return 0.0
    return float(tensor.quantization.scale[0])


def _per_channel(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.quantization is not None and tensor.quantization.per_channel


def _if(test: Callable[[_Call], bool], version: int) -> _Rule:
    return lambda call: version if test(call) else 0


def _is(version: int, *types: str, at: int = 0) -> _Rule:
    """An input has one of the types."""
    return _if(lambda call: call.type(at) in types, version)


def _touches(version: int, *types: str) -> _Rule:
    """The first input or the output has one of the types."""
    return _if(lambda call: call.type(0) in types or call.output in types, version)


def _option(version: int, *names: str) -> _Rule:
    """One of the options is set."""
    return _if(lambda call: any(call.flag(name) for name in names), version)


def _rank_above(limit: int, version: int) -> _Rule:
    return _if(lambda call: call.rank(0) > limit, version)


def _all(version: int, *types: str, weights: int = 1) -> _Rule:
    """Activation, weights and output have exactly these types."""
    return _if(lambda call: call.types(weights) == types, version)


def _hybrid(plain: int, asymmetric: int, weights: int = 1) -> _Rule:
    """Float activations with int8 weights; newer kernels quantize the activations asymmetrically."""

    def rule(call: _Call) -> int:
        if call.types(weights) != _HYBRID:
            return 0
        return asymmetric if call.flag("asymmetric_quantize_inputs") else plain

    return rule


def _hybrid_per_channel(version: int) -> _Rule:
    return _if(lambda call: call.types() == _HYBRID and _per_channel(call.input(1)), version)


def _unquantized(version: int, kind: str) -> _Rule:
    return _if(lambda call: call.type(0) == kind and _scale(call.input(0)) == 0, version)


def _chosen_bias(version: int, data: int = 0) -> _Rule:
    return _if(lambda call: call.types(data=data) == _INT16X8 and call.flag("quantized_bias_type"), version)


def _broadcasts_above_4(call: _Call) -> bool:
    left, right = call.input(0), call.input(1)
    return left is not None and right is not None and left.shape != right.shape and max(left.rank, right.rank) > 4


def _grouped(call: _Call) -> bool:
    # The weights are (out, height, width, in per group): fewer channels than the image's mean a grouped convolution.
    image, kernel = call.input(0), call.input(1)
    if image is None or kernel is None or (image.rank, kernel.rank) != (4, 4):
        return False
    return image.shape[3] != kernel.shape[3]


def _rescales_by_1_or_more(call: _Call) -> bool:
    scales = [_scale(tensor) for tensor in (call.input(0), call.input(1), call.first_output)]
    return all(scales) and scales[0] * scales[1] / scales[2] >= 1.0


def _free_int16_scales(call: _Call) -> bool:
    # The option defaults to true, and producers leave the default: the kernel also checks the scales.
    scales = [_scale(tensor) for tensor in (call.input(0), call.input(1), *call.outputs[:1])]
    powers_of_two = all(frexp(scale)[0] == 0.5 for scale in scales)
    return call.type(0) == call.output == "INT16" and not (call.flag("pot_scale_int16") and powers_of_two)


def _dilated(call: _Call) -> bool:
    return (call.op.options.get("dilation_w", 1), call.op.options.get("dilation_h", 1)) != (1, 1)


def _sparse_weights(call: _Call) -> bool:
    weights = call.input(1)
    return weights is not None and weights.has_sparsity


def _simple_lstm(call: _Call) -> bool:
    return bool(call.op.options.get("kernel_type", "FULL") != "FULL")


_INT8 = (_is(2, "INT8"),)
_INT8_INT16 = _is(2, "INT8"), _is(3, "INT16")
_EITHER = (_is(2, "INT8", "INT16"),)
_MAXIMUM = (
    _if(lambda call: call.type(0) == call.output == "INT16", 4),
    _if(_broadcasts_above_4, 3),
    _is(2, "INT8"),
)
_PAD = _is(5, "BOOL"), _rank_above(4, 4), _is(3, "INT16"), _is(2, "INT8")
_BATCH_SPACE = _is(4, "INT16"), _if(lambda call: call.rank(0) != 4, 3), _is(2, "INT8")
_ARG = _is(2, "INT8"), _is(3, "BOOL")
_HYBRID_RNN = (
    _if(lambda call: call.type(1) != "INT8" or call.output != "FLOAT32", 1),
    _option(3, "asymmetric_quantize_inputs"),
    _is(2, "INT8", at=1),
)

#: Rules of each op, in order: the first that applies determines the version, which is 1 if none does.
_RULES: dict[str, tuple[_Rule, ...]] = {
    "ABS": (_unquantized(4, "INT16"), _is(3, "INT16"), _is(5, "INT32"), _is(2, "INT8", "UINT8")),
    "ADD": (
        _is(6, "FLOAT16"),
        _unquantized(5, "INT16"),
        _is(4, "INT64"),
        _if(_free_int16_scales, 3),
        _is(2, "INT8"),
    ),
    "ARG_MAX": _ARG,
    "ARG_MIN": _ARG,
    "AVERAGE_POOL_2D": _INT8_INT16,
    "BATCH_MATMUL": (_is(3, "INT16"), _is(2, "INT8"), _hybrid(1, 4)),
    "BATCH_TO_SPACE_ND": _BATCH_SPACE,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _HYBRID_RNN,
    "BIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_RNN,
    "BROADCAST_TO": (_is(3, "INT8", "INT16"), _if(lambda call: True, 2)),
    "CAST": (
        _touches(8, "INT2", "UINT4"),
        _touches(7, "BFLOAT16"),
        _if(lambda call: (call.type(0), call.output) == ("INT4", "FLOAT32"), 6),
        _touches(5, "FLOAT64", "FLOAT16"),
        _touches(4, "UINT16"),
        _touches(3, "INT8"),
        _touches(2, "UINT32"),
    ),
    "CONCATENATION": (_is(5, "INT4"), _is(4, "UINT32"), _is(3, "INT16"), _is(2, "INT8")),
    "CONV_2D": (
        _chosen_bias(8),
        _if(_grouped, 6),
        _all(4, *_INT16X8),
        _all(3, "INT8", "INT8", "INT8"),
        _all(7, "INT8", "INT4", "INT8"),
        _hybrid_per_channel(5),
        _all(2, *_HYBRID),
    ),
    "DEPTHWISE_CONV_2D": (
        _all(5, *_INT16X8),
        _hybrid_per_channel(6),
        _all(4, *_HYBRID),
        _all(3, "INT8", "INT8", "INT8"),
        _all(7, "INT8", "INT4", "INT8"),
        _if(_dilated, 2),
    ),
    "DEPTH_TO_SPACE": _INT8,
    "DEQUANTIZE": (
        _is(8, "UINT4"),
        _is(7, "INT2"),
        _is(6, "INT4"),
        _is(3, "INT16", "FLOAT16"),
        _if(lambda call: call.type(0) == "INT8" and _per_channel(call.input(0)), 5),
        _is(2, "INT8"),
    ),
    "DIV": (_if(_broadcasts_above_4, 2),),
    "DYNAMIC_UPDATE_SLICE": (
        _is(6, "BFLOAT16"),
        _is(5, "INT4"),
        _is(4, "INT16"),
        _is(3, "FLOAT16"),
        _is(2, "INT64", at=2),
    ),
    "EMBEDDING_LOOKUP": (
        _if(lambda call: call.type(1) == "INT4" or _per_channel(call.input(1)), 4),
        _is(5, "INT2", at=1),
    ),
    "EQUAL": (_is(5, "INT16"), _is(3, "STRING"), _is(2, "INT8")),
    "EXP": _EITHER,
    "FAKE_QUANT": (_option(2, "narrow_range"),),
    "FILL": (_is(4, "FLOAT16", at=1), _is(3, "INT8", "INT16", at=1), _is(2, "BOOL", "STRING", at=1)),
    "FLOOR_DIV": (_is(3, "INT8", "INT16"), _is(2, "FLOAT32")),
    "FLOOR_MOD": _EITHER,
    "FULLY_CONNECTED": (
        _is(14, "INT2", at=1),
        _all(13, "INT16", "INT4", "INT16"),
        _hybrid_per_channel(12),
        _chosen_bias(11),
        _if(_sparse_weights, 8),
        _all(7, "INT16", "INT16", "INT16"),
        _all(7, *_INT16X8),
        _if(lambda call: len(call.inputs) == 2, 6),
        _option(5, "keep_num_dims"),
        _all(4, "INT8", "INT8", "INT8"),
        _all(10, "INT8", "INT4", "INT8"),
        _hybrid(3, 9),
        _if(lambda call: call.op.options.get("weights_format") == "SHUFFLED4x16INT8", 2),
    ),
    "GATHER": (
        _is(7, "INT4"),
        _is(6, "INT16", at=1),
        _option(5, "batch_dims"),
        _is(4, "INT16"),
        _is(3, "BOOL"),
        _is(2, "INT8"),
    ),
    "GATHER_ND": (_is(5, "BOOL"), _is(4, "INT16", at=1), _is(3, "INT16"), _is(2, "STRING")),
    "GELU": (_is(2, "INT8", "UINT8"),),
    "GREATER": _INT8,
    "GREATER_EQUAL": _INT8_INT16,
    "L2_NORMALIZATION": (_if(lambda call: call.output == "INT8", 2),),
    "LEAKY_RELU": (_is(2, "INT16"),),
    "LESS": _INT8_INT16,
    "LESS_EQUAL": _INT8,
    "LOG": _EITHER,
    "LOGISTIC": _INT8_INT16,
    "LOG_SOFTMAX": _INT8,
    "LSTM": (_if(_simple_lstm, 2), _all(5, *_INT16X8, weights=2), _hybrid(3, 4, weights=2)),
    "MAXIMUM": _MAXIMUM,
    "MAX_POOL_2D": _INT8_INT16,
    "MEAN": _INT8_INT16,
    "MINIMUM": _MAXIMUM,
    "MIRROR_PAD": _INT8_INT16,
    "MUL": (
        _is(8, "FLOAT16"),
        _unquantized(7, "INT16"),
        _is(7, "UINT32"),
        _is(6, "COMPLEX64"),
        _is(5, "INT64"),
        _is(4, "INT16"),
        _if(_rescales_by_1_or_more, 3),
        _is(2, "INT8"),
    ),
    "NOT_EQUAL": (_is(4, "INT16"), _is(3, "STRING"), _is(2, "INT8")),
    "PACK": (_is(2, "INT8"), _is(3, "INT16"), _is(4, "UINT32")),
    "PAD": _PAD,
    "PADV2": _PAD,
    "QUANTIZE": (
        _touches(5, "UINT4"),
        _touches(4, "INT4"),
        _if(lambda call: _per_channel(call.first_output), 3),
        _if(lambda call: call.output == "INT16", 2),
    ),
    "RANGE": (_is(2, "INT64"),),
    "REDUCE_MAX": _INT8_INT16,
    "REDUCE_MIN": _INT8_INT16,
    "REDUCE_PROD": _EITHER,
    "RELU": (_is(3, "INT16"), _is(2, "INT8", "UINT8")),
    "RELU6": _INT8_INT16,
    "RESIZE_BILINEAR": (_is(4, "INT16"), _option(3, "half_pixel_centers"), _is(2, "INT8")),
    "RESIZE_NEAREST_NEIGHBOR": (_is(4, "INT16"), _option(3, "half_pixel_centers", "align_corners"), _is(2, "INT8")),
    "REVERSE_V2": (_is(3, "INT8"), _is(2, "BOOL")),
    "RNN": _HYBRID_RNN,
    "RSQRT": _INT8_INT16,
    "SELECT": (
        _is(4, "UINT32"),
        _if(lambda call: any(call.rank(i) == 5 for i in range(3)), 3),
        _is(2, "INT8"),
    ),
    "SELECT_V2": (_is(2, "UINT32"),),
    "SIGN": (_is(2, "INT32"),),
    "SLICE": (
        _is(7, "INT4"),
        _is(6, "UINT32"),
        _rank_above(4, 5),
        _is(4, "INT16"),
        _is(3, "STRING"),
        _is(2, "INT8"),
    ),
    "SOFTMAX": _INT8_INT16,
    "SPACE_TO_BATCH_ND": _BATCH_SPACE,
    "SPACE_TO_DEPTH": _INT8,
    "SPARSE_TO_DENSE": (_is(3, "INT8", "UINT8", at=2), _is(2, "INT64", at=2)),
    "SPLIT": (_is(4, "INT16", at=1), _is(3, "INT32", at=1), _is(2, "INT8", at=1)),
    "SPLIT_V": _INT8,
    "SQRT": _EITHER,
    "SQUARED_DIFFERENCE": _INT8,
    "SQUEEZE": (_is(2, "STRING"),),
    "STRIDED_SLICE": (
        _option(8, "offset"),
        _is(7, "UINT32"),
        _option(6, "ellipsis_mask", "new_axis_mask"),
        _is(5, "STRING"),
        _rank_above(4, 4),
        _is(3, "BOOL"),
        _is(2, "INT8"),
    ),
    "SUB": (
        _if(_free_int16_scales, 5),
        _is(4, "INT64"),
        _if(_broadcasts_above_4, 3),
        _is(2, "INT8"),
    ),
    "SUM": _INT8,
    "SVDF": (_is(3, "INT8"), _hybrid(2, 4)),
    "TANH": _INT8_INT16,
    "TILE": (_is(3, "INT8"), _is(2, "STRING")),
    "TOPK_V2": (
        _if(lambda call: "INT16" in (call.type(0), call.type(1), *(t.dtype for t in call.outputs[1:2])), 3),
        _is(2, "INT8"),
    ),
    "TRANSPOSE": (
        _rank_above(6, 8),
        _is(8, "BFLOAT16"),
        _is(7, "INT4"),
        _rank_above(5, 6),
        _is(5, "INT16"),
        _rank_above(4, 4),
        _is(3, "BOOL"),
        _is(2, "INT8"),
    ),
    "TRANSPOSE_CONV": (
        _chosen_bias(5, data=2),
        _option(4, "fused_activation"),
        _if(lambda call: call.input(3) is not None, 3),
        _is(2, "INT8", at=1),
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        _all(5, *_INT16X8, weights=2),
        _option(4, "diagonal_recurrent_tensors"),
        _hybrid(2, 3, weights=2),
    ),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _HYBRID_RNN,
    "UNPACK": (_is(2, "INT8", "UINT8"), _is(3, "BOOL"), _is(4, "INT16"), _is(5, "FLOAT16", "BFLOAT16")),
    "WHERE": (_is(1, "BOOL"), _if(lambda call: True, 2)),
}


def op_version(graph: Graph, op: Op) -> int:
    """Return the version that this op needs by itself.

    A custom op keeps the version of the file, because only its author knows what it means.
    """
    if op.name == "CUSTOM":
        return op.version
    call = _Call(op, graph.op_inputs(op), graph.op_outputs(op))
    return next((version for rule in _RULES.get(op.name, ()) if (version := rule(call))), 1)


def file_versions(model: Model, memo: Memo | None = None) -> dict[tuple[int, int], int]:
    """Return the version of every op as TFLiteConverter writes it, keyed by (subgraph, op index).

    TFLiteConverter keeps one operator code per builtin: every op of a kind has the highest version that one needs.
    """
    get = (memo or Memo()).about
    own = {(n, o.index): (o.label, get("version", op_version, g, o)) for n, g in enumerate(model.graphs) for o in g.ops}
    highest: dict[str, int] = {}
    for label, needed in own.values():
        highest[label] = max(needed, highest.get(label, 1))
    return {key: highest[label] for key, (label, _) in own.items()}
