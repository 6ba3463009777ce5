"""Figures that go with a check: parameters against on-chip memory."""

import math
from collections.abc import Iterable
from typing import Any

from edgepack.compat.context import inputs
from edgepack.graph import Graph, Op, Tensor
from edgepack.profiles.model import MemoryLayout, MemoryRule


def parameter_bytes(graph: Graph, ops: Iterable[int]) -> int:
    """Return the bytes of weights, biases and constant operands of the ops given, shared ones counted once."""
    return sum(_buffers(graph, ops).values())


def padded_bytes(graph: Graph, ops: Iterable[int], layout: MemoryLayout) -> int:
    """Return the bytes that the parameters of the ops given take in a compiler's layout, shared ones counted once.

    Weights are padded, biases are part of the overhead per row, other constants are taken as they are.
    """
    total = 0
    seen: set[int] = set()
    for index in ops:
        op = graph.ops[index]
        # The matrices of an LSTM's gates have one width each and are computed as one.
        stacked: dict[tuple[int, int], int] = {}
        for _, part, tensor in inputs(graph, op):
            if part == "parameter" or tensor.raw is None or tensor.buffer in seen:
                continue
            seen.add(tensor.buffer)
            if part == "weights" and tensor.rank >= 2:
                rows, taps, columns = _matrix(op, tensor, layout)
                stacked[taps, columns] = stacked.get((taps, columns), 0) + rows
            elif part != "bias":
                total += int(tensor.raw.nbytes)
        for (taps, columns), rows in stacked.items():
            total += _up(rows, layout.rows if columns else layout.channels) * (
                taps * max(1, _up(columns, layout.columns)) + layout.row_overhead
            )
    return total


def memory(graph: Graph, ops: Iterable[int], rule: MemoryRule) -> tuple[dict[str, Any], str]:
    """Estimate whether parameters fit on the chip.

    Args:
        graph: The main graph.
        ops: Indices of the ops on the accelerator.
        rule: The profile's memory.

    Returns:
        Numbers in bytes, and a sentence. The range is the compiler's layout, or else the file's bytes, times the
        growth that the compiler's files show.
    """
    taken = list(ops)
    size = parameter_bytes(graph, taken)
    base = size if rule.layout is None else padded_bytes(graph, taken, rule.layout)
    low, high = round(base * rule.growth[0]), round(base * rule.growth[1])
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


def _buffers(graph: Graph, ops: Iterable[int]) -> dict[int, int]:
    found = {}
    for index in ops:
        for _, part, tensor in inputs(graph, graph.ops[index]):
            if part != "parameter" and tensor.raw is not None:
                found[tensor.buffer] = int(tensor.raw.nbytes)
    return found


def _matrix(op: Op, tensor: Tensor, layout: MemoryLayout) -> tuple[int, int, int]:
    """Return weights as (rows, kernel taps, columns); depthwise kernels have no columns."""
    if op.name == "DEPTHWISE_CONV_2D":
        return tensor.shape[-1], math.prod(tensor.shape[:-1]), 0
    return tensor.shape[0], math.prod(tensor.shape[1:-1]), tensor.shape[-1]


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f}"
