"""Search for the rewrites that move ops onto an accelerator, and apply them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgepack.choices import Repair
from edgepack.graph import Graph, Model, Op, read_model
from edgepack.graph.edit import set_batch
from edgepack.graph.memo import Memo
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
from edgepack.repair.softmax import rewrite_softmax
from edgepack.repair.spectrum import rewrite_spectrum
from edgepack.repair.unblocking import rewrite_on_host, rewrite_sequence_lstm, rewrite_subtraction
from edgepack.runtime.postprocessing import PostprocessStep

#: A rewrite function: returns alternative edits for the op, or for the chain of ops that ends in it, best first.
Rewriter = Callable[[Graph, Op], list[Edit]]

#: Returns the ops of a float model that do not run on a target's accelerator, as the first output tensors of those ops;
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
#: Tried beside the others where a target refuses the whole file.
UNBLOCKING: tuple[Rewriter, ...] = (
    rewrite_spectrum,
    rewrite_sequence_lstm,
    rewrite_subtraction,
    rewrite_on_host,
)
APPROXIMATE: tuple[Rewriter, ...] = (rewrite_hard_swish, rewrite_gelu, rewrite_elu)

MODES: tuple[str, ...] = tuple(mode.value for mode in Repair)

#: Rewrites of chains that no kernel should compute one by one, applied for every target wherever they occur.
ALWAYS: tuple[Rewriter, ...] = (rewrite_softmax,)

#: A rewrite can make another one possible; more rounds than this helped no model that was tried.
_ROUNDS = 3
#: With more sites, sites of one kind are only evaluated together and not one by one, to stay within seconds.
_MAX_SINGLE_SITES = 48


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that was applied.

    Attributes:
        code: Stable name, such as `grouped-convolution`.
        op: TFLite name of the (last) op it replaced.
        index: Index of that op in the original file (for later rounds, in the result of the previous round).
        output: Name of the output tensor of that op.
        message: Description of the rewrite.
        exact: False for an approximation.
        moved_ops: Number of ops that would not run on the accelerator without it.
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
        rewrites: The rewrites that were applied, in file order.
        postprocessing: Steps that were cut and that the loader has to do, in order.
        moved_ops: Number of ops that all rewrites together move onto the accelerator.
    """

    tflite: bytes
    rewrites: tuple[Rewrite, ...] = ()
    postprocessing: tuple[PostprocessStep, ...] = ()
    moved_ops: int = 0


def fuse(tflite: bytes, skip: frozenset[str] = frozenset()) -> Repaired:
    """Fuse the chains of a float model for which there is one op (`ALWAYS`), whatever the target."""
    model = read_model(tflite)
    sites = _find_sites(model.main, ALWAYS, skip) if model.is_float else []
    if not sites:
        return Repaired(tflite)
    edits = [alternatives[0] for alternatives in sites]
    rewrites = tuple(_describe(model.main, edit, 0) for edit in edits)
    return Repaired(rewritten(tflite, model, edits), rewrites)


