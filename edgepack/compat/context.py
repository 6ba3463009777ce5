"""What rules need to know besides the op: its graph, the chip, the runtime; and which part each tensor plays."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgepack.graph import Graph, Op, Tensor
from edgepack.graph.op_layout import OP_LAYOUTS, OpLayout


@dataclass(frozen=True)
class Context:
    """One check.

    Attributes:
        graph: The main graph.
        runtime_version: Runtime version the file is compiled for; infinite for the newest.
        soc: Facts about the chip (`arch`, `float16`), empty when none was given.
    """

    graph: Graph
    runtime_version: float = math.inf
    soc: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def dequantized_constants(self) -> frozenset[int]:
        """Tensors that a DEQUANTIZE or DENSIFY makes of a constant.

        Delegates fold these (float16 and sparse weights), so rules treat them as constants.
        """
        found: set[int] = set()
        for op in self.graph.ops:
            source = op.inputs[0] if op.inputs else -1
            if op.name in {"DEQUANTIZE", "DENSIFY"} and source >= 0 and self.graph.tensors[source].is_constant:
                found.update(op.outputs)
        return frozenset(found)

    @cached_property
    def dynamic_tensors(self) -> frozenset[int]:
        """Tensors whose shape is known only at run time.

        A batch left open (-1 as an input's first dimension) is not one: the runtime allocates it as 1. What is, as
        TFLite's allocation has it: inputs open in another dimension, results of ops whose shape is computed, and what
        depends on them.
        """
        graph = self.graph
        found = {
            i
            for i in graph.inputs
            if i >= 0 and (not graph.tensors[i].has_rank or any(n < 0 for n in graph.tensors[i].shape_signature[1:]))
        }
        for op in graph.ops:
            computed = op.name in _SHAPE_BY_DATA or (
                op.name in _SHAPE_BY_PARAMETER
                and any(part == "parameter" and not tensor.is_constant for _, part, tensor in inputs(graph, op))
            )
            if computed or any(i in found and role(op, n) != "parameter" for n, i in enumerate(op.inputs)):
                outputs = graph.op_outputs(op)
                found.update(tensor.index for tensor in outputs if computed or tensor.is_dynamic)
        return frozenset(found)

    def is_constant(self, tensor: Tensor) -> bool:
        """True when the file holds the tensor's values, directly or behind a DEQUANTIZE."""
        return tensor.is_constant or tensor.index in self.dequantized_constants


def _layer_roles(layout: OpLayout) -> tuple[str, ...]:
    """Return the roles of the inputs of an op with weights and bias, in order."""
    roles = {layout.data: "data", layout.weights: "weights"}
    if layout.bias is not None:
        roles[layout.bias] = "bias"
    return tuple(roles.get(position, "parameter") for position in range(max(roles) + 1))


_ONE = ("data", "parameter")
_TWO = ("data", "parameter", "parameter")

#: Parts of the inputs by position; ops that are not here have data only.
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

#: Ops whose parameters (sizes, paddings, ends) decide the result's shape.
_SHAPE_BY_PARAMETER = frozenset(
    {
        "BATCH_TO_SPACE_ND", "BROADCAST_TO", "EXPAND_DIMS", "FILL", "MEAN", "MIRROR_PAD", "ONE_HOT", "PAD", "PADV2",
        "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "RESHAPE", "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR", "SCATTER_ND", "SLICE", "SPACE_TO_BATCH_ND", "SPLIT", "SPLIT_V", "STRIDED_SLICE",
        "SUM", "TILE", "TOPK_V2", "TRANSPOSE", "TRANSPOSE_CONV",
    }
)  # fmt: skip

#: Ops whose data decides the result's shape.
_SHAPE_BY_DATA = frozenset({"NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "RANGE", "UNIQUE", "WHERE"})


def role(op: Op, position: int) -> str:
    """Return the part an input plays: `data`, `weights`, `bias`, `parameter` or `state`."""
    roles = _ROLES.get(op.name, ())
    return roles[position] if position < len(roles) else "data"


def inputs(graph: Graph, op: Op, wanted: str = "") -> Iterator[tuple[int, str, Tensor]]:
    """Yield (position, role, tensor) of the op's inputs, absent ones left out.

    Args:
        graph: The op's graph.
        op: The op.
        wanted: A role (`weights`), or `input` for data inputs, or `inputN` for one position; empty for all.
    """
    for position, tensor in enumerate(graph.op_inputs(op)):
        if tensor is None:
            continue
        part = role(op, position)
        if wanted in {"", part, f"input{position}"} or (wanted == "input" and part == "data"):
            yield position, part, tensor


def tensors(graph: Graph, op: Op, wanted: str) -> Iterator[tuple[str, Tensor]]:
    """Yield (how a message names it, tensor) of a role of the vocabulary; `data` means data inputs and outputs."""
    if wanted != "output":
        for position, part, tensor in inputs(graph, op, wanted):
            yield named(tensor, part if part in {"weights", "bias"} else f"input {position}"), tensor
    if wanted in {"output", "data"}:
        for position, tensor in enumerate(graph.op_outputs(op)):
            yield named(tensor, f"output {position}"), tensor


def named(tensor: Tensor, what: str) -> str:
    """Return `input 0 'name'` for messages."""
    name = tensor.name if len(tensor.name) <= 80 else f"...{tensor.name[-77:]}"
    return f"{what} '{name}'" if name else what


def data_input(graph: Graph, op: Op) -> Tensor | None:
    """Return the first data input, None for an op without."""
    return next((tensor for _, _, tensor in inputs(graph, op, "data")), None)


def first_output(graph: Graph, op: Op) -> Tensor | None:
    """Return the first output, None for an op without."""
    return next(iter(graph.op_outputs(op)), None)


def weights_of(graph: Graph, op: Op) -> Tensor | None:
    """Return the first weights tensor, None for an op without."""
    return next((tensor for _, _, tensor in inputs(graph, op, "weights")), None)
