"""Approximate rewrites: activation functions that a target does not support, composed of ops that it supports.

Opt-in. Each function states its error in float; in an integer model every op adds rounding.
"""

from edgepack.graph import Graph, Op
from edgepack.repair.exact import activation
from edgepack.repair.graph_edits import Draft, Edit

#: exp(z) - 1 for z <= 0 as a sum of weight * tanh(slope * z), fitted to minimize the largest error; tests measure it.
_ELU_TERMS = ((0.74807, 0.57621), (0.25193, 1.92564))


def rewrite_hard_swish(graph: Graph, op: Op) -> list[Edit]:
    """HARD_SWISH: x * relu6(x + 3) / 6, by ADD, MUL, MUL. Equal in float; in integers each op rounds."""
    tensors = activation(graph, op, ["HARD_SWISH"])
    if tensors is None:
        return []
    x, out = tensors
    draft = Draft(graph, out.name)
    gate = draft.then("ADD", [x.index, draft.constant(3.0)], x.shape, fused_activation="RELU6")
    part = draft.then("MUL", [gate, draft.constant(1.0 / 6.0)], x.shape)
    draft.op("MUL", [x.index, part], [out.index])
    message = "HARD_SWISH written as ADD with RELU6, MUL and MUL: equal in float, each op rounds in integers"
    return [draft.edit("hard-swish", [op.index], message, exact=False)]


def rewrite_gelu(graph: Graph, op: Op) -> list[Edit]:
    """GELU: x * sigmoid(1.702 x), by MUL, LOGISTIC, MUL; with an error of at most 0.021.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, section 2.
    """
    tensors = activation(graph, op, ["GELU"])
    if tensors is None:
        return []
    x, out = tensors
    draft = Draft(graph, out.name)
    scaled = draft.then("MUL", [x.index, draft.constant(1.702)], x.shape)
    gate = draft.then("LOGISTIC", [scaled], x.shape)
    draft.op("MUL", [x.index, gate], [out.index])
    message = "GELU written as x * sigmoid(1.702 x), error at most 0.021"
    return [draft.edit("gelu", [op.index], message, exact=False)]


def rewrite_elu(graph: Graph, op: Op) -> list[Edit]:
    """ELU: max(x, 0) plus a sum of two tanh of min(x, 0), with an error of at most 0.0043."""
    tensors = activation(graph, op, ["ELU"])
    if tensors is None:
        return []
    x, out = tensors
    draft = Draft(graph, out.name)
    zero = draft.constant(0.0)
    total = draft.then("MAXIMUM", [x.index, zero], x.shape)
    below = draft.then("MINIMUM", [x.index, zero], x.shape)
    for number, (weight, slope) in enumerate(_ELU_TERMS):
        curve = draft.then("TANH", [draft.then("MUL", [below, draft.constant(slope)], x.shape)], x.shape)
        part = draft.then("MUL", [curve, draft.constant(weight)], x.shape)
        if number == len(_ELU_TERMS) - 1:
            draft.op("ADD", [total, part], [out.index])
        else:
            total = draft.then("ADD", [total, part], x.shape)
    message = "ELU written as MAXIMUM and two TANH, error at most 0.0043"
    return [draft.edit("elu", [op.index], message, exact=False)]
