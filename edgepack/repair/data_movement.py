"""Rewrite chains of ops that only move values (RESHAPE, TILE, TRANSPOSE ...) with fewer dimensions.

A chain is evaluated on the indices of its input's values, which shows where every value goes; a rewrite is offered only
when it moves every value to the same position.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, Tensor
from edgepack.repair.graph_edits import Draft, Edit

Positions = npt.NDArray[np.int32]

#: Chains with more values are not analyzed: that would take seconds.
_MOST_VALUES = 1 << 23
#: Limit of the axes that a shuffle is decomposed into; more would make the search slow.
_MOST_AXES = 6
#: Upscaling factor of one op that every target supports; larger factors are also offered as several ops.
_MAX_FACTOR = 4

_MOVEMENT_OPS = frozenset(
    {
        "BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH",
        "SQUEEZE", "TILE", "TRANSPOSE",
    }
)  # fmt: skip


def rewrite_movement(graph: Graph, op: Op) -> list[Edit]:
    """Rewrite a chain of RESHAPE, TILE, BROADCAST_TO, TRANSPOSE and the like that ends in `op`.

    Nearest upsampling becomes RESIZE_NEAREST_NEIGHBOR (or several of them, as an alternative); shuffles become
    DEPTH_TO_SPACE, SPACE_TO_DEPTH or TRANSPOSE in at most four dimensions, or several TRANSPOSE in three; a chain that
    keeps the order of the values becomes RESHAPE.

    Returns:
        Alternatives for the longest chain that can be rewritten, empty when following is none.
    """
    chain = _chain_to(graph, op)
    for start in range(len(chain)):
        part = chain[start:]
        if edits := _alternatives(graph, part):
            return edits
    return []


def _chain_to(graph: Graph, last: Op) -> list[Op]:
    """Return the longest chain of movement ops that ends in `last`, empty when another movement op continues it."""
    if not _is_movement(graph, last):
        return []
    consumers = graph.consumers.get(last.outputs[0], ())
    if last.outputs[0] not in graph.outputs and len(consumers) == 1 and _is_movement(graph, graph.ops[consumers[0]]):
        return []
    chain = [last]
    while True:
        source = chain[0].inputs[0]
        producer = graph.producers.get(source)
        if producer is None or len(graph.consumers.get(source, ())) != 1 or source in graph.outputs:
            return chain
        op = graph.ops[producer]
        if not _is_movement(graph, op):
            return chain
        chain.insert(0, op)


def _is_movement(graph: Graph, op: Op) -> bool:
    if op.name not in _MOVEMENT_OPS or not op.inputs or op.inputs[0] < 0 or len(op.outputs) != 1:
        return False
    tensors = [graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]]
    return all(
        not t.is_dynamic and not t.is_constant and t.dtype == "FLOAT32" and 0 < t.elements <= _MOST_VALUES
        for t in tensors
    )


def _alternatives(graph: Graph, chain: list[Op]) -> list[Edit]:
    before, after = graph.tensors[chain[0].inputs[0]], graph.tensors[chain[-1].outputs[0]]
    positions: Positions | None = np.arange(before.elements, dtype=np.int32).reshape(before.shape)
    for op in chain:
        assert positions is not None
        positions = _apply_op(graph, op, positions)
        if positions is None:
            return []
    assert positions is not None
    if positions.shape != after.shape:
        return []
    single = len(chain) == 1
    edits: list[Edit] = []
    for code, description, steps in _forms(before, after, positions):
        names = [step[0] for step in steps]
        if (
            single
            and names in ([chain[0].name], ["RESHAPE", chain[0].name, "RESHAPE"])
            and chain[0].name != "TRANSPOSE"
        ):
            continue
        draft = Draft(graph, after.name)
        _draft_steps(draft, before, after, steps)
        message = f"{', '.join(op.name for op in chain)} written as {', '.join(names)}: {description}"
        edits.append(draft.edit(code, [op.index for op in chain], message))
    return edits


def _apply_op(graph: Graph, op: Op, positions: Positions) -> Positions | None:
    """Evaluate one op on positions; None when the result is not known from the file."""
    shape = graph.tensors[op.outputs[0]].shape
    if op.name in {"RESHAPE", "EXPAND_DIMS", "SQUEEZE"}:
        return positions.reshape(shape) if math.prod(shape) == positions.size else None
    if op.name in {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"}:
        return _rearrange_blocks(positions, int(op.options.get("block_size", 0)), to_depth=op.name == "SPACE_TO_DEPTH")
    if op.name == "RESIZE_NEAREST_NEIGHBOR":
        return _resize(positions, shape, op)
    values = graph.tensors[op.inputs[1]].integers if len(op.inputs) > 1 and op.inputs[1] >= 0 else None
    if values is None:
        return None
    parameter = tuple(int(value) for value in values.ravel())
    if op.name == "TRANSPOSE":
        return positions.transpose(parameter) if sorted(parameter) == list(range(positions.ndim)) else None
    # Compare sizes before repeating anything: a broken file may require more memory than following is.
    if op.name == "TILE":
        sizes = tuple(size * count for size, count in zip(positions.shape, parameter, strict=False))
        return np.tile(positions, parameter) if len(parameter) == positions.ndim and sizes == tuple(shape) else None
    source_shape = (*(1,) * (len(parameter) - positions.ndim), *positions.shape)
    fits = len(source_shape) == len(parameter) and all(
        size in {1, target} for size, target in zip(source_shape, parameter, strict=True)
    )
    return np.broadcast_to(positions, parameter) if fits and parameter == tuple(shape) else None


def _rearrange_blocks(positions: Positions, size: int, *, to_depth: bool) -> Positions | None:
    if positions.ndim != 4 or size < 2:
        return None
    n, h, w, c = positions.shape
    if to_depth:
        if h % size or w % size:
            return None
        blocks = positions.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h // size, w // size, size * size * c)
    if c % (size * size):
        return None
    blocks = positions.reshape(n, h, w, size, size, c // (size * size)).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, h * size, w * size, c // (size * size))


def _resize(positions: Positions, shape: Sequence[int], op: Op) -> Positions | None:
    """Resize by integer factors; None for other sizes, whose result depends on how the kernel rounds."""
    factors = _integer_factors(positions.shape, shape)
    if factors is None or min(factors) < 1 or op.options.get("align_corners"):
        return None
    return _repeat(positions, factors)


def _repeat(positions: Positions, factors: tuple[int, int]) -> Positions:
    return np.repeat(np.repeat(positions, factors[0], axis=1), factors[1], axis=2)


def _integer_factors(before: Sequence[int], after: Sequence[int]) -> tuple[int, int] | None:
    if len(before) != 4 or len(after) != 4 or (before[0], before[3]) != (after[0], after[3]):
        return None
    if after[1] % before[1] or after[2] % before[2]:
        return None
    return after[1] // before[1], after[2] // before[2]


#: Name of an op, shape of its result, and its parameter (a shape, an order of axes, a size or a block size).
_Step = tuple[str, tuple[int, ...], tuple[int, ...]]


def _forms(before: Tensor, after: Tensor, positions: Positions) -> list[tuple[str, str, list[_Step]]]:
    """Return (code, description, steps) of every known form of the movement."""
    flat = positions.ravel()
    forms: list[tuple[str, str, list[_Step]]] = []
    if flat.size == before.elements and np.array_equal(flat, np.arange(flat.size)):
        return [("flat-reshape", "the values stay in order", [("RESHAPE", after.shape, after.shape)])]
    factors = _integer_factors(before.shape, after.shape)
    identity = np.arange(before.elements, dtype=np.int32).reshape(before.shape)
    if factors is not None and factors != (1, 1) and np.array_equal(_repeat(identity, factors), positions):
        description = f"nearest upsampling by {factors[0]} x {factors[1]}"
        forms.append(("nearest-upsampling", description, [("RESIZE_NEAREST_NEIGHBOR", after.shape, after.shape[1:3])]))
        if max(factors) > _MAX_FACTOR and (steps := _resize_steps(before.shape, factors)):
            forms.append(("nearest-upsampling", f"{description} in steps", steps))
        return forms
    if flat.size != before.elements:
        return []
    forms.extend(_block_forms(before, after, identity, positions))
    axes = _axes(flat)
    if axes is None:
        return forms
    sizes, order = axes
    if len(sizes) <= 4:
        steps = _transposes(sizes, [(tuple((i,) for i in range(len(sizes))), order)], after.shape)
        forms.append(("flat-transpose", f"a shuffle of {len(sizes)} axes", steps))
    moves = _three_block_moves(order)
    if moves is not None and (len(sizes) > 3):
        forms.append(
            ("flat-transpose", f"a shuffle in {len(moves)} steps of 3 axes", _transposes(sizes, moves, after.shape))
        )
    return forms


def _block_forms(
    before: Tensor, after: Tensor, identity: Positions, positions: Positions
) -> list[tuple[str, str, list[_Step]]]:
    if before.rank != 4 or after.rank != 4:
        return []
    for name, large, small in (("DEPTH_TO_SPACE", after, before), ("SPACE_TO_DEPTH", before, after)):
        size = large.shape[1] // small.shape[1]
        rearranged = _rearrange_blocks(identity, size, to_depth=name == "SPACE_TO_DEPTH")
        if rearranged is not None and np.array_equal(rearranged, positions):
            return [("block-shuffle", f"blocks of {size} x {size}", [(name, after.shape, (size,))])]
    return []


def _resize_steps(shape: Sequence[int], factors: tuple[int, int]) -> list[_Step]:
    """Return upscaling steps of at most `_MAX_FACTOR` each; empty when a factor has a larger prime factor."""
    size = [shape[1], shape[2]]
    left = list(factors)
    steps: list[_Step] = []
    while max(left) > 1:
        for axis in (0, 1):
            step = next((s for s in range(_MAX_FACTOR, 1, -1) if left[axis] % s == 0), 1)
            if step == 1 and left[axis] > 1:
                return []
            left[axis] //= step
            size[axis] *= step
        steps.append(("RESIZE_NEAREST_NEIGHBOR", (shape[0], size[0], size[1], shape[3]), (size[0], size[1])))
    return steps


def _axes(flat: Positions) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return (sizes of the input's axes, order of axes of the output) of a shuffle; None if it is not an axis shuffle.

    Adjacent axes that stay adjacent are merged, so that the number of axes is minimal.
    """
    digits: list[tuple[int, int]] = []
    rest = flat
    while rest.size > 1:
        stride = int(rest[1]) - int(rest[0])
        steps = np.diff(rest) != stride
        size = int(np.argmax(steps)) + 1 if steps.any() else rest.size
        if stride <= 0 or size < 2 or rest.size % size or len(digits) == _MOST_AXES:
            return None
        digits.append((stride, size))
        rest = rest[::size]
    # `digits` goes from the output's last axis to its first; the stride gives the position of the input axis.
    digits.reverse()
    by_stride = sorted(range(len(digits)), key=lambda i: -digits[i][0])
    sizes = tuple(digits[i][1] for i in by_stride)
    order = tuple(by_stride.index(i) for i in range(len(digits)))
    reproduced = np.arange(flat.size, dtype=np.int32).reshape(sizes).transpose(order).ravel()
    return (sizes, order) if np.array_equal(reproduced, flat) else None


