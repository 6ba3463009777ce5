"""TFLiteConverter's own quantizer on a float .tflite with ranges: the fallback for what ai-edge-quantizer refuses.

Runs TensorFlow, which aborts the process on models it cannot take: call it in a child process.
"""

from typing import Any

from edgepack.errors import ConversionError
from edgepack.text import first_line


def mlir_quantize(
    tflite: bytes,
    *,
    io: str = "FLOAT32",
    fully_connected: str = "per-channel",
    weights: str = "per-channel",
    activations: str = "INT8",
) -> bytes:
    """Make int8 of a float .tflite whose tensors carry (minimum, maximum), as `graph.edit.set_ranges` writes them.

    Args:
        tflite: The float model with ranges.
        io: Type of inputs and outputs: `FLOAT32`, `INT8` or `UINT8`.
        fully_connected: `per-channel` or `per-tensor`: granularity of FULLY_CONNECTED weights.
        weights: The same for all other weights; `per-tensor` holds for FULLY_CONNECTED as well.
        activations: Type of activations; only `INT8`. For int16 TensorFlow has another path, which takes no ranges: fed
            with them, this quantizer writes int32 biases and asymmetric scales that the int16 kernels refuse.

    Returns:
        The quantized model; signatures and names are those TFLiteConverter writes.

    Raises:
        ConversionError: TFLiteConverter's quantizer failed.
    """
    if activations != "INT8":
        raise ConversionError(f"TFLiteConverter's quantizer takes ranges for INT8 activations only, got {activations}")
    if io not in ("FLOAT32", "INT8", "UINT8"):
        raise ConversionError(
            f"TFLiteConverter's quantizer cannot make inputs and outputs {io}, expected FLOAT32, INT8 or UINT8"
        )
    import tensorflow as tf
    from tensorflow.lite.python import convert, util

    types: dict[str, Any] = {"FLOAT32": tf.float32, "INT8": tf.int8, "UINT8": tf.uint8}
    try:
        made: bytes = convert.mlir_quantize(
            tflite,
            disable_per_channel=weights == "per-tensor",
            disable_per_channel_for_dense_layers=fully_connected == "per-tensor",
        )
        if io != "FLOAT32":
            # The quantizer leaves float ends; this is how TFLiteConverter itself takes them off.
            made = bytes(util.modify_model_io_type(made, types[io], types[io]))
    except Exception as error:
        raise ConversionError(f"TFLiteConverter's quantizer failed: {first_line(error)}") from error
    return made
