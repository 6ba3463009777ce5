"""Convert a trained tf-keras model to .tflite, with the interface of the converted untrained model."""

import re
from collections.abc import Sequence
from typing import Any

from edgepack.errors import ConversionError
from edgepack.graph import read_model
from edgepack.graph.edit import restore_interface, set_tensor_names
from edgepack.runtime.runner import model_inputs
from edgepack.text import first_line

#: Prefixes that tracing adds to layer names.
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+(?=.)")

#: Prefixes that TFMOT adds to layer names.
_WRAPPED = re.compile(r"(^|/)(?:quant|prune_low_magnitude|cluster)_")


def to_tflite(model: Any, order: Sequence[int], reference: bytes, *, quantized: bool, io: str = "FLOAT32") -> bytes:
    """Convert a model.

    Args:
        model: tf-keras model; with TFMOT's quantization wrappers when `quantized`.
        order: For each input of the model, its position among the reference's inputs.
        reference: Float .tflite whose shapes, names and signature the result gets.
        quantized: Convert to int8 with the learned ranges.
        io: Type of inputs and outputs of an int8 file: `FLOAT32`, `INT8` or `UINT8`.

    Raises:
        ConversionError: TFLiteConverter failed.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    source = read_model(reference)
    infos = model_inputs(source)
    specs = [tf.TensorSpec(info.shape, info.dtype, name=f"input_{i}") for i, info in enumerate(infos)]

    def call(*tensors: Any) -> Any:
        ordered = [tensors[position] for position in order]
        return model(ordered[0] if len(ordered) == 1 else ordered, training=False)

    try:
        function = tf.function(call, input_signature=specs, autograph=False).get_concrete_function()
        constant = convert_variables_to_constants_v2(function, lower_control_flow=False)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([constant])
        converter.exclude_conversion_metadata = True
        if quantized:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            types = {"FLOAT32": tf.float32, "INT8": tf.int8, "UINT8": tf.uint8}
            if all(info.tflite_dtype == "FLOAT32" for info in infos):
                converter.inference_input_type = types[io]
            converter.inference_output_type = types[io]
        tflite = bytes(converter.convert())
    except Exception as error:
        raise ConversionError(
            f"the trained model cannot be converted: {type(error).__name__}: {first_line(error, 300, default='')}",
            hint="convert the untrained model with `edgepack build` to see whether it can be converted at all",
        ) from error
    return restore_interface(_with_layer_names(tflite), source)


def _with_layer_names(tflite: bytes) -> bytes:
    """Name activations after the last layer that was fused into them, without the prefixes of TFMOT and TensorFlow."""
    graph = read_model(tflite).main
    used: set[str] = set()
    names = {}
    # Weights have the name of the op they were folded into; activations come first, so that they get that name.
    for tensor in sorted(graph.tensors, key=lambda tensor: tensor.is_constant):
        base = next((part for part in tensor.name.split(";") if part and not part.isdigit()), f"tensor_{tensor.index}")
        base = _WRAPPED.sub(r"\1", _CALLS.sub("", base))
        name, number = base, 0
        while name in used:
            number += 1
            name = f"{base}_{number}"
        used.add(name)
        names[tensor.index] = name
    return set_tensor_names(tflite, names)