#: Blocks of axes that a three-dimensional transpose moves, and their new order.
_Move = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]


def _three_block_moves(order: tuple[int, ...]) -> list[_Move] | None:
    """Return the shortest list of transposes of at most three blocks of axes that results in an order of axes."""
    start = tuple(range(len(order)))
    reached_from: dict[tuple[int, ...], tuple[tuple[int, ...], _Move] | None] = {start: None}
    queue = deque([start])
    while queue:
        current = queue.popleft()
        if current == order:
            break
        for a in range(1, len(current)):
            for b in range(a + 1, len(current) + 1):
                blocks = tuple(block for block in (current[:a], current[a:b], current[b:]) if block)
                for block_order in permutations(range(len(blocks))):
                    following = tuple(axis for i in block_order for axis in blocks[i])
                    if following not in reached_from:
                        reached_from[following] = (current, (blocks, block_order))
                        queue.append(following)
    moves: list[_Move] = []
    state = order
    while (step := reached_from.get(state)) is not None:
        state, move = step
        moves.insert(0, move)
    return moves if state == start and moves else None


def _transposes(sizes: Sequence[int], moves: Sequence[_Move], shape: tuple[int, ...]) -> list[_Step]:
    """Return RESHAPE and TRANSPOSE steps; shapes are padded with leading ones to four dimensions, as of images."""
    steps: list[_Step] = []
    for blocks, block_order in moves:
        flat = tuple(int(np.prod([sizes[axis] for axis in block])) for block in blocks)
        ones = 4 - len(flat)
        before = (*(1,) * ones, *flat)
        order = (*range(ones), *(i + ones for i in block_order))
        steps.append(("RESHAPE", before, before))
        steps.append(("TRANSPOSE", tuple(before[i] for i in order), order))
    steps.append(("RESHAPE", shape, shape))
    return steps


