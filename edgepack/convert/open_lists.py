"""Tensor lists with an open batch dimension, which the converter refuses.

A SavedModel whose signature has an open batch size stores the shape of a recurrent layer's outputs as (-1, units).
Tracing with a static batch does not change this constant, and TFLiteConverter stops with "requires element_shape to be
static".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Position of the element shape among the inputs of the ops on tensor lists.
_ELEMENT_SHAPE = {"TensorListReserve": 0, "TensorListFromTensor": 1, "TensorListStack": 1}


def has_lists(definition: Any) -> bool:
    """Return whether a graph has tensor lists with a shape of their elements.

    Args:
        definition: A GraphDef.
    """
    return any(node.op in _ELEMENT_SHAPE for node in definition.node)


def with_static_lists(function: Any, batches: Sequence[int]) -> Any:
    """Return a frozen function whose tensor lists have a static element shape; the same function when they have.

    The caller compares the outputs, so that a list whose first dimension is not the batch does no harm.

    Args:
        function: Result of `convert_variables_to_constants_v2`.
        batches: First dimension of each input; nothing changes when they differ.
    """
    import tensorflow as tf
    from tensorflow.python.eager.wrap_function import function_from_graph_def

    if len(set(batches)) != 1:
        return function
    definition = function.graph.as_graph_def()
    changed = False
    nodes = {node.name: node for node in definition.node}
    for node in definition.node:
        place = _ELEMENT_SHAPE.get(node.op)
        constant = None if place is None else nodes.get(node.input[place].split(":")[0])
        if constant is None or constant.op != "Const":
            continue
        shape = np.atleast_1d(tf.make_ndarray(constant.attr["value"].tensor))
        if len(shape) and shape[0] == -1 and (shape[1:] >= 0).all():
            static = np.array([batches[0], *shape[1:]], shape.dtype)
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(static))
            changed = True
    if not changed:
        return function
    inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (function.inputs, function.outputs))
    return function_from_graph_def(definition, inputs, outputs)
