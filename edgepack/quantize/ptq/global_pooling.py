"""Give a global average a scale of its own: AVERAGE_POOL_2D over the whole image becomes MEAN.

The int8 kernel of AVERAGE_POOL_2D requires its input's scale on its output, though the range of an average is far
smaller; MEAN computes the same values and rescales (same-scale trait of tensorflow/compiler/mlir/lite/ir/tfl_ops.td).
Keras converts AveragePooling2D over the whole image to the first and GlobalAveragePooling2D to the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.new_parts import new_operator, new_tensor
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View


def global_pools(graph: Graph) -> list[Op]:
    """Return the AVERAGE_POOL_2D ops whose window covers their whole input."""
    pools = []
    for op in graph.ops:
        if op.name != "AVERAGE_POOL_2D" or op.options.get("fused_activation", "NONE") != "NONE":
            continue
        before, after = graph.tensors[op.inputs[0]].shape, graph.tensors[op.outputs[0]].shape
        window = (op.options["filter_height"], op.options["filter_width"])
        if before[1:3] == window and after[1:3] == (1, 1):
            pools.append(op)
    return pools


def replace_global_pools(tflite: bytes) -> bytes:
    """Return the float model with MEAN in place of `global_pools`; the same bytes when there are none."""
    pools = global_pools(read_model(tflite).main)
    if not pools:
        return tflite
    model = unpack(tflite)
    graph = model.subgraphs[0]
    axes = new_tensor(model, graph, "global_pool_axes", (2,), np.array([1, 2], np.int32))
    for pool in pools:
        graph.operators[pool.index] = new_operator(model, "MEAN", [pool.inputs[0], axes], pool.outputs, keep_dims=True)
    return pack(model)


class _Pools(Step):
    id = "pools"
    effort = Effort.LOW
    source = "a global average pool becomes MEAN, which has a scale of its own"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: "MEAN"}] if global_pools(subject.graph) else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        model = replace_global_pools(fit.reference)
        return replace(fit, reference=model, tflite=model)


POOLS = _Pools()
