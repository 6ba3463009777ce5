"""Figures that go with a check: parameters against on-chip memory, the cost of a cut graph."""

from collections.abc import Iterable
from typing import Any

from edgepack.compat.context import inputs
from edgepack.graph import Graph
from edgepack.profiles.model import MemoryRule


def parameter_bytes(graph: Graph, ops: Iterable[int]) -> int:
    """Return the bytes of weights, biases and constant operands of the ops given, shared ones counted once."""
    buffers = {}
    for index in ops:
        for _, part, tensor in inputs(graph, graph.ops[index]):
            if part != "parameter" and tensor.raw is not None:
                buffers[tensor.buffer] = int(tensor.raw.nbytes)
    return sum(buffers.values())


def memory(graph: Graph, ops: Iterable[int], rule: MemoryRule) -> tuple[dict[str, Any], str]:
    """Estimate whether parameters fit on the chip.

    Args:
        graph: The main graph.
        ops: Indices of the ops on the accelerator.
        rule: The profile's memory.

    Returns:
        Numbers in bytes, and a sentence. The range comes from the growth that the compiler's files show.
    """
    size = parameter_bytes(graph, ops)
    low, high = round(size * rule.growth[0]), round(size * rule.growth[1])
    streamed = (max(0, low - rule.parameter_bytes), max(0, high - rule.parameter_bytes))
    figures = {
        "parameter_bytes": size,
        "compiled_parameter_bytes": [low, high],
        "on_chip_bytes": rule.on_chip_bytes,
        "free_for_parameters": rule.parameter_bytes,
        "streamed_bytes": list(streamed),
    }
    span = f"{_mib(low)} to {_mib(high)} MiB" if _mib(low) != _mib(high) else f"{_mib(low)} MiB"
    free = f"about {_mib(rule.parameter_bytes)} MiB that are typically free on the chip"
    if streamed[1] == 0:
        verdict = f"fit the {free}"
    elif streamed[0] > 0:
        verdict = f"exceed the {free}: {_mib(streamed[0])} to {_mib(streamed[1])} MiB are streamed in every run"
    else:
        verdict = f"may exceed the {free}: up to {_mib(streamed[1])} MiB would be streamed in every run"
    return figures, f"Parameters of {span} (an estimate) {verdict}."


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f}"
