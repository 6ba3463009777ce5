"""A trained tf-keras model as a .tflite with the interface of the float model that the user's file converts to."""

import re
from collections.abc import Sequence
from typing import Any

from edgepack.errors import ConversionError
from edgepack.graph import read_model
from edgepack.graph.edit import restore_interface, set_tensor_names
from edgepack.runtime.runner import model_inputs

#: Wrappers that tracing puts around the author's names.
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+(?=.)")

#: What TFMOT puts in front of a layer's name.
_WRAPPED = re.compile(r"(^|/)(?:quant|prune_low_magnitude|cluster)_")


def to_tflite(model: Any, order: Sequence[int], reference: bytes, *, quantized: bool, io: str = "FLOAT32") -> bytes:
    """Convert a model.

    Args:
        model: tf-keras model; with TFMOT's quantization wrappers when `quantized`.
        order: For each input of the model, its position among the reference's inputs.
        reference: Float .tflite whose shapes, names and signature the result gets.
        quantized: Make int8 of it with the ranges that were learned.
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
        mine = [tensors[position] for position in order]
        return model(mine[0] if len(mine) == 1 else mine, training=False)

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
        made = bytes(converter.convert())
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ConversionError(
            f"the trained model cannot be converted: {type(error).__name__}: {lines[0][:300] if lines else ''}",
            hint="convert the untrained model with `edgepack build` first: what fails there fails here too",
        ) from error
    return restore_interface(_plain_names(made), source)


def _plain_names(tflite: bytes) -> bytes:
    """Name inner tensors after the last layer that was fused into them, without TFMOT's and TensorFlow's additions."""
    graph = read_model(tflite).main
    taken: set[str] = set()
    names = {}
    # Weights carry the name of the op they were folded into; the activation has the better claim to it.
    for tensor in sorted(graph.tensors, key=lambda one: one.is_constant):
        base = next((part for part in tensor.name.split(";") if part and not part.isdigit()), f"tensor_{tensor.index}")
        base = _WRAPPED.sub(r"\1", _CALLS.sub("", base))
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names[tensor.index] = name
    return set_tensor_names(tflite, names)