def repair(
    tflite: bytes,
    score: Score,
    *,
    mode: str = Repair.EXACT,
    cut_tail: bool = False,
    skip: frozenset[str] = frozenset(),
    refuses: Callable[[Model], bool] | None = None,
) -> Repaired:
    """Rewrite the ops of a float model that a target does not support as ops that it supports.

    A rewrite is applied only when it moves ops onto the accelerator. The same file and score give the same bytes.

    Args:
        tflite: A float .tflite; of a quantized one, only the last ops can be cut.
        score: Returns the ops that do not run on the target's accelerator.
        mode: Rewrites to apply, a value of `Repair`; `approximate` includes exact ones.
        cut_tail: Cut last ops that the target does not support, for the loader to do.
        skip: Codes of rewrites that are not applied.
        refuses: Returns whether the target's compiler refuses a float model as a whole; None where none does.
    """
    model = read_model(tflite)
    rewrites: list[Rewrite] = []
    postprocessing: list[PostprocessStep] = []
    moved_ops = 0
    rewriters: tuple[Rewriter, ...] = ()
    if model.is_float and mode != Repair.NONE:
        rewriters = EXACT if mode == Repair.EXACT else (*EXACT, *APPROXIMATE)
    rewritten_file = set_batch(tflite) if rewriters and has_dynamic_batch(model.main) else tflite
    current = read_model(rewritten_file) if rewritten_file is not tflite else model
    for _ in range(_ROUNDS if rewriters else 0):
        refused = refuses is not None and refuses(current)
        choices = [rewriters, tuple(rewriter for rewriter in rewriters if rewriter is not rewrite_movement)]
        if refused:
            # First what lets the file compile, by itself: other rewrites may add ops with which it does not.
            choices = [UNBLOCKING, *((*one, *UNBLOCKING) for one in choices)]
        chosen = _Choice((), 0)
        for tried in choices:
            # The last choice: the ops of a chain that is not rewritten may be rewritten one by one.
            chosen = (
                chosen if chosen.edits else _choose(current, score, _find_sites(current.main, tried, skip), refused)
            )
        if not chosen.edits:
            break
        if not rewrites and rewritten_file is not tflite:
            rewrites.append(batch_rewrite(model))
        rewrites.extend(_describe(current.main, edit, gain) for edit, gain in chosen.edits)
        moved_ops += chosen.gain
        rewritten_file = rewritten(rewritten_file, current, [edit for edit, _ in chosen.edits])
        current = read_model(rewritten_file)
    if not rewrites:
        rewritten_file, current = tflite, model
    if cut_tail:
        rewritten_file, postprocessing, saved = _cut_postprocessing(rewritten_file, current, score)
        moved_ops += saved
    return Repaired(rewritten_file, tuple(rewrites), tuple(postprocessing), moved_ops)


#: Limit of the values in a tensor that the runtime can count (int32): only a broken file claims more.
_MAX_ELEMENTS = 2**31 - 1


@dataclass(frozen=True)
class _Choice:
    """Edits with the ops that each moves onto the accelerator, and the total.

    Attributes:
        edits: (edit, ops that would not run on the accelerator without it), in file order.
        gain: Ops that all edits together move onto the accelerator.
    """

    edits: tuple[tuple[Edit, int], ...]
    gain: int


def _find_sites(graph: Graph, rewriters: Sequence[Rewriter], skip: frozenset[str]) -> list[list[Edit]]:
    """Return the alternative edits of each site, in file order; no two sites share an op, chains go first."""
    sites: dict[int, list[Edit]] = {}
    occupied: set[int] = set()
    chains = [rewriter for rewriter in rewriters if rewriter is rewrite_movement]
    singles = [rewriter for rewriter in rewriters if rewriter is not rewrite_movement]
    for group in (chains, singles):
        for op in graph.ops:
            tensors = (*graph.op_inputs(op), *graph.op_outputs(op))
            if any(tensor is not None and tensor.elements > _MAX_ELEMENTS for tensor in tensors):
                continue
            edits = [edit for rewriter in group for edit in rewriter(graph, op) if edit.code not in skip]
            removed = {index for edit in edits for index in edit.removed}
            if edits and not removed & occupied:
                occupied |= removed
                sites[op.index] = edits
    return [sites[index] for index in sorted(sites)]


