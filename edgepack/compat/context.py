"""Context of a check: the graph, the SoC and the runtime version, and the role of each input of an op."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgepack.graph import Graph, Op, Tensor
from edgepack.graph.op_layout import OP_LAYOUTS, OpLayout


@dataclass(frozen=True)
class Context:
    """Everything a rule reads besides the op.

    Attributes:
        graph: The main graph.
        runtime_version: Version of the runtime that will run the file; infinite for the newest.
        soc: Facts about the SoC (`arch`, `float16`); empty when none was specified.
        entering: Tensors that ops on the host compute for a partition, as far as the partitions are known.
        state_fault: Why the model's variables cannot be kept outside of a compiled graph, empty when they can.
    """

    graph: Graph
    runtime_version: float = math.inf
    soc: Mapping[str, Any] = field(default_factory=dict)
    entering: frozenset[int] = frozenset()
    state_fault: str = ""

    @cached_property
    def dequantized_constants(self) -> frozenset[int]:
        """Tensors that a DEQUANTIZE or DENSIFY computes from a constant.

        Delegates fold these ops (float16 and sparse weights), so rules treat their outputs as constants.
        """
        folded: set[int] = set()
        for op in self.graph.ops:
            source = op.inputs[0] if op.inputs else -1
            if op.name in {"DEQUANTIZE", "DENSIFY"} and source >= 0 and self.graph.tensors[source].is_constant:
                folded.update(op.outputs)
        return frozenset(folded)

    @cached_property
    def dynamic_tensors(self) -> frozenset[int]:
        """Tensors whose shape is known only at run time.

        An open batch (-1 as an input's first dimension) does not count, because the runtime allocates it as 1. As in
        TFLite's memory allocation, the dynamic tensors are inputs that are open in another dimension, outputs whose
        shape is computed, and everything that depends on these.
        """
        graph = self.graph
        dynamic = {
            i
            for i in graph.inputs
            if i >= 0 and (not graph.tensors[i].has_rank or any(n < 0 for n in graph.tensors[i].shape_signature[1:]))
        }
        for op in graph.ops:
            computed = op.name in _SHAPE_BY_DATA or (
                op.name in _SHAPE_BY_PARAMETER
                and any(kind == "parameter" and not tensor.is_constant for _, kind, tensor in inputs(graph, op))
            )
            if computed or any(i in dynamic and role(op, n) != "parameter" for n, i in enumerate(op.inputs)):
                outputs = graph.op_outputs(op)
                dynamic.update(tensor.index for tensor in outputs if computed or tensor.is_dynamic)
        return frozenset(dynamic)

    @cached_property
    def float_masks(self) -> frozenset[int]:
        """Booleans that compilers store as floats: results of comparisons of floats, and of logic on such alone."""
        found: set[int] = set()
        for op in self.graph.ops:
            operands = [tensor for tensor in self.graph.op_inputs(op) if tensor is not None]
            if op.name in _COMPARISONS:
                floats = bool(operands) and all(tensor.is_float for tensor in operands)
            else:
                floats = op.name in _LOGIC and all(tensor.index in found for tensor in operands)
            if floats:
                found.update(op.outputs)
        return frozenset(found)

    def enters(self, tensor: Tensor) -> bool:
        """Return whether a compiled graph would have a tensor as an input."""
        return tensor.index in self.graph.inputs or tensor.index in self.entering

    def is_constant(self, tensor: Tensor) -> bool:
        """Return whether the file contains the tensor's values, directly or as input of a DEQUANTIZE or DENSIFY."""
        return tensor.is_constant or tensor.index in self.dequantized_constants


_COMPARISONS = frozenset({"EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"})
_LOGIC = frozenset({"LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR"})


def written_name(name: str) -> str:
    """Return a tensor's name as compilers write it into a C identifier: other characters become `_`."""
    return re.sub(r"[^A-Za-z0-9]", "_", name)


def _layer_roles(layout: OpLayout) -> tuple[str, ...]:
    """Return the roles of the inputs of an op with weights and bias, in order."""
    roles = {layout.data: "data", layout.weights: "weights"}
    if layout.bias is not None:
        roles[layout.bias] = "bias"
    return tuple(roles.get(position, "parameter") for position in range(max(roles) + 1))


_ONE = ("data", "parameter")
_TWO = ("data", "parameter", "parameter")

#: Roles of the inputs by position; ops without an entry have data inputs only.
_ROLES: Mapping[str, tuple[str, ...]] = {
    **{name: _layer_roles(layout) for name, layout in OP_LAYOUTS.items() if layout.bias is not None},
    **dict.fromkeys(
        (
            "ARG_MAX", "ARG_MIN", "BROADCAST_TO", "CUMSUM", "EXPAND_DIMS", "GATHER", "GATHER_ND", "MEAN",
            "MIRROR_PAD", "PAD", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESHAPE",
            "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "STABLEHLO_BROADCAST_IN_DIM", "SUM", "TILE",
            "TOPK_V2", "TRANSPOSE",
        ),
        _ONE,
    ),
    **dict.fromkeys(("SLICE", "SPLIT_V", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), _TWO),
    "DYNAMIC_UPDATE_SLICE": ("data", "data", "parameter"),
    "EMBEDDING_LOOKUP": ("parameter", "data"),
    "FILL": ("parameter", "data"),
    "ONE_HOT": ("data", "parameter", "data", "data"),
    "PADV2": ("data", "parameter", "data"),
    "SCATTER_ND": ("parameter", "data", "parameter"),
    "SPLIT": ("parameter", "data"),
    "STRIDED_SLICE": ("data", "parameter", "parameter", "parameter"),
    **dict.fromkeys(
        ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"),
        ("data", *("weights",) * 11, *("bias",) * 4, "weights", "bias", "state", "state", *("weights",) * 4),
    ),
}  # fmt: skip

#: Ops whose output shape depends on the values of their parameters (sizes, paddings, ends).
_SHAPE_BY_PARAMETER = frozenset(
    {
        "BATCH_TO_SPACE_ND", "BROADCAST_TO", "EXPAND_DIMS", "FILL", "MEAN", "MIRROR_PAD", "ONE_HOT", "PAD", "PADV2",
        "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESHAPE", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "SCATTER_ND", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT", "SPLIT_V", "STRIDED_SLICE",
        "SUM", "TILE", "TOPK_V2", "TRANSPOSE", "TRANSPOSE_CONV",
    }
)  # fmt: skip

#: Ops whose output shape depends on the values of their data inputs.
_SHAPE_BY_DATA = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "RANGE", "UNIQUE", "WHERE"})


