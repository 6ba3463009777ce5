"""Find the LayerNorms (Ba et al. 2016) and RMSNorms (Zhang and Sennrich 2019) that a float graph computes op by op.

Whatever the order of their ops, the result is a sum of products of the input, its mean and the inverse root of its
variance, each times a constant per channel: results are followed as such sums from the root onward.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgepack.graph import Graph, Op, Tensor
from edgepack.graph.op_layout import is_linear, producer_named
from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ptq.layouts import Origin, Places, find_origin, moved

#: Largest rank that the kernel of L2_NORMALIZATION supports (tensorflow/lite/kernels/l2norm.cc).
_MAX_RANK = 4

#: What a term of a sum is a multiple of: the normalized input x, its mean m, the inverse root r, products, or one.
_PRODUCTS = {("x", "r"): "xr", ("m", "r"): "mr", ("r", "x"): "xr", ("r", "m"): "mr"}

_Terms = Mapping[str, Doubles]

#: Whether a MEAN is taken along the axes of a norm.
_IsMean = Callable[[Graph, Op], bool]


@dataclass(frozen=True)
class Normalization:
    """A LayerNorm or RMSNorm of a graph: result = gain * (source - mean) / sqrt(variance + epsilon) + offset.

    Attributes:
        source: Tensor that is normalized along its last axis.
        mean: Its mean, in any layout; None for RMSNorm.
        variance: Tensor with the variance plus `epsilon`, or with the mean square plus `epsilon`.
        epsilon: What is added to the variance.
        gain: Factor of each channel, (channels,).
        offset: What is added to each channel, (channels,).
        result: Tensor with the result.
    """

    source: int
    mean: int | None
    variance: int
    epsilon: float
    gain: Doubles
    offset: Doubles
    result: int


def find_normalizations(graph: Graph) -> list[Normalization]:
    """Return the LayerNorms and RMSNorms over the last axis that a float graph computes op by op."""
    found: dict[int, Normalization] = {}
    for op in graph.ops:
        if op.name in {"RSQRT", "SQRT"}:
            for normalization in _normalizations(graph, op):
                found.setdefault(normalization.result, normalization)
    return list(found.values())


def _normalizations(graph: Graph, root: Op) -> list[Normalization]:
    """Return the normalizations by the root of a variance, which several with other gains may share."""
    sums = producer_named(graph, root.inputs[0], "ADD")
    if sums is None or not is_linear(sums):
        return []
    constants, others = (
        [i for i in sums.inputs if (_scalar(graph, i) is not None) == known] for known in (True, False)
    )
    if len(constants) != 1 or len(others) != 1:
        return []
    epsilon, average = _scalar(graph, constants[0]), producer_named(graph, others[0], "MEAN")
    if epsilon is None or epsilon < 0.0 or average is None or average.inputs[0] not in graph.producers:
        return []
    # Along the last axis, or along all others: Keras 2 moves positions to the last one, for a batch normalization.
    is_mean = next((known for known in (_is_over_channels, _is_over_rows) if known(graph, average)), None)
    if is_mean is None:
        return []
    difference = _squared(graph, graph.ops[graph.producers[average.inputs[0]]], is_mean)
    if difference is None:
        return []
    inner, mean = difference
    origin = None if is_mean is _is_over_channels else find_origin(graph, inner)
    source = inner if origin is None else origin.tensor
    if not _is_supported(graph.tensors[source]) or (origin is None and is_mean is _is_over_rows):
        return []
    channels = graph.tensors[source].shape[-1:]
    normalizations = []
    for result, terms in _normalized(graph, root, inner, mean, origin):
        gain, offset = (np.broadcast_to(terms.get(key, np.zeros(1)), channels) for key in ("xr", "1"))
        normalizations.append(Normalization(source, mean, root.inputs[0], epsilon, gain, offset, result))
    return normalizations


def _is_supported(tensor: Tensor) -> bool:
    """Return whether L2_NORMALIZATION and the ops around it, which contain the shape, can take a tensor."""
    # An open batch is run with the batch 1 of the shape.
    fixed = all(size >= 0 for size in tensor.shape_signature[1:])
    return tensor.dtype == "FLOAT32" and 1 < tensor.rank <= _MAX_RANK and min(tensor.shape) > 0 and fixed


def _scalar(graph: Graph, index: int) -> float | None:
    data = graph.tensors[index].data
    return float(data.reshape(-1)[0]) if data is not None and data.size == 1 and data.dtype.kind == "f" else None


def _is_over_channels(graph: Graph, op: Op) -> bool:
    """Return whether a MEAN is taken over the last axis, which it keeps."""
    axes, before = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].shape
    if axes is None or not before or graph.tensors[op.outputs[0]].shape != (*before[:-1], 1):
        return False
    return {int(axis) % len(before) for axis in axes.reshape(-1)} == {len(before) - 1}


def _is_over_rows(graph: Graph, op: Op) -> bool:
    """Return whether a MEAN is taken over all axes but the last."""
    axes, rank = graph.tensors[op.inputs[1]].data, graph.tensors[op.inputs[0]].rank
    return axes is not None and rank > 1 and {int(axis) % rank for axis in axes.reshape(-1)} == set(range(rank - 1))


def _squared(graph: Graph, op: Op, is_mean: _IsMean) -> tuple[int, int | None] | None:
    """Return (input, its mean) of an op that squares their difference, (input, None) where it squares the input."""
    if op.name == "SQUARED_DIFFERENCE":
        return _centred(graph, op.inputs[0], op.inputs[1], is_mean)
    if op.name == "SQUARE" or (op.name == "MUL" and op.inputs[0] == op.inputs[1] and is_linear(op)):
        difference = producer_named(graph, op.inputs[0], "SUB")
        if difference is None or not is_linear(difference):
            return op.inputs[0], None
        return _centred(graph, difference.inputs[0], difference.inputs[1], is_mean) or (op.inputs[0], None)
    return None


def _centred(graph: Graph, one: int, other: int, is_mean: _IsMean) -> tuple[int, int] | None:
    """Return a tensor and its mean in this order, whichever of both comes first."""
    for source, mean in ((one, other), (other, one)):
        average = producer_named(graph, mean, "MEAN")
        if average is not None and average.inputs[0] == source and is_mean(graph, average):
            return source, mean
    return None


def _normalized(
    graph: Graph, root: Op, source: int, mean: int | None, origin: Origin | None
) -> list[tuple[int, _Terms]]:
    """Return the tensors that are a gain times the normalized source plus an offset, with their terms.

    Of those that follow from each other, the last one before other ops read a result: what they read is replaced.
    Where the source is in another layout than its origin, they are those in the layout of the origin.
    """
    one = np.ones(1)
    known: dict[int, _Terms] = {source: {"x": one}}
    if mean is not None:
        known[mean] = {"m": one}
    divisor = root.outputs[0] if root.name == "SQRT" else None
    if divisor is None:
        known[root.outputs[0]] = {"r": one}
    back = known if origin is None else _moved_back(graph, known, divisor, source, mean, origin)
    shape = graph.tensors[source if origin is None else origin.tensor].shape
    normalized: dict[int, _Terms] = {} if origin is None else dict(back)
    first = list(normalized)
    for op in graph.ops:
        terms = _terms(graph, op, back, divisor)
        if terms is None:
            continue
        result = op.outputs[0]
        back[result] = terms
        if graph.tensors[result].shape == shape and _is_normalized(terms, mean):
            normalized[result] = terms
            if not normalized.keys() & set(op.inputs):
                first.append(result)
    last = {_last(graph, result, normalized) for result in first}
    return [(result, terms) for result, terms in normalized.items() if result in last]


def _moved_back(
    graph: Graph, known: dict[int, _Terms], divisor: int | None, source: int, mean: int | None, origin: Origin
) -> dict[int, _Terms]:
    """Return the normalized tensors in the layout of the origin; its channels have one gain and one offset so far."""
    layouts: dict[int, tuple[Places, _Terms]] = {}
    back: dict[int, _Terms] = {}
    whole = np.arange(graph.tensors[origin.tensor].elements).reshape(graph.tensors[origin.tensor].shape)
    for op in graph.ops:
        if op.inputs and op.inputs[0] in layouts:
            before, terms = layouts[op.inputs[0]]
            places = moved(graph, op, before)
            if places is not None and np.array_equal(places, whole):
                back[op.outputs[0]] = terms
            elif places is not None:
                layouts[op.outputs[0]] = places, terms
        computed = _terms(graph, op, known, divisor)
        if computed is None:
            continue
        result = op.outputs[0]
        known[result] = computed
        uniform = {key: value[:1] for key, value in computed.items() if np.ptp(value) == 0.0}
        is_whole = uniform.keys() == computed.keys() and graph.tensors[result].shape == graph.tensors[source].shape
        if is_whole and _is_normalized(computed, mean):
            layouts[result] = origin.places, uniform
    return back


def _last(graph: Graph, result: int, normalized: Mapping[int, _Terms]) -> int:
    """Return the last of the tensors that follow from a normalized one, each read by the next one's op only."""
    while result not in graph.outputs and len(readers := graph.consumers.get(result, ())) == 1:
        following = graph.ops[readers[0]].outputs[0] if graph.ops[readers[0]].outputs else -1
        if following not in normalized:
            break
        result = following
    return result


