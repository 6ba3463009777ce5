"""What samples have to match, read from the model they are for."""

from edgepack.graph import read_model
from edgepack.runtime.runner import model_inputs
from edgepack.samples.load import InputSpec


def input_specs(tflite: bytes) -> list[InputSpec]:
    """Return the inputs of a .tflite as samples are held against them, in file order.

    Raises:
        ModelFileError: The bytes are no .tflite.
    """
    return [
        InputSpec(i.name, i.shape_signature, i.dtype, i.scale, i.zero_point) for i in model_inputs(read_model(tflite))
    ]
