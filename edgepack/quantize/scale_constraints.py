"""Constraints of the kernels on scales: tensors that must share a scale, and outputs whose scale is fixed.

Source: the same-scale and fixed-output-range traits of tensorflow/compiler/mlir/lite/ir/tfl_ops.td in
github.com/tensorflow/tensorflow, which TFLiteConverter's quantizer follows; checked on files written by version 2.21.
"""

from edgepack.graph import Graph, Op

#: Ops that copy, select or average quantized values without rescaling them, with the positions of their value inputs;
#: None means all inputs.
_SAME_SCALE: dict[str, tuple[int, ...] | None] = {
    "AVERAGE_POOL_2D": (0,),
    "BATCH_TO_SPACE_ND": (0,),
    "BROADCAST_TO": (0,),
    "CONCATENATION": None,
    "DEPTH_TO_SPACE": (0,),
    "DYNAMIC_UPDATE_SLICE": (0, 1),
    "EXPAND_DIMS": (0,),
    "GATHER": (0,),
    "GATHER_ND": (0,),
    "MAXIMUM": None,
    "MAX_POOL_2D": (0,),
    "MINIMUM": None,
    "MIRROR_PAD": (0,),
    "PACK": None,
    "PAD": (0,),
    "PADV2": (0, 2),
    "REDUCE_MAX": (0,),
    "REDUCE_MIN": (0,),
    "RESHAPE": (0,),
    "RESIZE_BILINEAR": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,),
    "REVERSE_V2": (0,),
    "SELECT": (1, 2),
    "SELECT_V2": (1, 2),
    "SLICE": (0,),
    "SPACE_TO_BATCH_ND": (0,),
    "SPACE_TO_DEPTH": (0,),
    "SPLIT": (1,),
    "SPLIT_V": (0,),
    "SQUEEZE": (0,),
    "STRIDED_SLICE": (0,),
    "TILE": (0,),
    "TOPK_V2": (0,),
    "TRANSPOSE": (0,),
    "UNPACK": (0,),
}

#: Ops that copy their input's integers: they add no rounding error.
WITHOUT_ROUNDING = frozenset(
    {
        "CONCATENATION", "DEPTH_TO_SPACE", "EXPAND_DIMS", "MAXIMUM", "MAX_POOL_2D", "MINIMUM", "PAD", "RELU", "RELU6",
        "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE",
        "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip

#: (n, zero point) of the output scale 2**-n that the int8 kernel requires.
_FIXED_INT8 = {
    "L2_NORMALIZATION": (7, 0),
    "LOGISTIC": (8, -128),
    "LOG_SOFTMAX": (4, 127),
    "SOFTMAX": (8, -128),
    "TANH": (7, 0),
}

#: n of the output scale 2**-n that the int16 kernel requires; the zero point is 0.
_FIXED_INT16 = {"LOGISTIC": 15, "SOFTMAX": 15, "TANH": 15}


def same_scale_groups(graph: Graph) -> list[list[int]]:
    """Return the groups of float activations that must share a scale: tensor indices, each group in ascending order."""
    parent = list(range(len(graph.tensors)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for op in graph.ops:
        members = [index for index in same_scale_tensors(op) if _is_activation(graph, index)]
        for other in members[1:]:
            parent[root(other)] = root(members[0])
    groups: dict[int, list[int]] = {}
    for index in range(len(graph.tensors)):
        groups.setdefault(root(index), []).append(index)
    return [members for members in groups.values() if len(members) > 1]


def same_scale_tensors(op: Op) -> tuple[int, ...]:
    """Return the tensors of an op that must share a scale, empty for an op without this constraint."""
    if op.name not in _SAME_SCALE:
        return ()
    inputs = tuple(op.inputs[i] for i in value_inputs(op.name, len(op.inputs)))
    # The second output of TOPK_V2 contains indices; `_is_activation` excludes it by its type.
    return tuple(index for index in (*inputs, *op.outputs) if index >= 0)


def value_inputs(name: str, inputs: int) -> tuple[int, ...]:
    """Return the positions of the inputs that share the output's scale, empty for an op without this constraint."""
    positions = _SAME_SCALE.get(name, ())
    return tuple(range(inputs)) if positions is None else tuple(i for i in positions if i < inputs)


def fixed_range(op: Op, activation_bits: int) -> tuple[float, float] | None:
    """Return the real range of the op's output that the kernel fixes, None for an op without this constraint.

    Args:
        op: The op.
        activation_bits: 8 or 16.
    """
    if activation_bits == 16:
        if op.name not in _FIXED_INT16:
            return None
        top = 32767.0 * 2.0 ** -_FIXED_INT16[op.name]
        return -top, top
    if op.name not in _FIXED_INT8:
        return None
    power, zero_point = _FIXED_INT8[op.name]
    scale = 2.0**-power
    return (-128 - zero_point) * scale, (127 - zero_point) * scale


def _is_activation(graph: Graph, index: int) -> bool:
    tensor = graph.tensors[index]
    return tensor.dtype == "FLOAT32" and not tensor.is_constant
