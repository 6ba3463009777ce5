"""Blocks of a graph: a few layers each, which reconstruction trains together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgepack.graph import Graph
from edgepack.quantize.ptq.layers import Layer
from edgepack.quantize.ptq.tuning import BLOCK_LAYERS, LONGEST_BLOCK


@dataclass(frozen=True)
class Block:
    """Consecutive ops.

    Attributes:
        ops: Their indices.
        inputs: Activations that they read and others produce.
        outputs: Activations of theirs that others read, or that are logits.
        layers: Their layers.
    """

    ops: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layers: tuple[Layer, ...]


def split_blocks(graph: Graph, layers: Sequence[Layer], logits: Sequence[int]) -> list[Block]:
    """Return the ops of a graph in blocks of a few layers, cut where one activation carries everything if possible.

    Args:
        graph: The graph.
        layers: Its layers.
        logits: Activations that count as results.
    """
    of_op = {layer.op.index: layer for layer in layers}
    last_use = {index: op.index for op in graph.ops for index in op.inputs if index >= 0}
    last_use.update(dict.fromkeys((*logits, *graph.outputs), len(graph.ops)))
    variable = {*graph.inputs, *graph.producers}
    blocks: list[Block] = []
    part: list[int] = []
    alive: set[int] = set(graph.inputs)
    for op in graph.ops:
        part.append(op.index)
        alive |= {index for index in op.outputs if index >= 0}
        alive = {index for index in alive if last_use.get(index, -1) > op.index}
        count = sum(index in of_op for index in part)
        open_ends = len([index for index in alive if last_use[index] < len(graph.ops)])
        if (count >= BLOCK_LAYERS and open_ends <= 1) or count >= LONGEST_BLOCK or op.index == len(graph.ops) - 1:
            blocks.append(_block(graph, part, of_op, last_use, variable))
            part = []
    return [block for block in blocks if block.ops]


def _block(
    graph: Graph, part: Sequence[int], of_op: Mapping[int, Layer], last_use: Mapping[int, int], variable: set[int]
) -> Block:
    produced = {index for op in part for index in graph.ops[op].outputs if index >= 0}
    read = {index for op in part for index in graph.ops[op].inputs if index >= 0 and index in variable}
    outputs = {index for index in produced if last_use.get(index, -1) > part[-1]}
    return Block(
        tuple(part),
        tuple(sorted(read - produced)),
        tuple(sorted(outputs)),
        tuple(of_op[op] for op in part if op in of_op),
    )
