"""Files that make up a model when they are run one after the other: the segments of an Edge TPU pipeline."""

from collections.abc import Sequence

from edgepack.graph.model import Model, Tensor


def segments_fault(source: Model, segments: Sequence[Model]) -> str:
    """Return why segments do not make up a model, empty when they do.

    Every tensor that a segment reads is an input of the model or an output of an earlier segment, of the same type and
    shape, and every output of the model comes out of one. Tensors are told by their names in the file, which
    edgetpu_compiler keeps (seen in seven pairs of files that the real one made).
    """
    known = {tensor.name: tensor for tensor in _ends(source, source.main.inputs)}
    for number, segment in enumerate(segments):
        for tensor in _ends(segment, segment.main.inputs):
            given = known.get(tensor.name)
            if given is None:
                return f"segment {number} reads '{tensor.name}', which no input and no earlier segment gives"
            if (given.dtype, given.shape) != (tensor.dtype, tensor.shape):
                return (
                    f"segment {number} reads '{tensor.name}' as {tensor.dtype} {list(tensor.shape)}, which is given as "
                    f"{given.dtype} {list(given.shape)}"
                )
        known |= {tensor.name: tensor for tensor in _ends(segment, segment.main.outputs)}
    for tensor in _ends(source, source.main.outputs):
        made = known.get(tensor.name)
        if made is None or (made.dtype, made.shape) != (tensor.dtype, tensor.shape):
            return f"no segment gives the output '{tensor.name}' as {tensor.dtype} {list(tensor.shape)}"
    return ""


def _ends(model: Model, indices: tuple[int, ...]) -> list[Tensor]:
    return [model.main.tensors[index] for index in indices]