def _choose(model: Model, score: Score, sites: list[list[Edit]], refused: bool) -> _Choice:
    """Find the edits that together leave the fewest ops off the accelerator, without edits that have no effect.

    Of a model that is refused as a whole every site counts, and so does every op that runs once it is not.

    A selection maps the number of a site to the number of the alternative that is applied there.
    """
    if not sites:
        return _Choice((), 0)
    before = score(model)
    results = frozenset(op.outputs[0] for op in model.main.ops if op.outputs)
    memo = Memo()
    scores: dict[tuple[tuple[int, int], ...], tuple[frozenset[int], int]] = {(): (before, len(model.main.tensors))}

    def score_of(selection: dict[int, int]) -> tuple[frozenset[int], int]:
        """Return the score of the model with a selection, and the number of its tensors."""
        key = tuple(sorted(selection.items()))
        if key not in scores:
            candidate = edited(model, [sites[site][alternative] for site, alternative in key], memo)
            scores[key] = (score(candidate), len(candidate.main.tensors))
        return scores[key]

    def gain(selection: dict[int, int]) -> int:
        """Count the model's own results that move onto the accelerator, minus new ones that do not run there.

        Conversions between types that come and go with quantization do not count, because removing them moves no op.
        """
        if not selection:
            return 0
        after, tensors = score_of(selection)
        edits = [sites[site][alternative] for site, alternative in selection.items()]
        remaining = results - removed_results(model.main, edits)
        moved = len((before - after) & remaining) - len((after - before) & remaining)
        if refused:
            # Whatever lets the file compile is worth some ops on the host.
            return moved
        known = remaining | before
        return moved - sum(1 for index in after if index < tensors and index not in known)

    def settled(selection: dict[int, int], site: int, other: Edit) -> bool:
        """Return whether another edit can gain nothing: it removes the same ops, and all new ones are accelerated."""
        edit = sites[site][selection[site]]
        after, tensors = score_of(selection)
        written = {tensor for op in edit.ops for tensor in op.outputs}
        # Which of the added tensors are this site's is not known here: one that is not accelerated is enough.
        new = any(edit.graph_size <= index < tensors for index in after)
        return edit.removed == other.removed and not new and after.isdisjoint(written)

    # Sites without an unsupported op cannot gain by themselves; leaving them out keeps the search small.
    useful = [
        i for i, edits in enumerate(sites) if any(model.main.ops[r].outputs[0] in before for r in edits[0].removed)
    ]
    selection = dict.fromkeys(useful, 0)
    kinds = sorted({tuple(edit.code for edit in sites[i]) for i in selection})
    for kind in kinds:
        of_kind = [i for i in selection if tuple(edit.code for edit in sites[i]) == kind]
        options = [{**selection, **dict.fromkeys(of_kind, alternative)} for alternative in range(len(kind))]
        without = {i: n for i, n in selection.items() if i not in of_kind}
        # Every op of a refused file is a site: what is not needed to let it compile is left out.
        selection = max([without, *options] if refused else [*options, without], key=gain)
    if len(selection) <= _MAX_SINGLE_SITES:
        for site in sorted(selection, reverse=True):
            without = {i: n for i, n in selection.items() if i != site}
            others = [
                {**selection, site: alternative}
                for alternative, edit in enumerate(sites[site])
                if alternative != selection[site] and not settled(selection, site, edit)
            ]
            selection = max([without, selection, *others], key=gain)
    if gain(selection) <= 0:
        return _Choice((), 0)

    left = len(score_of(selection)[0])
    edits = []
    for site, alternative in sorted(selection.items(), key=lambda item: sites[item[0]][0].removed[-1]):
        without = {i: n for i, n in selection.items() if i != site}
        edits.append((sites[site][alternative], len(score_of(without)[0]) - left))
    return _Choice(tuple(edits), len(before) - left)


def _describe(graph: Graph, edit: Edit, gain: int) -> Rewrite:
    op = graph.ops[edit.removed[-1]]
    return Rewrite(edit.code, op.label, op.index, graph.output_name(op), edit.message, edit.exact, gain)


def has_dynamic_batch(graph: Graph) -> bool:
    """Return whether the first dimension of a tensor is only known at run time."""
    return any(tensor.shape_signature[:1] == (-1,) for tensor in graph.tensors)


def batch_rewrite(model: Model) -> Rewrite:
    """Return the entry for an open batch size that was fixed to 1."""
    names = ", ".join(model.input_names())
    return Rewrite("batch-1", "", -1, names, "the open batch size fixed to 1, which the other rewrites need", True, 0)


def _cut_postprocessing(tflite: bytes, model: Model, score: Score) -> tuple[bytes, list[PostprocessStep], int]:
    """Cut last ops while the target does not support them; return (file, steps, ops moved onto the accelerator)."""
    steps: list[PostprocessStep] = []
    saved = 0
    for output in range(len(model.main.outputs)):
        of_output: list[PostprocessStep] = []
        while (result := cut(model, output)) is not None:
            shorter, step = result
            tensor = model.main.outputs[output]
            before, after = score(model), score(shorter)
            gain = len(before - {tensor}) - len(after)
            if tensor not in before or gain < 0:
                break
            tflite = cut_file(tflite, output, model.main.producers[tensor])
            model = read_model(tflite)
            saved += len(before) - len(after)
            of_output.insert(0, step)
        steps.extend(of_output)
    return tflite, steps, saved
