"""The tensors whose gradients tell how much an activation matters."""

from collections.abc import Iterator
from dataclasses import replace

from edgepack.quantize.ptq.lowering.model import LoweredModel
from edgepack.runtime.logits import logit_tensors


def differentiable_logits(lowered: LoweredModel) -> tuple[int, ...]:
    """Return the tensor indices of a model's logits that gradients reach.

    Where an output is an integer (a class by ARG_MAX) or comes from an op that is not lowered (a detector's
    non-maximum suppression), they are the floating-point tensors that it was computed from.
    """
    found = dict.fromkeys(
        index for output in logit_tensors(lowered.graph) for index in _nearest(lowered, output, set())
    )
    logits = logit_tensors(replace(lowered.graph, outputs=tuple(found)))
    return tuple(dict.fromkeys(index for index in logits if index in lowered.shapes))


def _nearest(lowered: LoweredModel, index: int, visited: set[int]) -> Iterator[int]:
    """Yield the nearest tensors that can be differentiated, from a tensor towards the inputs."""
    if index in visited:
        return
    visited.add(index)
    graph = lowered.graph
    producer = graph.producers.get(index)
    is_float = graph.tensors[index].is_float and index in lowered.shapes
    op = None if producer is None else graph.ops[producer]
    operands = [] if op is None else [i for i in op.inputs if i >= 0 and not graph.tensors[i].is_constant]
    differentiable = op is None or (
        op.index not in lowered.boundaries and any(graph.tensors[i].is_float for i in operands)
    )
    if is_float and differentiable:
        yield index
        return
    before = [found for operand in operands for found in _nearest(lowered, operand, visited)]
    yield from before or ([index] if is_float else [])