def _draft_steps(draft: Draft, before: Tensor, after: Tensor, steps: Sequence[_Step]) -> None:
    """Add the steps that change something to a draft; the last one writes to `after`."""
    shape, source = before.shape, before.index
    needed = [
        (name, result, parameter)
        for (name, result, parameter), previous in zip(steps, [shape, *(step[1] for step in steps)], strict=False)
        if name != "RESHAPE" or result != previous or len(steps) == 1
    ]
    for number, (name, result, parameter) in enumerate(needed):
        last = number == len(needed) - 1
        target = after.index if last else draft.activation(result)
        if name in {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"}:
            draft.op(name, [source], [target], block_size=parameter[0])
        elif name == "RESHAPE":
            new_shape = draft.constant(parameter, "INT32")
            draft.op(name, [source, new_shape], [target], new_shape=list(parameter))
        elif name == "RESIZE_NEAREST_NEIGHBOR":
            source_shape = _shape(draft, source)
            centers = any(_misses_index(source_shape[axis], result[axis]) for axis in (1, 2))
            size = draft.constant(parameter, "INT32")
            draft.op(name, [source, size], [target], half_pixel_centers=centers)
        else:
            draft.op(name, [source, draft.constant(parameter, "INT32")], [target])
        source = target


def _shape(draft: Draft, index: int) -> tuple[int, ...]:
    count = len(draft.graph.tensors)
    return draft.graph.tensors[index].shape if index < count else draft.tensors[index - count].shape


def _misses_index(before: int, after: int) -> bool:
    """Return whether the kernel's floor(i * scale), in float32, is too small for some i (with a factor of 41, say).

    With half-pixel centers it never is, but these need a newer version of the op.
    """
    scale = np.float32(before) / np.float32(after)
    indices = np.floor(np.arange(after, dtype=np.float32) * scale).astype(np.int64)
    return not np.array_equal(indices, np.arange(after) // (after // before))
