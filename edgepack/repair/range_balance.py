"""Rewrite a float model so that values of very different ranges do not share one int8 scale. Exact in float.

- Inputs that CONCATENATION joins share one scale, which the widest of them decides. Each is multiplied by a constant
  that gives it the widest range, and the weights that read the result are divided by it. Where the result is not only
  read by weights, an input that something else reads as well gets a scale of its own for that.
- The channels of a layer's output share one scale. Where the output is only sliced, the layer is split by its slices.

Both are applied where measured ranges differ by `MIN_RATIO` or more, `MIN_RATIO_OF_MUL` where that adds a MUL.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.graph.op_layout import OP_LAYOUTS, bias_index, weights_index
from edgepack.graph.unused import drop_unused
from edgepack.repair.file_edits import FileEditor
from edgepack.repair.graph_edits import CODES
from edgepack.repair.head_split import Slice, find_slices, split_layer
from edgepack.repair.rewrite_search import Rewrite
from edgepack.repair.scale_transfer import plan_transfer

Floats = npt.NDArray[np.float32]

#: Ratio of ranges from which a rewrite is worth it. Measured on a dense layer whose result two joined tensors decide
#: alike, as SNR of the int8 file on 60 unseen samples: with ranges of two layers that differ by 2, 4, 8 and 16 the
#: rewrite gains 1.4, 4.9, 11.2 and 15.8 dB and adds no op; with ranges of two inputs it gains 0.1, 0.5, 1.6 and 4.8 dB
#: and adds a MUL for each narrow one.
MIN_RATIO, MIN_RATIO_OF_MUL = 4.0, 8.0

#: Largest factor on an input; a smaller range than that share of the widest one holds nothing that int8 could keep.
_MAX_FACTOR = 1e6


@dataclass(frozen=True)
class ChannelRange:
    """Measured extremes of an activation.

    Attributes:
        low: Smallest value of each channel (index of the last dimension).
        high: Largest value of each channel.
    """

    low: Floats
    high: Floats

    def width(self, channels: slice = slice(None)) -> float:
        """Return the width of the range that holds zero and the channels."""
        low, high = self.low[channels], self.high[channels]
        return max(0.0, float(high.max(initial=0.0))) - min(0.0, float(low.min(initial=0.0)))

    @property
    def peak(self) -> float:
        """Largest magnitude."""
        return max(float(np.abs(self.low).max(initial=0.0)), float(np.abs(self.high).max(initial=0.0)))


def has_shared_ranges(graph: Graph) -> bool:
    """Return whether a float graph has a place that `balance_ranges` may rewrite, whatever its ranges."""
    return any(_concatenated(graph, op) for op in graph.ops) or any(find_slices(graph, op) for op in graph.ops)


def balance_ranges(
    tflite: bytes, ranges: Mapping[int, ChannelRange], skip: frozenset[str] = frozenset()
) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Return the float model with unequal ranges separated, and what was rewritten.

    Args:
        tflite: A float .tflite.
        ranges: Measured ranges by tensor index of the main graph.
        skip: Codes of rewrites to leave out.
    """
    graph = read_model(tflite).main
    editor = FileEditor(unpack(tflite), graph)
    rewrites: list[Rewrite] = []
    for op in graph.ops:
        if (
            "split-head" not in skip
            and (slices := find_slices(graph, op))
            and _differ(slices, ranges.get(op.outputs[0]))
        ):
            split_layer(editor, op, slices)
            sizes = ", ".join(str(part.channels.stop - part.channels.start) for part in slices)
            rewrites.append(_rewrite("split-head", graph, op, f"{op.name} split by its output channels ({sizes})"))
        elif inputs := _concatenated(graph, op):
            rewrites.extend(_balance(editor, graph, op, inputs, ranges, skip))
    if not rewrites:
        return tflite, ()
    file = editor.finish()
    drop_unused(file)
    return write_true_versions(pack(file)), tuple(rewrites)


def _rewrite(code: str, graph: Graph, op: Op, message: str) -> Rewrite:
    assert code in CODES, code
    return Rewrite(code, op.name, op.index, graph.output_name(op), message, True, 0)


