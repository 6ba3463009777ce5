"""Choose the rewrites that move ops onto an accelerator, and do them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgepack.graph import Graph, Model, Op, read_model
from edgepack.graph.edit import set_batch
from edgepack.repair.approximate import rewrite_elu, rewrite_gelu, rewrite_hard_swish
from edgepack.repair.data_movement import rewrite_movement
from edgepack.repair.exact import (
    rewrite_arithmetic,
    rewrite_constant_product,
    rewrite_division,
    rewrite_grouped_convolution,
    rewrite_leaky_relu,
    rewrite_mean,
    rewrite_padv2,
    rewrite_shrinking_slice,
    rewrite_split,
    rewrite_tile,
)
from edgepack.repair.graph_edits import Edit, edited, removed_results, rewritten
from edgepack.repair.postprocessing import cut, cut_file
from edgepack.runtime.postprocessing import PostprocessStep

#: What a rewrite function looks like: alternatives for the place that the op is the (last) part of, best first.
Rewriter = Callable[[Graph, Op], list[Edit]]

#: Tells which ops of a float model a target leaves off its accelerator, as the first output tensors of those ops;
#: ops that quantization adds have tensors beyond the model's own.
Score = Callable[[Model], frozenset[int]]

EXACT: tuple[Rewriter, ...] = (
    rewrite_movement,
    rewrite_grouped_convolution,
    rewrite_leaky_relu,
    rewrite_padv2,
    rewrite_split,
    rewrite_division,
    rewrite_mean,
    rewrite_arithmetic,
    rewrite_constant_product,
    rewrite_tile,
    rewrite_shrinking_slice,
)
APPROXIMATE: tuple[Rewriter, ...] = (rewrite_hard_swish, rewrite_gelu, rewrite_elu)

MODES = ("exact", "none", "approximate")

#: A rewrite can make place for another; more rounds than this have not been seen to help.
_ROUNDS = 3
#: Above this many places they are judged by kind instead of one by one, to stay within seconds.
_MOST_SINGLE = 48


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that was done.

    Attributes:
        code: Stable name, such as `grouped-convolution`.
        op: TFLite name of the (last) op it replaced.
        index: That op's index in the file that was given (in the file of the round before, for later rounds).
        output: Name of the tensor it makes.
        message: What was rewritten to what.
        exact: False for an approximation.
        moved_ops: How many more ops would be off the accelerator without it.
    """

    code: str
    op: str
    index: int
    output: str
    message: str
    exact: bool
    moved_ops: int

    def to_json(self) -> dict[str, object]:
        """Return one entry of `repairs` in JSON documents."""
        return {
            "code": self.code, "op": self.op, "index": self.index, "output": self.output, "message": self.message,
            "exact": self.exact, "moved_ops": self.moved_ops,
        }  # fmt: skip


@dataclass(frozen=True)
class Repaired:
    """A model after repairs.

    Attributes:
        tflite: The file; the same bytes when nothing was rewritten.
        rewrites: What was done, in file order.
        tail: What the loader has to do after the model, in order.
        moved_ops: Ops fewer off the accelerator, all rewrites together.
    """

    tflite: bytes
    rewrites: tuple[Rewrite, ...] = ()
    tail: tuple[PostprocessStep, ...] = ()
    moved_ops: int = 0


def repair(
    tflite: bytes, score: Score, *, mode: str = "exact", cut_tail: bool = False, skip: frozenset[str] = frozenset()
) -> Repaired:
    """Rewrite the ops of a float model that a target refuses by ops that it takes.

    A rewrite is done only when it moves ops onto the accelerator. The same file and score give the same bytes.

    Args:
        tflite: A float .tflite; a quantized one only has its tail cut.
        score: What the target leaves off its accelerator.
        mode: `exact`, `approximate` (exact ones as well) or `none`.
        cut_tail: Leave last steps that the target refuses to the loader.
        skip: Codes of rewrites that are not to be done.
    """
    model = read_model(tflite)
    rewrites: list[Rewrite] = []
    tail: list[PostprocessStep] = []
    moved = 0
    rewriters: tuple[Rewriter, ...] = ()
    if model.is_float and mode != "none":
        rewriters = EXACT if mode == "exact" else (*EXACT, *APPROXIMATE)
    fixed = set_batch(tflite) if rewriters and _open_batch(model.main) else tflite
    current = read_model(fixed) if fixed is not tflite else model
    for _ in range(_ROUNDS if rewriters else 0):
        chosen = _choose(current, score, _places(current.main, rewriters, skip))
        if not chosen.edits:
            # A chain that stays as it is leaves its ops to the rewrites of single ops.
            singles = tuple(rewriter for rewriter in rewriters if rewriter is not rewrite_movement)
            chosen = _choose(current, score, _places(current.main, singles, skip))
        if not chosen.edits:
            break
        if not rewrites and fixed is not tflite:
            rewrites.append(_batch_rewrite(model))
        rewrites.extend(_described(current.main, edit, gain) for edit, gain in chosen.edits)
        moved += chosen.gain
        fixed = rewritten(fixed, current, [edit for edit, _ in chosen.edits])
        current = read_model(fixed)
    if not rewrites:
        fixed, current = tflite, model
    if cut_tail:
        fixed, tail, saved = _without_tail(fixed, current, score)
        moved += saved
    return Repaired(fixed, tuple(rewrites), tuple(tail), moved)


