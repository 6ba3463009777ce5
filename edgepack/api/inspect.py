"""`edgepack.inspect`."""

from edgepack.api.call import Call, model_options
from edgepack.api.results import Inspection
from edgepack.api.types import InputShapes, ModelLike, ProgressLike, Size
from edgepack.limits import TARGET_SECONDS


def inspect(
    model: ModelLike,
    *,
    input_shape: InputShapes = (),
    signature: str = "",
    allow_code: bool = False,
    timeout: float = TARGET_SECONDS,
    memory_limit: Size = "",
    no_cache: bool = False,
    progress: ProgressLike = None,
) -> Inspection:
    """Describe the inputs, outputs, ops, quantization and sizes of a model.

    The options are those of `edgepack inspect`.

    Args:
        model: A path, also of a bundle; the bytes of a .tflite; a model of Keras 3 or tf-keras, or a tf.Module.
        input_shape: Shapes of inputs with unknown dimensions, with the batch dimension.
        signature: Signature of a SavedModel, method of a tf.Module.
        allow_code: Run Lambda layers and custom code of a model file.
        timeout: Time limit of the conversion in seconds.
        memory_limit: Memory that each child process may hold: bytes, or a text such as `8GB`.
        no_cache: Recompute every step and store nothing in the cache.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Raises:
        EdgepackError: The model cannot be read. Its `hint` says what to do.
    """
    from edgepack.pipeline.inspect import inspect as run

    reading = model_options(input_shape, signature, allow_code, timeout, memory_limit, no_cache)
    with Call(progress) as call:
        path, reading = call.model(model, reading)
        return Inspection(run(path, reading, call.progress))
