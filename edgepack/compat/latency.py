"""Estimated latency of an accelerator: per-op roofline with constants fitted on published figures. Pure.

An op takes the longest of its arithmetic, its activations and the transfer of those parameters that the chip does not
keep, because the accelerator does the three at the same time; ops run one after another. A host adds the transfer of
inputs and outputs and a fixed time for each inference.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgepack.compat.context import data_input, first_output, inputs, weights_of
from edgepack.compat.estimates import padded_bytes_of
from edgepack.graph import Graph, Model, Op, Tensor
from edgepack.graph.op_layout import OP_LAYOUTS
from edgepack.latency_estimate import HostLatency, LatencyEstimate
from edgepack.profiles.latency import LatencyHost, LatencyRule
from edgepack.profiles.model import MemoryLayout, MemoryRule

#: Most elements of an activation: the files with more are broken, and their figures no numbers.
_LARGEST = 1 << 40


@dataclass(frozen=True)
class OpFeatures:
    """What determines the time of an op.

    Attributes:
        op: TFLite builtin name.
        macs: Multiply-accumulates, sums and results padded to the size of the array.
        depthwise_macs: Multiply-accumulates of a depthwise convolution, which cannot use the whole array.
        activations: Elements read and written.
        parameters: Bytes of parameters in the compiler's layout; shared buffers count once.
    """

    op: str
    macs: int = 0
    depthwise_macs: int = 0
    activations: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class ModelFeatures:
    """What determines the latency of a model.

    Attributes:
        ops: The ops on the accelerator, in file order.
        transferred: Elements of the accelerator's inputs and outputs.
    """

    ops: tuple[OpFeatures, ...]
    transferred: int


def features(graph: Graph, accelerated: Iterable[int], layout: MemoryLayout, array: tuple[int, int]) -> ModelFeatures:
    """Return the features of the ops on the accelerator.

    Elements count as bytes: the fit and the accelerator know 8-bit activations only.

    Args:
        graph: The main graph.
        accelerated: Indices of the ops on the accelerator.
        layout: How the compiler pads parameters.
        array: Multiples to which the products of a sum (kernel taps times input channels) and the output channels are
            padded.
    """
    indices = sorted(accelerated)
    own = set(indices)
    counted: set[int] = set()
    ops = []
    written: set[int] = set()
    read: dict[int, int] = {}
    for index in indices:
        op = graph.ops[index]
        macs, depthwise = _macs(graph, op, array)
        data = {tensor.index: tensor.elements for _, kind, tensor in inputs(graph, op) if _moves(kind, tensor)}
        results = {tensor.index: tensor.elements for tensor in graph.op_outputs(op)}
        read.update(data)
        written.update(results)
        moved = sum(data.values()) + sum(results.values())
        ops.append(OpFeatures(op.label, macs, depthwise, moved, padded_bytes_of(graph, op, layout, counted)))
    elsewhere = {i for op in graph.ops if op.index not in own for i in op.inputs} | set(graph.outputs)
    incoming = sum(size for tensor, size in read.items() if tensor not in written)
    outgoing = sum(graph.tensors[i].elements for i in written & elsewhere)
    return ModelFeatures(tuple(ops), incoming + outgoing)


def milliseconds(model: ModelFeatures, rule: LatencyRule, host: LatencyHost, kept: int) -> float:
    """Return the estimated milliseconds of an inference.

    Args:
        model: The model's features.
        rule: Constants of the accelerator.
        host: Constants of the bus and the host.
        kept: Bytes of parameters that the chip keeps between inferences; the compiler keeps the first ones.
    """
    total = host.fixed_ms + model.transferred / host.io_bytes_per_ms
    free = kept
    for op in model.ops:
        held = min(free, op.parameters)
        free -= held
        compute = op.macs / rule.macs_per_ms + op.depthwise_macs / rule.depthwise_macs_per_ms
        moved = op.activations / rule.activation_bytes_per_ms
        streamed = (op.parameters - held) / host.parameter_bytes_per_ms
        total += rule.op_ms + max(compute, moved, streamed)
    return total


def estimate(
    graph: Graph, accelerated: Sequence[int], rule: LatencyRule, memory: MemoryRule
) -> tuple[dict[str, Any], str]:
    """Estimate the latency of a model, or say why there is no estimate.

    Args:
        graph: The main graph.
        accelerated: Indices of the ops on the accelerator, at least one.
        rule: The profile's latency model.
        memory: The profile's memory rule.

    Returns:
        Figures (`latency`, empty without an estimate), and a sentence. With ops on the host the figures are lower
        bounds: the host's ops are not known.
    """
    own = [graph.ops[index] for index in accelerated]
    unknown = sorted({op.label for op in own if op.label not in rule.ops})
    computing = [name for name in unknown if name in OP_LAYOUTS or "LSTM" in name]
    if computing:
        return {}, f"No latency estimate: none of the published figures is of a network with {', '.join(computing)}."
    if any(not tensor.has_rank or tensor.is_dynamic for op in own for tensor in graph.op_outputs(op)):
        return {}, "No latency estimate: the shapes of the model are not fixed."
    if any(tensor.elements > _LARGEST for op in own for tensor in graph.op_outputs(op)):
        return {}, "No latency estimate: an activation is larger than any network's."
    model = features(graph, accelerated, memory.layout or MemoryLayout(), rule.array)
    estimated = LatencyEstimate(
        by="edgepack",
        figures=tuple(
            HostLatency(host.id, host.title, milliseconds(model, rule, host, memory.parameter_bytes))
            for host in rule.hosts
        ),
        host_ops=len(graph.ops) - len(accelerated),
        unfitted_ops=tuple(unknown),
        fit={"source": rule.source, "fitted": rule.fitted, "error": asdict(rule.error)},
    )
    return {"latency": estimated.to_json()}, f"Latency: {estimated.text}."


def _moves(kind: str, tensor: Tensor) -> bool:
    return kind in {"data", "state"} and not tensor.is_constant


def multiply_accumulates(model: Model) -> int:
    """Return the multiply-accumulate operations of a run of the main graph, of ops with weights."""
    return sum(sum(_macs(model.main, op, (1, 1))) for op in model.main.ops)


def _macs(graph: Graph, op: Op, array: tuple[int, int]) -> tuple[int, int]:
    """Return the (padded, depthwise) multiply-accumulates of an op."""
    weights, output, data = weights_of(graph, op), first_output(graph, op), data_input(graph, op)
    if weights is None or output is None or data is None or weights.rank < 2 or not (output.rank and data.rank):
        return 0, 0
    if op.name == "DEPTHWISE_CONV_2D":
        return 0, output.elements * math.prod(weights.shape[1:-1])
    # The kernel visits each position of the output once; a transposed one each position of the input.
    at = data if op.name == "TRANSPOSE_CONV" else output
    positions = at.elements // max(1, at.shape[-1])
    taps, summed, results = math.prod(weights.shape[1:-1]), weights.shape[-1], weights.shape[0]
    # The array sums the products of all taps and input channels together, so that they share one padding; a transposed
    # convolution sums over the channels and writes a result for each tap.
    summed, results = (summed, results * taps) if op.name == "TRANSPOSE_CONV" else (summed * taps, results)
    columns, rows = (-(-size // multiple) * multiple for size, multiple in ((summed, array[0]), (results, array[1])))
    return positions * columns * rows, 0
