"""Input specifications of a model, which its samples have to match."""

from edgepack.graph import read_model
from edgepack.runtime.runner import model_inputs
from edgepack.samples.source import InputSpec


def input_specs(tflite: bytes) -> list[InputSpec]:
    """Return the specification of each input of a .tflite, in file order.

    Raises:
        ModelFileError: The bytes are not a .tflite.
    """
    return [
        InputSpec(tensor.name, tensor.shape_signature, tensor.dtype, tensor.scale, tensor.zero_point)
        for tensor in model_inputs(read_model(tflite))
    ]
