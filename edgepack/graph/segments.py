"""Segments of an Edge TPU pipeline: files that compute a model when they run one after the other."""

from collections.abc import Sequence

from edgepack.graph.model import Model, Tensor


def segments_fault(source: Model, segments: Sequence[Model]) -> str:
    """Return why segments do not compute a model, empty when they do.

    Every tensor that a segment reads must be an input of the model or an output of an earlier segment, of the same type
    and shape, and every output of the model must be an output of a segment. Tensors are matched by their names in the
    file, which edgetpu_compiler keeps (checked on seven pairs of files that it compiled).
    """
    known = {tensor.name: tensor for tensor in _tensors(source, source.main.inputs)}
    for number, segment in enumerate(segments):
        for tensor in _tensors(segment, segment.main.inputs):
            producer = known.get(tensor.name)
            if producer is None:
                return f"segment {number} reads '{tensor.name}', which no input and no earlier segment gives"
            if (producer.dtype, producer.shape) != (tensor.dtype, tensor.shape):
                return (
                    f"segment {number} reads '{tensor.name}' as {tensor.dtype} {list(tensor.shape)}, but it is "
                    f"{producer.dtype} {list(producer.shape)}"
                )
        known |= {tensor.name: tensor for tensor in _tensors(segment, segment.main.outputs)}
    for tensor in _tensors(source, source.main.outputs):
        result = known.get(tensor.name)
        if result is None or (result.dtype, result.shape) != (tensor.dtype, tensor.shape):
            return f"no segment has the output '{tensor.name}' as {tensor.dtype} {list(tensor.shape)}"
    return ""


def _tensors(model: Model, indices: tuple[int, ...]) -> list[Tensor]:
    return [model.main.tensors[index] for index in indices]
