"""Parameters that a model computes from shapes that are fixed in the file, as constants.

Converters keep SHAPE and the integer arithmetic behind it where the batch size was open. Compilers for accelerators
take begins, sizes and shapes as constants alone, so that an op that reads computed ones stays on the CPU.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES, Graph, Op, read_model
from edgepack.graph.edit import add_buffer, pack, set_batch, unpack, write_true_versions
from edgepack.graph.unused import drop_unused
from edgepack.repair.rewrite_search import Rewrite, batch_rewrite, has_dynamic_batch

Integers = npt.NDArray[np.int64]

#: Positions of the inputs that are parameters. A computed value that anything else reads stays computed.
_PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "BROADCAST_TO": (1,), "MIRROR_PAD": (1,), "PAD": (1,), "PADV2": (1,), "RESHAPE": (1,), "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,), "SLICE": (1, 2), "STRIDED_SLICE": (1, 2, 3), "TILE": (1,), "TRANSPOSE": (1,),
    "TRANSPOSE_CONV": (0,),
}  # fmt: skip

#: Most values of a parameter: the paddings of eight axes are 16, and what is larger is data.
_MOST_VALUES = 64


def constant_shapes(tflite: bytes) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Compute parameters that depend on nothing but fixed shapes and constants, and store them in the file.

    An op is left alone where its result has a dynamic shape: the shape in the file need not be the true one.

    Args:
        tflite: Any file. In a float model an open batch size is fixed to 1, with its own rewrite.

    Returns:
        The file, the same bytes where there is nothing to do, and the rewrites.
    """
    original = read_model(tflite)
    if not any(op.name == "SHAPE" for op in original.main.ops):
        return tflite, ()
    batched = original.is_float and has_dynamic_batch(original.main)
    source = set_batch(tflite) if batched else tflite
    graph = read_model(source).main if batched else original.main
    known = _computed(graph)
    stored = {index for index in known if _is_parameter(graph, index, known)}
    readers = [op for op in graph.ops if stored.intersection(op.inputs) and op.outputs[0] not in known]
    if not readers:
        return tflite, ()
    file = unpack(source)
    for index in stored:
        tensor = file.subgraphs[0].tensors[index]
        values = known[index].astype(NUMPY_DTYPES[graph.tensors[index].dtype])
        tensor.buffer = add_buffer(file, np.ascontiguousarray(values))
        tensor.shape, tensor.shapeSignature = np.array(values.shape, np.int32), None
    operators = file.subgraphs[0].operators
    file.subgraphs[0].operators = [operators[op.index] for op in graph.ops if not stored.intersection(op.outputs)]
    drop_unused(file)
    first = (batch_rewrite(original),) if batched else ()
    return write_true_versions(pack(file)), (*first, _rewrite(graph, readers))


def _rewrite(graph: Graph, readers: Sequence[Op]) -> Rewrite:
    names = ", ".join(sorted({op.name for op in readers}))
    count = "an op" if len(readers) == 1 else f"{len(readers)} ops"
    message = f"parameters of {count} ({names}) that the model computes from fixed shapes written as constants"
    first = readers[0]
    return Rewrite("constant-shape", first.label, first.index, graph.output_name(first), message, True, 0)


def _is_parameter(graph: Graph, index: int, known: Mapping[int, Integers]) -> bool:
    """Return whether a computed tensor is read only as a parameter of ops with static results, or to compute one."""
    if index in graph.outputs:
        return False
    for consumer in graph.consumers.get(index, ()):
        op = graph.ops[consumer]
        if op.outputs and op.outputs[0] in known:
            continue
        positions = {position for position, source in enumerate(op.inputs) if source == index}
        if not positions.issubset(_PARAMETERS.get(op.name, ())):
            return False
        if not op.outputs or any(graph.tensors[output].is_dynamic for output in op.outputs):
            return False
    return True


