"""Rules on ranks and shapes."""

from collections.abc import Mapping
from math import prod

from edgepack.compat.context import Context, inputs, tensor_label, tensors
from edgepack.compat.reasons import reason
from edgepack.findings import Reason
from edgepack.graph import Op, Tensor

#: Fixes for `not-one-dimensional` that are better than the general one, by op.
_ONE_DIMENSIONAL_FIXES: Mapping[str, str] = {
    "FULLY_CONNECTED": "flatten the input to one row before the dense layer, or use a 1x1 convolution on a feature map",
    "GATHER": "pass the indices as one row, or gather in the app",
    "PRELU": "use one slope per channel: tf.keras.layers.PReLU(shared_axes=[1, 2])",
    "SOFTMAX": "apply softmax to one row, or in the app; some compilers support more than their table says",
}


def static_shapes(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Every dimension of every tensor must be known before inference; an open batch counts as 1."""
    for label, tensor in _all(context, op):
        if tensor.index in context.dynamic_tensors:
            got = signature(tensor) if tensor.is_dynamic else "a shape computed at run time"
            return [reason("dynamic-shape", f"expected a static shape for {label}, got {got}")]
    return []


def written_shapes(context: Context, op: Op, argument: bool) -> list[Reason]:
    """The output must have the shape that the op gives the input as it stands in the file, 1 for open dimensions."""
    read = [tensor for _, _, tensor in inputs(context.graph, op)]
    written = context.graph.op_outputs(op)
    if not read or not written:
        return []
    expected = _computed_shape(op, read, written[0].shape)
    if expected is None or expected == written[0].shape:
        return []
    message = f"expected the shape {list(expected)} in the file for {tensor_label(written[0], 'output 0')}"
    return [reason("dynamic-shape", f"{message}, got {list(written[0].shape)}")]


def _computed_shape(op: Op, read: list[Tensor], written: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape that an op computes; None for ops whose shape is not known here."""
    shape, block = read[0].shape, int(op.options.get("block_size") or 1)
    values = [tensor.integers for tensor in read[1:3]]
    if op.name == "RESHAPE":
        return written if prod(written) == prod(shape) else (prod(shape),)
    if op.name in {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"} and len(shape) == 4:
        batch, height, width, channels = shape
        if op.name == "DEPTH_TO_SPACE":
            return batch, height * block, width * block, channels // block**2
        return batch, height // block, width // block, channels * block**2
    if op.name in {"PAD", "PADV2"} and values and values[0] is not None and values[0].size == 2 * len(shape):
        added = values[0].reshape(-1, 2).sum(axis=1).tolist()
        return tuple(size + int(more) for size, more in zip(shape, added, strict=True))
    if op.name == "SLICE" and len(values) == 2 and all(v is not None and v.size == len(shape) for v in values):
        begin, size = ([int(v) for v in value.ravel()] for value in values if value is not None)
        return tuple(n if n >= 0 else whole - first for n, whole, first in zip(size, shape, begin, strict=True))
    return None


def max_rank(context: Context, op: Op, argument: int) -> list[Reason]:
    """No tensor of the op, constants included, may have more dimensions than this."""
    for label, tensor in _all(context, op):
        if tensor.rank > argument:
            message = f"expected at most {argument} dimensions for {label}, got {list(tensor.shape)}"
            return [reason(f"rank-above-{argument}", message)]
    return []


def max_effective_rank(context: Context, op: Op, argument: int) -> list[Reason]:
    """Only this many innermost dimensions of data inputs and outputs may be larger than 1."""
    for label, tensor in tensors(context.graph, op, "data"):
        if any(size > 1 for size in tensor.shape[: max(0, tensor.rank - argument)]):
            message = f"expected only the {argument} innermost dimensions of {label} above 1, got {list(tensor.shape)}"
            return [reason(f"rank-above-{argument}", message)]
    return []


def one_dimensional(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """Tensors of these roles may be larger than 1 only along their last dimension."""
    for role in argument:
        for label, tensor in tensors(context.graph, op, role):
            if any(size > 1 for size in tensor.shape[:-1]):
                message = (
                    f"expected {label} to be larger than 1 only along its last dimension, got {list(tensor.shape)}"
                )
                return [reason("not-one-dimensional", message, fix=_ONE_DIMENSIONAL_FIXES.get(op.name, ""))]
    return []


def same_shape(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """All tensors of these roles must have the same shape."""
    compared = [entry for role in argument for entry in tensors(context.graph, op, role)]
    for label, tensor in compared[1:]:
        first_label, first = compared[0]
        if tensor.shape != first.shape:
            message = (
                f"expected {label} to have the shape {list(first.shape)} of {first_label}, got {list(tensor.shape)}"
            )
            return [reason("shape-mismatch", message)]
    return []


def broadcast(context: Context, op: Op, argument: str) -> list[Reason]:
    """How data inputs of different shapes may be combined.

    `none`: shapes must be equal. `numpy`: dimensions, aligned at the last one, must be equal or 1. `gpu-legacy`: as
    `numpy`, and inputs of different ranks above 1 only as [1, h, w, c] with [h, w, c], as [1, h, w, c] with [1, 1], or
    as [b, h, w, c] with [b, c].
    """
    shapes = [tensor.shape for _, tensor in tensors(context.graph, op, "input")]
    for other in shapes[1:]:
        first = shapes[0]
        if argument == "none":
            fits, form = first == other, "equal shapes"
        elif argument == "numpy" or len(first) == len(other) or min(len(first), len(other)) <= 1:
            fits, form = _numpy(first, other), "dimensions that, aligned at the last one, are equal or 1"
        else:
            fits = _gpu_legacy(*sorted((first, other), key=len, reverse=True))
            form = "equal ranks, or [1, h, w, c] with [h, w, c] or [1, 1], or [b, h, w, c] with [b, c]"
        if not fits:
            return [reason("broadcast", f"expected {form}, got {list(first)} and {list(other)}")]
    return []


def permutations(context: Context, op: Op, argument: list[list[int]]) -> list[Reason]:
    """The permutation of a transpose must be one of these."""
    values = next((tensor.integers for i, _, tensor in inputs(context.graph, op) if i == 1), None)
    got = None if values is None else [int(v) for v in values.ravel()]
    if got in argument:
        return []
    allowed = " or ".join(str(order) for order in argument)
    shown = "a permutation computed at run time" if got is None else str(got)
    return [reason("permutation", f"expected the permutation {allowed}, got {shown}")]


def _numpy(first: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a == b or 1 in {a, b} for a, b in zip(reversed(first), reversed(other), strict=False))


def _gpu_legacy(longer: tuple[int, ...], shorter: tuple[int, ...]) -> bool:
    if len(longer) != 4:
        return False
    if len(shorter) == 3:
        return longer[0] == 1 and _numpy(longer, shorter)
    if len(shorter) == 2:
        return (longer[0] == 1 and shorter == (1, 1)) or (longer[0], longer[3]) == shorter
    return False


def _all(context: Context, op: Op) -> list[tuple[str, Tensor]]:
    read = [(tensor_label(tensor, f"input {position}"), tensor) for position, _, tensor in inputs(context.graph, op)]
    return read + list(tensors(context.graph, op, "output"))


def signature(tensor: Tensor) -> str:
    """Return `[?, 8, 8, 4]` for messages."""
    return f"[{', '.join('?' if size < 0 else str(size) for size in tensor.shape_signature)}]"
