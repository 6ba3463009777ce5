"""Which outputs of a model are class scores or probabilities, and by which evidence.

A vector alone is no evidence: two angles are as long as the scores of two classes.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edgepack.graph import Graph, Tensor
from edgepack.graph.op_layout import MOVEMENT_OPS, TYPE_CONVERSIONS

#: Ops whose results are probabilities.
_PROBABILITIES = frozenset({"LOGISTIC", "SOFTMAX"})
#: Ops that sort or select by score: a small error of a score moves whole entries, so places cannot be compared.
_RANKING = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "TOPK_V2", "TFLite_Detection_PostProcess"})


@dataclass(frozen=True)
class OutputKinds:
    """What is known of the outputs of a model.

    Attributes:
        classes: Position of the output with the scores of the classes, None without one.
        probabilities: Positions of the outputs that a SOFTMAX or LOGISTIC produces: their values are in 0..1.
        numbers: Positions of the outputs of integers or booleans, such as the class numbers of ARG_MAX.
        ranked: Op that sorts or selects the entries of an output, by position.
    """

    classes: int | None
    probabilities: frozenset[int]
    numbers: frozenset[int] = frozenset()
    ranked: Mapping[int, str] = field(default_factory=dict)


def output_kinds(
    graph: Graph, shapes: Sequence[tuple[int, ...]], named: Collection[int] = (), highest_label: int | None = None
) -> OutputKinds:
    """Return which outputs are class scores or probabilities.

    An output has class scores if it is a vector of two or more values and one of these is the case: class names are
    known for it (`named`), the model ends there in SOFTMAX, LOG_SOFTMAX or LOGISTIC, or the samples have labels and it
    is the first vector that has a value for each. With labels, an output with one of the other reasons comes first.

    Args:
        graph: The main graph of the float model.
        shapes: Shapes of its outputs, batch first.
        named: Positions of outputs with class names, or that an ARG_MAX of the model chooses from.
        highest_label: Largest label of the samples, None without labels.
    """
    ends = [_last_op(graph, tensor) for tensor in graph.outputs]
    probabilities = frozenset(at for at, end in enumerate(ends) if end in _PROBABILITIES)
    vectors = [at for at, shape in enumerate(shapes) if _is_vector(shape, highest_label)]
    reasons = [at for at in vectors if at in named]
    reasons += [at for at in vectors if ends[at] in _PROBABILITIES or ends[at] == "LOG_SOFTMAX"]
    reasons += vectors if highest_label is not None else []
    numbers = {at for at, tensor in enumerate(graph.outputs) if _is_number(graph.tensors[tensor])}
    ranked = {at: op for at, tensor in enumerate(graph.outputs) if (op := _ranking_op(graph, tensor))}
    return OutputKinds(reasons[0] if reasons else None, probabilities, frozenset(numbers), ranked)


def labelled_vector(shapes: Sequence[tuple[int, ...]], highest_label: int | None) -> int | None:
    """Return the position of the first output that is a vector with a value for every label, None without one.

    Args:
        shapes: Shapes of the outputs, batch first.
        highest_label: Largest label, None when there are no labels.
    """
    return next((at for at, shape in enumerate(shapes) if _is_vector(shape, highest_label)), None)


def _is_number(tensor: Tensor) -> bool:
    return not tensor.is_float and tensor.quantization is None


def _ranking_op(graph: Graph, output: int) -> str:
    """Return the op among those that an output depends on which ranks entries, empty without one."""
    pending, visited = [output], {output}
    while pending:
        producer = graph.producers.get(pending.pop())
        if producer is None:
            continue
        op = graph.ops[producer]
        if op.name in _RANKING or op.custom_code in _RANKING:
            return op.label
        new = {tensor for tensor in op.inputs if tensor >= 0} - visited
        visited |= new
        pending += new
    return ""


def _is_vector(shape: tuple[int, ...], highest_label: int | None) -> bool:
    size = math.prod(shape)
    return bool(shape) and shape[-1] == size and size > max(1, highest_label if highest_label is not None else 1)


def _last_op(graph: Graph, tensor: int) -> str:
    """Return the name of the op that computes an output's values, empty for an input; a decomposed SOFTMAX counts."""
    while (producer := graph.producers.get(tensor)) is not None:
        op = graph.ops[producer]
        moved = 0 if op.name in TYPE_CONVERSIONS else MOVEMENT_OPS.get(op.name)
        if moved is None:
            return "SOFTMAX" if _divides_exponentials(graph, op.inputs) and op.name == "DIV" else op.name
        tensor = op.inputs[moved]
    return ""


def _divides_exponentials(graph: Graph, inputs: Sequence[int]) -> bool:
    """Return whether exponentials are divided by their sum, as old converters write SOFTMAX."""
    names = [graph.ops[graph.producers[i]].name if i in graph.producers else "" for i in inputs]
    return names == ["EXP", "SUM"]
