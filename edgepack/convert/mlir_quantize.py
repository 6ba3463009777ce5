"""TFLiteConverter's own quantizer on a float .tflite with ranges: the fallback when ai-edge-quantizer refuses.

It runs TensorFlow, which aborts the process on models that it does not support: run `MLIR_QUANTIZE` in a child process.
"""

from typing import Any

from edgepack.child import Job
from edgepack.convert.environment import import_tensorflow
from edgepack.convert.lstm_states import with_state_ranges
from edgepack.errors import QuantizationError
from edgepack.samples import SampleSet
from edgepack.text import first_line


def mlir_quantize(
    tflite: bytes,
    *,
    io: str = "FLOAT32",
    fully_connected: str = "per-channel",
    weights: str = "per-channel",
    activations: str = "INT8",
    samples: SampleSet | int = 0,
) -> bytes:
    """Quantize a float .tflite whose tensors have (minimum, maximum), as `graph.edit.set_ranges` writes them, to int8.

    Args:
        tflite: The float model with ranges.
        io: Type of inputs and outputs: `FLOAT32`, `INT8` or `UINT8`.
        fully_connected: Granularity of FULLY_CONNECTED weights: `per-channel` or `per-tensor`.
        weights: Granularity of all other weights; `per-tensor` applies to FULLY_CONNECTED as well.
        activations: Type of activations; only `INT8`. TensorFlow quantizes to int16 by another path, which accepts no
            ranges: with ranges this quantizer writes int32 biases and asymmetric scales, which the int16 kernels
            refuse.
        samples: Calibration samples, or how many random ones; only models with LSTM ops need them, see
            `lstm_states.with_state_ranges`.

    Returns:
        The quantized model; signatures and names are those that TFLiteConverter writes.

    Raises:
        QuantizationError: TFLiteConverter's quantizer failed, or does not support the types.
    """
    if activations != "INT8":
        raise QuantizationError(
            f"TFLiteConverter's quantizer accepts ranges for INT8 activations only, got {activations}"
        )
    if io not in ("FLOAT32", "INT8", "UINT8"):
        raise QuantizationError(
            f"TFLiteConverter's quantizer does not support inputs and outputs of type {io}: expected FLOAT32, INT8 or"
            " UINT8"
        )
    tf = import_tensorflow()
    from tensorflow.lite.python import convert, util

    tflite = with_state_ranges(tflite, samples)
    types: dict[str, Any] = {"FLOAT32": tf.float32, "INT8": tf.int8, "UINT8": tf.uint8}
    try:
        quantized: bytes = convert.mlir_quantize(
            tflite,
            disable_per_channel=weights == "per-tensor",
            disable_per_channel_for_dense_layers=fully_connected == "per-tensor",
        )
        if io != "FLOAT32":
            # The quantizer leaves float inputs and outputs; TFLiteConverter itself removes them with this function.
            quantized = bytes(util.modify_model_io_type(quantized, types[io], types[io]))
    except Exception as error:
        raise QuantizationError(f"TFLiteConverter's quantizer failed: {first_line(error, default='')}") from error
    return quantized


#: `mlir_quantize` as a job for the child process.
MLIR_QUANTIZE = Job(
    mlir_quantize,
    error=QuantizationError,
    purpose="quantization with TFLiteConverter",
    hint="build float16, or dynamic-range where the target supports it",
)