def _concatenated(graph: Graph, op: Op) -> tuple[int, ...]:
    """Return the inputs of a CONCATENATION of float activations, empty for any other op."""
    if op.name != "CONCATENATION" or len(op.inputs) < 2 or op.options.get("fused_activation", "NONE") != "NONE":
        return ()
    tensors = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
    usable = all(
        t.dtype == "FLOAT32" and not t.is_constant and t.rank > 0 and not any(d < 0 for d in t.shape_signature[1:])
        for t in tensors
    )
    return tuple(op.inputs) if usable else ()


def _differ(slices: Sequence[Slice], measured: ChannelRange | None) -> bool:
    if measured is None:
        return False
    widths = [measured.width(part.channels) for part in slices]
    return min(widths) > 0.0 and max(widths) / min(widths) >= MIN_RATIO


def _balance(
    editor: FileEditor,
    graph: Graph,
    op: Op,
    inputs: Sequence[int],
    ranges: Mapping[int, ChannelRange],
    skip: frozenset[str],
) -> Iterator[Rewrite]:
    if any(index not in ranges for index in inputs):
        return
    widths = [ranges[index].width() for index in inputs]
    widest = max(widths)
    least = [MIN_RATIO_OF_MUL if _scalable_layer(graph, index) is None else MIN_RATIO for index in inputs]
    narrow = [i for i, width in enumerate(widths) if 0.0 < width * least[i] <= widest]
    if not narrow:
        return
    peak = max(ranges[index].peak for index in inputs)
    factors = [
        float(np.float32(min(peak / ranges[index].peak, _MAX_FACTOR))) if i in narrow else 1.0
        for i, index in enumerate(inputs)
    ]
    transfer = plan_transfer(graph, op, factors) if "balanced-concatenation" not in skip else None
    if transfer is not None and editor.touched & {index for index, _ in transfer.constants}:
        # Another rewrite changed these weights: one of the two has to do.
        transfer = None
    names = ", ".join(f"'{graph.tensors[inputs[i]].name}' by {factors[i]:.4g}" for i in narrow)
    if transfer is not None:
        _scale_inputs(editor, graph, op, factors)
        transfer.apply(editor)
        message = f"inputs of CONCATENATION scaled to one range ({names}), and the weights behind it scaled back"
        yield _rewrite("balanced-concatenation", graph, op, message)
        return
    shared = [i for i in narrow if inputs[i] in graph.outputs or len(set(graph.consumers.get(inputs[i], ()))) > 1]
    if shared and "separate-range" not in skip:
        for i in shared:
            editor.scale_input(op.index, i, 1.0)
        listed = ", ".join(f"'{graph.tensors[inputs[i]].name}'" for i in shared)
        yield _rewrite(
            "separate-range", graph, op, f"{listed}: MUL by 1 in front of CONCATENATION, for a scale of its own"
        )


def _scale_inputs(editor: FileEditor, graph: Graph, op: Op, factors: Sequence[float]) -> None:
    """Multiply inputs of an op by constants: in the layer that computes them where only this op reads it."""
    for position, factor in enumerate(factors):
        if factor == 1.0:
            continue
        index = op.inputs[position]
        layer = _scalable_layer(graph, index)
        if layer is None or layer.index in editor.touched or list(op.inputs).count(index) > 1:
            editor.scale_input(op.index, position, factor)
            continue
        for place, constant in ((OP_LAYOUTS[layer.name].weights, weights_index(layer)),
                                (OP_LAYOUTS[layer.name].bias, bias_index(layer))):  # fmt: skip
            if constant >= 0 and place is not None:
                data = graph.tensors[constant].data
                assert data is not None
                editor.replace_constant(layer.index, place, data * np.float32(factor))


def _scalable_layer(graph: Graph, index: int) -> Op | None:
    """Return the layer whose weights can scale a tensor, None where it is read elsewhere or not linear in them."""
    producer = graph.producers.get(index)
    if producer is None or index in graph.outputs or len(graph.consumers.get(index, ())) != 1:
        return None
    op = graph.ops[producer]
    if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return None
    constants = [i for i in (weights_index(op), bias_index(op)) if i >= 0]
    linear = op.options.get("fused_activation", "NONE") in ("NONE", "RELU")
    known = all(graph.tensors[i].data is not None and graph.tensors[i].dtype == "FLOAT32" for i in constants)
    return op if linear and known and constants else None