def _is_normalized(terms: _Terms, mean: int | None) -> bool:
    if "xr" not in terms or not terms.keys() <= {"xr", "mr", "1"}:
        return False
    if mean is None:
        return "mr" not in terms
    return "mr" in terms and bool(np.allclose(terms["mr"], -terms["xr"], rtol=1e-5, atol=0.0))


def _terms(graph: Graph, op: Op, known: Mapping[int, _Terms], divisor: int | None) -> _Terms | None:
    """Return the result of an op as a sum of terms; None where it is none, is known or has nothing of the norm."""
    if not op.outputs or op.outputs[0] in known or not is_linear(op):
        return None
    if not any(index in known or index == divisor for index in op.inputs):
        return None
    values = [known.get(index) or _constant_terms(graph, index) for index in op.inputs]
    if op.name == "DIV" and op.inputs[1] == divisor and values[0] is not None:
        return _product(values[0], {"r": np.ones(1)})
    if any(value is None for value in values):
        return None
    parts: list[_Terms] = [value for value in values if value is not None]
    if op.name == "NEG":
        return {key: -value for key, value in parts[0].items()}
    if op.name == "MUL":
        return _product(*parts)
    if op.name == "DIV" and parts[1].keys() == {"1"} and bool((parts[1]["1"] != 0.0).all()):
        return {key: value / parts[1]["1"] for key, value in parts[0].items()}
    if op.name in {"ADD", "SUB"}:
        sign = 1.0 if op.name == "ADD" else -1.0
        return {
            key: parts[0].get(key, np.zeros(1)) + sign * parts[1].get(key, np.zeros(1))
            for key in (*parts[0], *(key for key in parts[1] if key not in parts[0]))
        }
    return None


def _constant_terms(graph: Graph, index: int) -> _Terms | None:
    """Return a constant with one value, or one per channel."""
    tensor = graph.tensors[index]
    if tensor.data is None or tensor.data.dtype.kind != "f" or tensor.elements != (tensor.shape or (1,))[-1]:
        return None
    return {"1": tensor.data.astype(np.float64).reshape(-1)}


def _product(one: _Terms, other: _Terms) -> _Terms | None:
    """Return the product of two sums; None where it has a term of another form."""
    result: dict[str, Doubles] = {}
    for first, value in one.items():
        for second, factor in other.items():
            if "1" in (first, second):
                key: str | None = second if first == "1" else first
            else:
                key = _PRODUCTS.get((first, second))
            if key is None:
                return None
            result[key] = result.get(key, np.zeros(1)) + value * factor
    return result