def role(op: Op, position: int) -> str:
    """Return the role of an input: `data`, `weights`, `bias`, `parameter` or `state`."""
    roles = _ROLES.get(op.name, ())
    return roles[position] if position < len(roles) else "data"


def inputs(graph: Graph, op: Op, selector: str = "") -> Iterator[tuple[int, str, Tensor]]:
    """Yield (position, role, tensor) of the op's inputs; absent optional inputs are skipped.

    Args:
        graph: The op's graph.
        op: The op.
        selector: A role (`weights`), or `input` for data inputs, or `inputN` for one position; empty for all.
    """
    for position, tensor in enumerate(graph.op_inputs(op)):
        if tensor is None:
            continue
        kind = role(op, position)
        if selector in {"", kind, f"input{position}"} or (selector == "input" and kind == "data"):
            yield position, kind, tensor


def tensors(graph: Graph, op: Op, selector: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (label for messages, tensor) of a role of the vocabulary; `data` selects data inputs and outputs."""
    if selector != "output":
        for position, kind, tensor in inputs(graph, op, selector):
            yield input_label(tensor, position, kind), tensor
    if selector in {"output", "data"}:
        for position, tensor in enumerate(graph.op_outputs(op)):
            yield tensor_label(tensor, f"output {position}"), tensor


def input_label(tensor: Tensor, position: int, kind: str) -> str:
    """Return `weights 'name'`, `bias 'name'` or `input 0 'name'` for messages."""
    return tensor_label(tensor, kind if kind in {"weights", "bias"} else f"input {position}")


def tensor_label(tensor: Tensor, what: str) -> str:
    """Return `input 0 'name'` for messages; long names are shortened at the front."""
    name = tensor.name if len(tensor.name) <= 80 else f"...{tensor.name[-77:]}"
    return f"{what} '{name}'" if name else what


def data_input(graph: Graph, op: Op) -> Tensor | None:
    """Return the first data input, None when the op has none."""
    return next((tensor for _, _, tensor in inputs(graph, op, "data")), None)


def first_output(graph: Graph, op: Op) -> Tensor | None:
    """Return the first output, None when the op has none."""
    return next(iter(graph.op_outputs(op)), None)


def weights_of(graph: Graph, op: Op) -> Tensor | None:
    """Return the first weights tensor, None when the op has none."""
    return next((tensor for _, _, tensor in inputs(graph, op, "weights")), None)
