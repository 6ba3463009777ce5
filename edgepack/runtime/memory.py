"""What a model claims to need for its activations, checked before the runtime reserves it.

A file of a few kilobytes can claim tensors of any size. The static shapes in the file give the memory without running
anything; what ops compute from their constants at run time is limited by the child process that runs them.
"""

from itertools import accumulate
from math import prod

from edgepack.errors import UnfitModelError
from edgepack.graph import NUMPY_DTYPES, Graph, Model, Tensor
from edgepack.text import readable_size

#: Most bytes of activations that are alive at the same time: ten times the need of EfficientNetB7 at 600 x 600, the
#: largest default input of keras.applications, in float32. Measured with `activation_bytes`: 207 MB; DeepLab v3 at
#: 513 x 513 in uint8 8 MB, EfficientNet-Lite0 at 224 x 224 in float32 6 MB.
MOST_LIVE_BYTES = 1 << 31

#: Most bytes of all activations together, where each is kept: calibration and the comparison layer by layer. Twice what
#: EfficientNetB7 needs at 600 x 600 (3.8 GB, DeepLab v3 31 MB), and half of the memory that a child has by default.
MOST_KEPT_BYTES = 1 << 33


def require_memory(model: Model, *, keeps_all: bool = False) -> None:
    """Refuse a model whose static shapes claim more memory than any target has.

    Args:
        model: The model.
        keeps_all: True where the caller keeps every activation instead of those that are alive together.

    Raises:
        UnfitModelError: The claims exceed `MOST_LIVE_BYTES` or, with `keeps_all`, `MOST_KEPT_BYTES`.
    """
    for number, graph in enumerate(model.graphs):
        peak, kept = activation_bytes(graph)
        for needed, limit in ((peak, MOST_LIVE_BYTES), *([(kept, MOST_KEPT_BYTES)] if keeps_all else [])):
            if needed > limit:
                place = f" of subgraph {number}" if number else ""
                tensor = max((one for one in graph.tensors if not one.is_constant), key=claimed_bytes)
                raise UnfitModelError(
                    f"the model claims {readable_size(needed)} of activations{place}, at most {readable_size(limit)} "
                    f"are run; the largest is tensor {tensor.index} '{tensor.name}' {list(tensor.shape)} "
                    f"{tensor.dtype} with {readable_size(claimed_bytes(tensor))}",
                    hint="export the model with smaller inputs, or check whether the file is damaged",
                )


def activation_bytes(graph: Graph) -> tuple[int, int]:
    """Return the bytes of a graph's activations by their static shapes: the most that are alive together, and all."""
    sizes = {tensor.index: claimed_bytes(tensor) for tensor in graph.tensors if not tensor.is_constant}
    first = dict.fromkeys(graph.inputs, 0)
    last = dict.fromkeys(graph.outputs, len(graph.ops))
    for op in graph.ops:
        for index in (*op.inputs, *op.outputs):
            first.setdefault(index, op.index)
            last[index] = max(last.get(index, 0), op.index)
    change = [0] * (len(graph.ops) + 2)
    for index, size in sizes.items():
        if index in first or index in last:
            change[first.get(index, 0)] += size
            change[last.get(index, 0) + 1] -= size
    return max(accumulate(change)), sum(sizes.values())


def claimed_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; sizes of 0 count as 1, because ops compute their outputs from the other sizes."""
    dtype = NUMPY_DTYPES.get(tensor.dtype)
    return prod(size for size in tensor.shape if size) * (dtype.itemsize if dtype else 1)