def _computed(graph: Graph) -> dict[int, Integers]:
    """Return the values of the integer tensors that are computed from fixed shapes and constants alone."""
    known: dict[int, Integers] = {}
    for op in graph.ops:
        if op.name not in _EVALUATORS or len(op.outputs) != 1 or not op.inputs or min(op.inputs) < 0:
            continue
        out = graph.tensors[op.outputs[0]]
        if out.dtype not in {"INT32", "INT64"} or op.options.get("fused_activation", "NONE") != "NONE":
            continue
        if op.name == "SHAPE":
            source = graph.tensors[op.inputs[0]]
            result = None if source.is_dynamic else np.array(source.shape, np.int64)
        else:
            inputs = [known.get(index, graph.tensors[index].integers) for index in op.inputs]
            given = [values for values in inputs if values is not None and values.size <= _MOST_VALUES]
            result = _evaluated(op, given) if len(given) == len(inputs) else None
        limits = np.iinfo(NUMPY_DTYPES[out.dtype])
        if result is None or not 0 < result.size <= _MOST_VALUES or (not out.is_dynamic and result.shape != out.shape):
            continue
        if result.min() >= limits.min and result.max() <= limits.max:
            known[out.index] = result
    return known


def _evaluated(op: Op, inputs: Sequence[Integers]) -> Integers | None:
    """Return the result of an op, None where its inputs contradict each other, as in a broken file."""
    try:
        with np.errstate(over="raise"):
            return _EVALUATORS[op.name](op, inputs)
    except (ValueError, IndexError, ArithmeticError):
        return None


def _binary(function: Callable[[Integers, Integers], Integers]) -> Callable[[Op, Sequence[Integers]], Integers]:
    def evaluate(_: Op, inputs: Sequence[Integers]) -> Integers:
        left, right = inputs
        return np.asarray(function(left, right), np.int64)

    return evaluate


def _divided(rest: bool) -> Callable[[Integers, Integers], Integers]:
    """Return FLOOR_DIV or FLOOR_MOD; a zero that is divided by is an error of the model, which stays in it."""

    def divide(left: Integers, right: Integers) -> Integers:
        if not right.all():
            raise ZeroDivisionError
        return left % right if rest else left // right

    return divide


def _strided_slice(op: Op, inputs: Sequence[Integers]) -> Integers | None:
    values, begin, end, stride = inputs
    if values.ndim != 1 or any(part.size != 1 for part in (begin, end, stride)):
        return None
    if any(op.options.get(name) for name in ("ellipsis_mask", "new_axis_mask", "offset")):
        return None
    if op.options.get("shrink_axis_mask"):
        return np.asarray(values[int(begin.ravel()[0])], np.int64)
    start = None if op.options.get("begin_mask") else int(begin.ravel()[0])
    stop = None if op.options.get("end_mask") else int(end.ravel()[0])
    return values[slice(start, stop, int(stride.ravel()[0]))]


def _slice(_: Op, inputs: Sequence[Integers]) -> Integers | None:
    values, begin, size = inputs
    if values.ndim != 1 or begin.size != 1 or size.size != 1:
        return None
    start, count = int(begin.ravel()[0]), int(size.ravel()[0])
    stop = values.size if count == -1 else start + count
    return values[start:stop] if 0 <= start <= stop <= values.size else None


def _gather(op: Op, inputs: Sequence[Integers]) -> Integers | None:
    values, indices = inputs
    if values.ndim != 1 or op.options.get("batch_dims") or (indices < 0).any():
        return None
    return np.asarray(values[indices], np.int64)


def _product(op: Op, inputs: Sequence[Integers]) -> Integers:
    values, axes = inputs
    return np.asarray(np.prod(values, axis=tuple(axes.ravel().tolist()), keepdims=bool(op.options.get("keep_dims"))))


_EVALUATORS: Mapping[str, Callable[[Op, Sequence[Integers]], Integers | None]] = {
    "SHAPE": lambda op, inputs: None,
    "ADD": _binary(np.add),
    "SUB": _binary(np.subtract),
    "MUL": _binary(np.multiply),
    "MAXIMUM": _binary(np.maximum),
    "MINIMUM": _binary(np.minimum),
    "FLOOR_DIV": _binary(_divided(rest=False)),
    "FLOOR_MOD": _binary(_divided(rest=True)),
    "CAST": lambda _, inputs: inputs[0],
    "CONCATENATION": lambda op, inputs: np.concatenate(inputs, axis=int(op.options.get("axis", 0))),
    "EXPAND_DIMS": lambda _, inputs: np.expand_dims(inputs[0], int(inputs[1].ravel()[0])),
    "GATHER": _gather,
    "PACK": lambda op, inputs: np.stack(inputs, axis=int(op.options.get("axis", 0))),
    "REDUCE_PROD": _product,
    "RESHAPE": lambda _, inputs: inputs[0].reshape(inputs[1].ravel().tolist()),
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
}
