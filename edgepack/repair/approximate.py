"""Rewrites that change the values a little: activations that a target lacks, made of ops it has.

Opt-in. Each function says how far it is off in float; integers add their own rounding at every step.
"""

from edgepack.graph import Graph, Op
from edgepack.repair.exact import activation
from edgepack.repair.graph_edits import Draft, Edit

#: exp(z) - 1 for z <= 0 as a sum of weight * tanh(slope * z), fitted for the smallest largest error; tests measure it.
_ELU_TERMS = ((0.74807, 0.57621), (0.25193, 1.92564))


def rewrite_hard_swish(graph: Graph, op: Op) -> list[Edit]:
    """HARD_SWISH: x * relu6(x + 3) / 6, by ADD, MUL, MUL. Equal in float; in integers each step rounds."""
    found = activation(graph, op, ["HARD_SWISH"])
    if found is None:
        return []
    x, out = found
    draft = Draft(graph, out.name)
    gate = draft.then("ADD", [x.index, draft.constant(3.0)], x.shape, fused_activation="RELU6")
    part = draft.then("MUL", [gate, draft.constant(1.0 / 6.0)], x.shape)
    draft.op("MUL", [x.index, part], [out.index])
    message = "HARD_SWISH written as ADD with RELU6, MUL and MUL: equal in float, each step rounds in integers"
    return [draft.edit("hard-swish", [op.index], message, exact=False)]


def rewrite_gelu(graph: Graph, op: Op) -> list[Edit]:
    """GELU: x * sigmoid(1.702 x), by MUL, LOGISTIC, MUL; at most 0.021 off.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, section 2.
    """
    found = activation(graph, op, ["GELU"])
    if found is None:
        return []
    x, out = found
    draft = Draft(graph, out.name)
    scaled = draft.then("MUL", [x.index, draft.constant(1.702)], x.shape)
    gate = draft.then("LOGISTIC", [scaled], x.shape)
    draft.op("MUL", [x.index, gate], [out.index])
    message = "GELU written as x * sigmoid(1.702 x): at most 0.021 off"
    return [draft.edit("gelu", [op.index], message, exact=False)]


def rewrite_elu(graph: Graph, op: Op) -> list[Edit]:
    """ELU: max(x, 0) plus a sum of two tanh of min(x, 0), at most 0.0043 off."""
    found = activation(graph, op, ["ELU"])
    if found is None:
        return []
    x, out = found
    draft = Draft(graph, out.name)
    zero = draft.constant(0.0)
    total = draft.then("MAXIMUM", [x.index, zero], x.shape)
    below = draft.then("MINIMUM", [x.index, zero], x.shape)
    for number, (weight, slope) in enumerate(_ELU_TERMS):
        bent = draft.then("TANH", [draft.then("MUL", [below, draft.constant(slope)], x.shape)], x.shape)
        part = draft.then("MUL", [bent, draft.constant(weight)], x.shape)
        if number == len(_ELU_TERMS) - 1:
            draft.op("ADD", [total, part], [out.index])
        else:
            total = draft.then("ADD", [total, part], x.shape)
    message = "ELU written as MAXIMUM and two TANH: at most 0.0043 off"
    return [draft.edit("elu", [op.index], message, exact=False)]
