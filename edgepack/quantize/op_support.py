"""Ops that each quantizer converts to integers, established with one-op models; the tests repeat them."""

from collections.abc import Iterable


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Ops that TFLiteConverter 2.21's quantizer converts to int8 activations.
CONVERTER_INT8 = _names(
    """
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DIV EQUAL EXP EXPAND_DIMS FULLY_CONNECTED GATHER GATHER_ND GELU GREATER
    GREATER_EQUAL HARD_SWISH L2_NORMALIZATION LEAKY_RELU LESS LESS_EQUAL LOG LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D
    MEAN MINIMUM MIRROR_PAD MUL NOT_EQUAL ONE_HOT PACK PAD PADV2 PRELU REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6
    RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SELECT SELECT_V2 SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE
    TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """
)

#: Ops that ai-edge-quantizer 0.10 converts to int8 activations.
DIRECT_INT8 = _names(
    """
    ADD AVERAGE_POOL_2D BATCH_MATMUL BROADCAST_TO CONCATENATION CONV_2D DEPTHWISE_CONV_2D DIV DYNAMIC_UPDATE_SLICE EQUAL
    FULLY_CONNECTED GATHER GATHER_ND GELU HARD_SWISH LOGISTIC MAXIMUM MAX_POOL_2D MEAN MIRROR_PAD MUL NOT_EQUAL PACK PAD
    PADV2 REDUCE_MIN RELU RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SLICE SOFTMAX
    SPACE_TO_DEPTH SPLIT SQRT SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV UNPACK
    """
)

#: Ops that ai-edge-quantizer leaves in float and `integer_kernels` converts to int8. ELU has an int8 kernel that no
#: quantizer of TFLite uses.
FINISHED_INT8 = _names(
    """
    ABS ARG_MAX ARG_MIN BATCH_TO_SPACE_ND DEPTH_TO_SPACE ELU EXP EXPAND_DIMS GREATER GREATER_EQUAL L2_NORMALIZATION
    LEAKY_RELU LESS LESS_EQUAL LOG LOG_SOFTMAX MINIMUM PRELU REDUCE_MAX RELU6 RELU_N1_TO_1 REVERSE_V2 SPACE_TO_BATCH_ND
    SPLIT_V SQUEEZE TILE TOPK_V2
    """
)

#: Ops that ai-edge-quantizer 0.10 converts to int16 activations.
DIRECT_INT16 = DIRECT_INT8 - {"HARD_SWISH", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE"}

#: Ops whose constant weights become int8 under dynamic range.
DYNAMIC_WEIGHTS = _names("BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D EMBEDDING_LOOKUP FULLY_CONNECTED TRANSPOSE_CONV")

#: Fewest values of weights that become int8 under dynamic range; smaller ones stay float32. The value is
#: TFLiteConverter's, `kWeightsMinNumElementsDefault` in tensorflow/lite/tools/optimize/quantize_weights.cc. Measured as
#: file size and SNR of the logits with 0, 256, 1024 and 4096 values: keyword spotting 36.4 KB and 36.4 dB, the same,
#: 42.2 KB and 36.6 dB, 49.1 KB and 40.1 dB; digits 25.8 KB and 40.4 dB, 26.4 KB and 44.1 dB, 28.7 KB and 47.9 dB,
#: 37.0 KB and 51.7 dB.
DYNAMIC_MIN_ELEMENTS = 1024


def needs_converter(ops: Iterable[str]) -> tuple[str, ...]:
    """Return the ops, sorted, that only TFLiteConverter's quantizer converts to int8; empty without any.

    There is no such choice for int16 activations: TFLiteConverter's quantizer for them accepts no ranges.
    """
    return tuple(sorted(set(ops) & (CONVERTER_INT8 - DIRECT_INT8 - FINISHED_INT8)))


def quantized_ops(ops: Iterable[str], activation_bits: int) -> frozenset[str]:
    """Return the names of ops that become integer in a model with these ops, with the quantizer chosen for it."""
    if activation_bits == 16:
        return DIRECT_INT16
    return CONVERTER_INT8 if needs_converter(ops) else DIRECT_INT8 | FINISHED_INT8
