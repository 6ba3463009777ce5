"""Lowering of ops that compute each value on its own, with broadcasting where there are two operands."""

from collections.abc import Callable
from typing import Any

from edgepack.graph.op_layout import ACTIVATION_BOUNDS, RELU6_MAX
from edgepack.quantize.ptq.lowering.call import Call, Lowering, TfTensor, activate
from edgepack.quantize.ptq.lowering.lazy import function, tf

#: Smallest norm that L2_NORMALIZATION divides by (tensorflow/lite/kernels/l2norm.cc).
_SMALLEST_NORM = 1e-6


def _unary(compute: Callable[[TfTensor], TfTensor]) -> Lowering:
    return lambda call: compute(call.batched(0))


def _binary(compute: Callable[[TfTensor, TfTensor], TfTensor]) -> Lowering:
    return lambda call: call.activated(compute(*call.aligned(0, 1)))


def hard_swish(values: TfTensor) -> TfTensor:
    """Return x * relu6(x + 3) / 6."""
    return values * tf.nn.relu6(values + 3.0) * (1.0 / RELU6_MAX)


def square_root(values: TfTensor) -> TfTensor:
    """Return the root, with a gradient of 0 where the values are 0: an infinite one would spoil all before it."""
    positive = values > 0.0
    return tf.where(positive, tf.sqrt(tf.where(positive, values, 1.0)), tf.stop_gradient(tf.sqrt(values)))


def leaky_relu(call: Call) -> Any:
    """Lower LEAKY_RELU."""
    x = call.batched(0)
    return tf.where(x > 0.0, x, x * call.option("alpha", 0.0))


def prelu(call: Call) -> Any:
    """Lower PRELU: the slope broadcasts."""
    x, slope = call.aligned(0, 1)
    return tf.where(x >= 0.0, x, x * slope)


def gelu(call: Call) -> Any:
    """Lower GELU, by tanh where the op says so."""
    return tf.nn.gelu(call.batched(0), approximate=bool(call.option("approximate", False)))


def softmax(call: Call) -> Any:
    """Lower SOFTMAX along the last axis."""
    return tf.nn.softmax(call.batched(0) * call.option("beta", 1.0))


def l2_normalization(call: Call) -> Any:
    """Lower L2_NORMALIZATION along the last axis."""
    x = call.batched(0)
    # The limit is applied to the square: the slope of a root at 0 is infinite.
    square = tf.maximum(tf.reduce_sum(tf.square(x), -1, keepdims=True), _SMALLEST_NORM**2)
    return call.activated(x / tf.sqrt(square))


def add_n(call: Call) -> Any:
    """Lower ADD_N: a sum of tensors of one shape."""
    return tf.add_n([call.batched(position) for position in range(len(call.operands))])


def select(call: Call) -> Any:
    """Lower SELECT: the condition has the operands' shape, or chooses along axis 0."""
    condition, first, second = (call.batched(position) for position in range(3))
    rank, missing = call.rank(1), call.rank(1) - call.rank(0)
    if missing > 0 and rank > 1:
        condition = tf.reshape(condition, [call.batch, *call.shape(0), *[1] * missing])
    return tf.where(condition, first, second)


def select_v2(call: Call) -> Any:
    """Lower SELECT_V2, which broadcasts."""
    return tf.where(*call.aligned(0, 1, 2))


def cast(call: Call) -> Any:
    """Lower CAST to the type of the result."""
    return tf.cast(call.batched(0), call.dtype())


def bucketize(call: Call) -> Any:
    """Lower BUCKETIZE."""
    return tf.raw_ops.Bucketize(input=call.batched(0), boundaries=[float(b) for b in call.option("boundaries", ())])


def fake_quant(call: Call) -> Any:
    """Lower FAKE_QUANT; its gradient is that of a straight-through estimator."""
    return tf.quantization.fake_quant_with_min_max_args(
        call.batched(0),
        min=call.option("min", 0.0),
        max=call.option("max", 0.0),
        num_bits=call.option("num_bits", 8),
        narrow_range=bool(call.option("narrow_range", False)),
    )


_UNARY: dict[str, Callable[[TfTensor], TfTensor]] = {
    "ABS": function("abs"),
    "CEIL": function("math.ceil"),
    "COMPLEX_ABS": function("abs"),
    "COS": function("cos"),
    "ELU": function("nn.elu"),
    "EXP": function("exp"),
    "FLOOR": function("floor"),
    "HARD_SWISH": hard_swish,
    "IMAG": function("math.imag"),
    "LOG": function("math.log"),
    "LOGICAL_NOT": function("logical_not"),
    "LOGISTIC": function("sigmoid"),
    "LOG_SOFTMAX": function("nn.log_softmax"),
    "NEG": lambda x: -x,
    "REAL": function("math.real"),
    "RELU": function("nn.relu"),
    "RELU6": function("nn.relu6"),
    "RELU_0_TO_1": lambda x: tf.clip_by_value(x, 0.0, 1.0),
    "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, *ACTIVATION_BOUNDS["RELU_N1_TO_1"]),
    "ROUND": function("round"),
    "RSQRT": function("math.rsqrt"),
    "SIGN": function("sign"),
    "SIN": function("sin"),
    "SQRT": square_root,
    "SQUARE": function("square"),
    "TANH": lambda x: activate("TANH", x),
    "ZEROS_LIKE": function("zeros_like"),
}

_BINARY: dict[str, Callable[[TfTensor, TfTensor], TfTensor]] = {
    "ADD": lambda a, b: a + b,
    "ATAN2": function("atan2"),
    "BITWISE_XOR": function("bitwise.bitwise_xor"),
    "DIV": lambda a, b: a / b if a.dtype.is_floating else tf.truncatediv(a, b),
    "EQUAL": function("equal"),
    "FLOOR_DIV": function("math.floordiv"),
    "FLOOR_MOD": function("math.floormod"),
    "GREATER": function("greater"),
    "GREATER_EQUAL": function("greater_equal"),
    "LESS": function("less"),
    "LESS_EQUAL": function("less_equal"),
    "LOGICAL_AND": function("logical_and"),
    "LOGICAL_OR": function("logical_or"),
    "MAXIMUM": function("maximum"),
    "MINIMUM": function("minimum"),
    "MUL": lambda a, b: a * b,
    "NOT_EQUAL": function("not_equal"),
    "POW": function("pow"),
    "RIGHT_SHIFT": function("bitwise.right_shift"),
    "SQUARED_DIFFERENCE": function("math.squared_difference"),
    "SUB": lambda a, b: a - b,
}

OPS: dict[str, Lowering] = {
    **{name: _unary(compute) for name, compute in _UNARY.items()},
    **{name: _binary(compute) for name, compute in _BINARY.items()},
    "ADD_N": add_n,
    "BUCKETIZE": bucketize,
    "CAST": cast,
    "FAKE_QUANT": fake_quant,
    "GELU": gelu,
    "L2_NORMALIZATION": l2_normalization,
    "LEAKY_RELU": leaky_relu,
    "PRELU": prelu,
    "SELECT": select,
    "SELECT_V2": select_v2,
    "SOFTMAX": softmax,
}
