"""Chains of ops that only move values (RESHAPE, TILE, TRANSPOSE ...), written again in fewer dimensions.

A chain is run on the positions of its input's values, so what it does is known value by value; a rewrite is offered
only when its own run gives the same positions.
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

#: Above this many values a chain is left alone: working it out would take seconds.
_MOST_VALUES = 1 << 23
#: Most axes that are told apart; more would make the search long.
_MOST_AXES = 6
#: Upscaling in one step that every target takes; larger factors are also offered in steps.
_STEP = 4

_MOVES = frozenset(
    {
        "BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH",
        "SQUEEZE", "TILE", "TRANSPOSE",
    }
)  # fmt: skip


def rewrite_movement(graph: Graph, op: Op) -> list[Edit]:
    """Chains of RESHAPE, TILE, BROADCAST_TO, TRANSPOSE and the like, which end in `op`, in forms that targets take.

    Nearest upsampling becomes RESIZE_NEAREST_NEIGHBOR (in steps, as an alternative); shuffles become DEPTH_TO_SPACE,
    SPACE_TO_DEPTH or TRANSPOSE in at most four dimensions, or several in three; what moves nothing becomes RESHAPE.

    Returns:
        Alternatives for the longest chain that can be rewritten; none when it cannot be.
    """
    chain = _chain_to(graph, op)
    for start in range(len(chain)):
        part = chain[start:]
        if found := _alternatives(graph, part):
            return found
    return []


def _chain_to(graph: Graph, last: Op) -> list[Op]:
    """Return the longest chain of moving ops that ends in `last`, empty when a moving op goes on behind it."""
    if not _moves(graph, last):
        return []
    readers = graph.consumers.get(last.outputs[0], ())
    if last.outputs[0] not in graph.outputs and len(readers) == 1 and _moves(graph, graph.ops[readers[0]]):
        return []
    chain = [last]
    while True:
        source = chain[0].inputs[0]
        producer = graph.producers.get(source)
        if producer is None or len(graph.consumers.get(source, ())) != 1 or source in graph.outputs:
            return chain
        op = graph.ops[producer]
        if not _moves(graph, op):
            return chain
        chain.insert(0, op)


def _moves(graph: Graph, op: Op) -> bool:
    if op.name not in _MOVES or not op.inputs or op.inputs[0] < 0 or len(op.outputs) != 1:
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
        positions = _moved(graph, op, positions)
        if positions is None:
            return []
    assert positions is not None
    if positions.shape != after.shape:
        return []
    alone = len(chain) == 1
    found: list[Edit] = []
    for code, what, steps in _forms(before, after, positions):
        names = [step[0] for step in steps]
        if alone and names in ([chain[0].name], ["RESHAPE", chain[0].name, "RESHAPE"]) and chain[0].name != "TRANSPOSE":
            continue
        draft = Draft(graph, after.name)
        _write(draft, before, after, steps)
        message = f"{', '.join(op.name for op in chain)} written as {', '.join(names)}: {what}"
        found.append(draft.edit(code, [op.index for op in chain], message))
    return found


def _moved(graph: Graph, op: Op, positions: Positions) -> Positions | None:
    """Run one op on positions; None when the file does not tell what it does."""
    shape = graph.tensors[op.outputs[0]].shape
    if op.name in {"RESHAPE", "EXPAND_DIMS", "SQUEEZE"}:
        return positions.reshape(shape) if math.prod(shape) == positions.size else None
    if op.name in {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"}:
        return _blocks(positions, int(op.options.get("block_size", 0)), deeper=op.name == "SPACE_TO_DEPTH")
    if op.name == "RESIZE_NEAREST_NEIGHBOR":
        return _resized(positions, shape, op)
    values = graph.tensors[op.inputs[1]].data if len(op.inputs) > 1 and op.inputs[1] >= 0 else None
    if values is None:
        return None
    given = tuple(int(value) for value in values.ravel())
    if op.name == "TRANSPOSE":
        return positions.transpose(given) if sorted(given) == list(range(positions.ndim)) else None
    # Lengths are compared before anything is repeated: a broken file may ask for more than there is memory.
    if op.name == "TILE":
        sizes = tuple(size * count for size, count in zip(positions.shape, given, strict=False))
        return np.tile(positions, given) if len(given) == positions.ndim and sizes == tuple(shape) else None
    own = (*(1,) * (len(given) - positions.ndim), *positions.shape)
    fits = len(own) == len(given) and all(a in {1, b} for a, b in zip(own, given, strict=True))
    return np.broadcast_to(positions, given) if fits and given == tuple(shape) else None


def _blocks(positions: Positions, size: int, *, deeper: bool) -> Positions | None:
    if positions.ndim != 4 or size < 2:
        return None
    n, h, w, c = positions.shape
    if deeper:
        if h % size or w % size:
            return None
        cut = positions.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
        return cut.reshape(n, h // size, w // size, size * size * c)
    if c % (size * size):
        return None
    cut = positions.reshape(n, h, w, size, size, c // (size * size)).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(n, h * size, w * size, c // (size * size))


def _resized(positions: Positions, shape: Sequence[int], op: Op) -> Positions | None:
    """Whole-number upscaling only; other sizes depend on how the kernel rounds."""
    factors = _factors(positions.shape, shape)
    if factors is None or min(factors) < 1 or op.options.get("align_corners"):
        return None
    return _repeated(positions, factors)


def _repeated(positions: Positions, factors: tuple[int, int]) -> Positions:
    return np.repeat(np.repeat(positions, factors[0], axis=1), factors[1], axis=2)


def _factors(before: Sequence[int], after: Sequence[int]) -> tuple[int, int] | None:
    if len(before) != 4 or len(after) != 4 or (before[0], before[3]) != (after[0], after[3]):
        return None
    if after[1] % before[1] or after[2] % before[2]:
        return None
    return after[1] // before[1], after[2] // before[2]


#: An op's name, its result's shape, and its parameter (a shape, an order of axes, a size or a block size).
_Step = tuple[str, tuple[int, ...], tuple[int, ...]]


def _forms(before: Tensor, after: Tensor, positions: Positions) -> list[tuple[str, str, list[_Step]]]:
    """Return (code, what it is, steps) of every form known for the movement."""
    flat = positions.ravel()
    found: list[tuple[str, str, list[_Step]]] = []
    if flat.size == before.elements and np.array_equal(flat, np.arange(flat.size)):
        return [("flat-reshape", "the values stay in order", [("RESHAPE", after.shape, after.shape)])]
    factors = _factors(before.shape, after.shape)
    own = np.arange(before.elements, dtype=np.int32).reshape(before.shape)
    if factors is not None and factors != (1, 1) and np.array_equal(_repeated(own, factors), positions):
        what = f"nearest upsampling by {factors[0]} x {factors[1]}"
        found.append(("nearest-upsampling", what, [("RESIZE_NEAREST_NEIGHBOR", after.shape, after.shape[1:3])]))
        if max(factors) > _STEP and (steps := _resize_steps(before.shape, factors)):
            found.append(("nearest-upsampling", f"{what} in steps", steps))
        return found
    if flat.size != before.elements:
        return []
    found.extend(_block_forms(before, after, own, positions))
    axes = _axes(flat)
    if axes is None:
        return found
    sizes, order = axes
    if len(sizes) <= 4:
        one = _transposes(sizes, [(tuple((i,) for i in range(len(sizes))), order)], after.shape)
        found.append(("flat-transpose", f"a shuffle of {len(sizes)} axes", one))
    moves = _three_block_moves(order)
    if moves is not None and (len(sizes) > 3):
        found.append(
            ("flat-transpose", f"a shuffle in {len(moves)} steps of 3 axes", _transposes(sizes, moves, after.shape))
        )
    return found


def _block_forms(
    before: Tensor, after: Tensor, own: Positions, positions: Positions
) -> list[tuple[str, str, list[_Step]]]:
    if before.rank != 4 or after.rank != 4:
        return []
    for name, large, small in (("DEPTH_TO_SPACE", after, before), ("SPACE_TO_DEPTH", before, after)):
        size = large.shape[1] // small.shape[1]
        made = _blocks(own, size, deeper=name == "SPACE_TO_DEPTH")
        if made is not None and np.array_equal(made, positions):
            return [("block-shuffle", f"blocks of {size} x {size}", [(name, after.shape, (size,))])]
    return []


def _resize_steps(shape: Sequence[int], factors: tuple[int, int]) -> list[_Step]:
    """Return upscaling in steps of at most `_STEP`; empty when a factor has a larger prime."""
    size = [shape[1], shape[2]]
    left = list(factors)
    steps: list[_Step] = []
    while max(left) > 1:
        for axis in (0, 1):
            step = next((s for s in range(_STEP, 1, -1) if left[axis] % s == 0), 1)
            if step == 1 and left[axis] > 1:
                return []
            left[axis] //= step
            size[axis] *= step
        steps.append(("RESIZE_NEAREST_NEIGHBOR", (shape[0], size[0], size[1], shape[3]), (size[0], size[1])))
    return steps


def _axes(flat: Positions) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return (sizes of the input's axes, order of axes of the output) of a shuffle; None when it is not one of axes.

    Neighbouring axes that stay together are one, so that the number of axes is the smallest.
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
    # `digits` runs from the output's last axis to its first; an input axis' stride says where it stood.
    digits.reverse()
    by_stride = sorted(range(len(digits)), key=lambda i: -digits[i][0])
    sizes = tuple(digits[i][1] for i in by_stride)
    order = tuple(by_stride.index(i) for i in range(len(digits)))
    again = np.arange(flat.size, dtype=np.int32).reshape(sizes).transpose(order).ravel()
    return (sizes, order) if np.array_equal(again, flat) else None


#: Blocks of axes that a three-dimensional transpose moves, and their new order.
_Move = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]


def _three_block_moves(order: tuple[int, ...]) -> list[_Move] | None:
    """Return the fewest transposes of at most three blocks of axes that make an order of axes."""
    start = tuple(range(len(order)))
    seen: dict[tuple[int, ...], tuple[tuple[int, ...], _Move] | None] = {start: None}
    queue = deque([start])
    while queue:
        here = queue.popleft()
        if here == order:
            break
        for a in range(1, len(here)):
            for b in range(a + 1, len(here) + 1):
                blocks = tuple(block for block in (here[:a], here[a:b], here[b:]) if block)
                for way in permutations(range(len(blocks))):
                    there = tuple(axis for i in way for axis in blocks[i])
                    if there not in seen:
                        seen[there] = (here, (blocks, way))
                        queue.append(there)
    found: list[_Move] = []
    state = order
    while (step := seen.get(state)) is not None:
        state, move = step
        found.insert(0, move)
    return found if state == start and found else None


def _transposes(sizes: Sequence[int], moves: Sequence[_Move], shape: tuple[int, ...]) -> list[_Step]:
    """Return RESHAPE and TRANSPOSE steps; shapes get leading ones up to four dimensions, as images have."""
    steps: list[_Step] = []
    for blocks, way in moves:
        flat = tuple(int(np.prod([sizes[axis] for axis in block])) for block in blocks)
        ones = 4 - len(flat)
        before = (*(1,) * ones, *flat)
        order = (*range(ones), *(i + ones for i in way))
        steps.append(("RESHAPE", before, before))
        steps.append(("TRANSPOSE", tuple(before[i] for i in order), order))
    steps.append(("RESHAPE", shape, shape))
    return steps


def _write(draft: Draft, before: Tensor, after: Tensor, steps: Sequence[_Step]) -> None:
    """Write steps that change something into a draft, the last of them into `after`."""
    shape, source = before.shape, before.index
    needed = [
        (name, made, parameter)
        for name, made, parameter, had in zip(
            *map(list, zip(*steps, strict=True)), [shape, *(step[1] for step in steps)], strict=False
        )
        if name != "RESHAPE" or made != had or len(steps) == 1
    ]
    for number, (name, made, parameter) in enumerate(needed):
        last = number == len(needed) - 1
        target = after.index if last else draft.activation(made)
        if name in {"DEPTH_TO_SPACE", "SPACE_TO_DEPTH"}:
            draft.op(name, [source], [target], block_size=parameter[0])
        elif name == "RESHAPE":
            wanted = draft.constant(parameter, "INT32")
            draft.op(name, [source, wanted], [target], new_shape=list(parameter))
        elif name == "RESIZE_NEAREST_NEIGHBOR":
            had = _shape(draft, source)
            centers = any(_rounds_down(had[axis], made[axis]) for axis in (1, 2))
            size = draft.constant(parameter, "INT32")
            draft.op(name, [source, size], [target], half_pixel_centers=centers)
        else:
            draft.op(name, [source, draft.constant(parameter, "INT32")], [target])
        source = target


def _shape(draft: Draft, index: int) -> tuple[int, ...]:
    count = len(draft.graph.tensors)
    return draft.graph.tensors[index].shape if index < count else draft.tensors[index - count].shape


def _rounds_down(before: int, after: int) -> bool:
    """Tell whether the kernel's floor(i * scale), in float32, misses a whole number (factor 41, say).

    Counted from pixel centres it never does, but that needs a newer version of the op.
    """
    scale = np.float32(before) / np.float32(after)
    taken = np.floor(np.arange(after, dtype=np.float32) * scale).astype(np.int64)
    return not np.array_equal(taken, np.arange(after) // (after // before))
