"""Rules on ranks and shapes."""

from collections.abc import Mapping

from edgepack.compat.context import Context, inputs, named, tensors
from edgepack.compat.reasons import reason
from edgepack.findings import Reason
from edgepack.graph import Op, Tensor

#: Fixes of `one-dimensional` better than the general one, by op.
_ONE_DIMENSIONAL_FIXES: Mapping[str, str] = {
    "FULLY_CONNECTED": "flatten the input to one row before the dense layer, or use a 1x1 convolution on a map",
    "GATHER": "give the indices as one row, or gather in the app",
    "PRELU": "use one slope per channel: tf.keras.layers.PReLU(shared_axes=[1, 2])",
    "SOFTMAX": "take the softmax of one row, or leave it to the app; some compilers take more than their table says",
}


def static_shapes(context: Context, op: Op, argument: bool) -> list[Reason]:
    """Every dimension of every tensor must be known before the model runs; an open batch counts as 1."""
    for label, tensor in _all(context, op):
        if tensor.index in context.dynamic_tensors:
            got = signature(tensor) if tensor.is_dynamic else "one computed at run time"
            return [reason("dynamic-shape", f"expected a static shape for {label}, got {got}")]
    return []


def max_rank(context: Context, op: Op, argument: int) -> list[Reason]:
    """No tensor of the op, constants included, may have more dimensions."""
    for label, tensor in _all(context, op):
        if tensor.rank > argument:
            message = f"expected at most {argument} dimensions for {label}, got {list(tensor.shape)}"
            return [reason(f"rank-above-{argument}", message)]
    return []


def max_effective_rank(context: Context, op: Op, argument: int) -> list[Reason]:
    """Of data inputs and outputs, only this many innermost dimensions may be larger than 1."""
    for label, tensor in tensors(context.graph, op, "data"):
        if any(size > 1 for size in tensor.shape[: max(0, tensor.rank - argument)]):
            message = f"expected only the {argument} innermost dimensions of {label} above 1, got {list(tensor.shape)}"
            return [reason(f"rank-above-{argument}", message)]
    return []


def one_dimensional(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """Tensors of the roles given may be larger than 1 only along their last dimension."""
    for wanted in argument:
        for label, tensor in tensors(context.graph, op, wanted):
            if any(size > 1 for size in tensor.shape[:-1]):
                message = (
                    f"expected {label} to be larger than 1 only along its last dimension, got {list(tensor.shape)}"
                )
                return [reason("not-one-dimensional", message, fix=_ONE_DIMENSIONAL_FIXES.get(op.name, ""))]
    return []


def same_shape(context: Context, op: Op, argument: list[str]) -> list[Reason]:
    """All tensors of the roles given must have one shape."""
    found = [entry for wanted in argument for entry in tensors(context.graph, op, wanted)]
    for label, tensor in found[1:]:
        if tensor.shape != found[0][1].shape:
            first = list(found[0][1].shape)
            message = f"expected {label} to have the shape {first} of {found[0][0]}, got {list(tensor.shape)}"
            return [reason("shape-mismatch", message)]
    return []


def broadcast(context: Context, op: Op, argument: str) -> list[Reason]:
    """How data inputs of different shapes may be combined.

    `none`: not at all. `numpy`: dimensions compared from the last must be equal or 1. `gpu-legacy`: as `numpy`, and
    inputs of different ranks above 1 only as [1, h, w, c] with [h, w, c], as [1, h, w, c] with [1, 1], or as
    [b, h, w, c] with [b, c].
    """
    shapes = [tensor.shape for _, tensor in tensors(context.graph, op, "input")]
    for other in shapes[1:]:
        first = shapes[0]
        if argument == "none":
            fits, form = first == other, "equal shapes"
        elif argument == "numpy" or len(first) == len(other) or min(len(first), len(other)) <= 1:
            fits, form = _numpy(first, other), "shapes that are equal or 1 in each dimension, compared from the last"
        else:
            fits = _gpu_legacy(*sorted((first, other), key=len, reverse=True))
            form = "equal ranks, or [1, h, w, c] with [h, w, c] or [1, 1], or [b, h, w, c] with [b, c]"
        if not fits:
            return [reason("broadcast", f"expected {form}, got {list(first)} and {list(other)}")]
    return []


def permutations(context: Context, op: Op, argument: list[list[int]]) -> list[Reason]:
    """A transpose's order of axes must be one of those given."""
    values = next((tensor.data for i, _, tensor in inputs(context.graph, op) if i == 1), None)
    got = None if values is None else [int(v) for v in values.ravel()]
    if got in argument:
        return []
    allowed = " or ".join(str(order) for order in argument)
    return [
        reason("permutation", f"expected the order {allowed}, got {'one computed at run time' if got is None else got}")
    ]


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
    found = [(named(tensor, f"input {position}"), tensor) for position, _, tensor in inputs(context.graph, op)]
    return found + list(tensors(context.graph, op, "output"))


def signature(tensor: Tensor) -> str:
    """Return `[?, 8, 8, 4]` for messages."""
    return f"[{', '.join('?' if size < 0 else str(size) for size in tensor.shape_signature)}]"