#: More values than the runtime counts in a tensor (int32): only a broken file claims that many.
_MOST_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class _Chosen:
    edits: tuple[tuple[Edit, int], ...]
    gain: int


def _places(graph: Graph, rewriters: Sequence[Rewriter], skip: frozenset[str]) -> list[list[Edit]]:
    """Return alternatives for each place, in file order; no two places share an op, and chains come first."""
    found: dict[int, list[Edit]] = {}
    taken: set[int] = set()
    chains = [rewriter for rewriter in rewriters if rewriter is rewrite_movement]
    singles = [rewriter for rewriter in rewriters if rewriter is not rewrite_movement]
    for kind in (chains, singles):
        for op in graph.ops:
            if any(
                t is not None and t.elements > _MOST_ELEMENTS for t in (*graph.op_inputs(op), *graph.op_outputs(op))
            ):
                continue
            wanted = [edit for rewriter in kind for edit in rewriter(graph, op) if edit.code not in skip]
            mine = {index for edit in wanted for index in edit.removed}
            if wanted and not mine & taken:
                taken |= mine
                found[op.index] = wanted
    return [found[index] for index in sorted(found)]


def _choose(model: Model, score: Score, places: list[list[Edit]]) -> _Chosen:
    """Find the edits that together leave the fewest ops off the accelerator, none of them idle."""
    if not places:
        return _Chosen((), 0)
    before = score(model)
    results = frozenset(op.outputs[0] for op in model.main.ops if op.outputs)
    cache: dict[tuple[tuple[int, int], ...], int] = {(): 0}

    def gain(choice: dict[int, int]) -> int:
        """Count the model's own results that move onto the accelerator, less new ones that do not get there.

        Steps between types that come and go with quantization do not count: fewer of them move nothing.
        """
        key = tuple(sorted(choice.items()))
        if key not in cache:
            edits = [places[place][number] for place, number in key]
            trial = edited(model, edits)
            after, kept = score(trial), results - removed_results(model.main, edits)
            moved = len((before - after) & kept) - len((after - before) & kept)
            known = kept | before
            cache[key] = moved - sum(1 for index in after if index < len(trial.main.tensors) and index not in known)
        return cache[key]

    # An op that the target takes already cannot be helped by itself; leaving it alone keeps the search small.
    useful = [
        i for i, edits in enumerate(places) if any(model.main.ops[r].outputs[0] in before for r in edits[0].removed)
    ]
    choice = dict.fromkeys(useful, 0)
    kinds = sorted({tuple(edit.code for edit in places[i]) for i in choice})
    for kind in kinds:
        mine = [i for i in choice if tuple(edit.code for edit in places[i]) == kind]
        options = [{**choice, **dict.fromkeys(mine, number)} for number in range(len(kind))]
        options.append({i: n for i, n in choice.items() if i not in mine})
        choice = max(options, key=gain)
    if len(choice) <= _MOST_SINGLE:
        for place in sorted(choice, reverse=True):
            rest = {i: n for i, n in choice.items() if i != place}
            others = [{**choice, place: number} for number in range(len(places[place]))]
            choice = max([rest, choice, *others], key=gain)
    if gain(choice) <= 0:
        return _Chosen((), 0)

    def off(these: dict[int, int]) -> int:
        return len(score(edited(model, [places[place][number] for place, number in sorted(these.items())])))

    left = off(choice)
    done = []
    for place, number in sorted(choice.items(), key=lambda item: places[item[0]][0].removed[-1]):
        done.append((places[place][number], off({i: n for i, n in choice.items() if i != place}) - left))
    return _Chosen(tuple(done), len(before) - left)


def _described(graph: Graph, edit: Edit, gain: int) -> Rewrite:
    op = graph.ops[edit.removed[-1]]
    return Rewrite(edit.code, op.label, op.index, graph.output_name(op), edit.message, edit.exact, gain)


def _open_batch(graph: Graph) -> bool:
    return any(tensor.shape_signature[:1] == (-1,) for tensor in graph.tensors)


def _batch_rewrite(model: Model) -> Rewrite:
    names = ", ".join(model.input_names())
    return Rewrite("batch-1", "", -1, names, "the open batch size fixed to 1, which the other rewrites need", True, 0)


def _without_tail(tflite: bytes, model: Model, score: Score) -> tuple[bytes, list[PostprocessStep], int]:
    """Cut last steps as long as the target refuses them."""
    steps: list[PostprocessStep] = []
    saved = 0
    for output in range(len(model.main.outputs)):
        mine: list[PostprocessStep] = []
        while (found := cut(model, output)) is not None:
            shorter, step = found
            tensor = model.main.outputs[output]
            before, after = score(model), score(shorter)
            gain = len(before - {tensor}) - len(after)
            if tensor not in before or gain < 0:
                break
            tflite = cut_file(tflite, output, model.main.producers[tensor])
            model = read_model(tflite)
            saved += len(before) - len(after)
            mine.insert(0, step)
        steps.extend(mine)
    return tflite, steps, saved
