"""Edits: which ops of a graph are removed and which replace them, and how edits are applied to models and to files.

The new ops write the same tensors as the removed ones, so that the rest of the graph does not change.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES, Graph, Model, Op, Tensor
from edgepack.graph.edit import add_buffer, pack, set_versions, unpack
from edgepack.graph.file_versions import file_versions
from edgepack.graph.memo import Memo
from edgepack.graph.new_parts import new_operator
from edgepack.graph.options import full_options
from edgepack.graph.read import schema
from edgepack.graph.runtime_versions import min_runtime_version
from edgepack.graph.unused import drop_unused

_KINDS = {np.dtype(dtype): kind for kind, dtype in NUMPY_DTYPES.items()}

#: Codes of all rewrites: stable names, documented in docs/concepts/repairs.md.
CODES = frozenset(
    {
        "balanced-concatenation", "batch-1", "block-shuffle", "constant-division", "constant-product",
        "constant-shape", "dense-constant", "distinct-names", "elu", "explicit-broadcast", "explicit-state",
        "flat-reshape", "flat-transpose", "folded-arithmetic", "gelu",
        "grouped-convolution", "hard-swish", "kept-on-host", "leaky-relu", "mean-in-two", "nearest-upsampling",
        "negative-sum",
        "padv2-shifted", "padv2-zero", "plain-arithmetic", "real-spectrum", "separate-range", "shrinking-slice",
        "softmax", "split-head", "split-v-equal", "split-v-slices", "tile", "unpack", "unrolled-lstm",
    }
)  # fmt: skip


@dataclass(frozen=True)
class NewTensor:
    """A tensor that an edit adds.

    Attributes:
        name: Name in the file.
        shape: Static shape.
        dtype: TFLite type name.
        data: Values of a constant, None for an activation.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class NewOp:
    """An op that an edit adds; tensor indices beyond the graph's own refer to the edit's new tensors in order."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Edit:
    """The replacement of some ops of a graph by others.

    Attributes:
        code: Stable name of the rewrite, such as `grouped-convolution`.
        graph_size: Number of tensors of the graph that the edit applies to.
        removed: Indices of the ops that are removed.
        tensors: The tensors that are added.
        ops: The ops that are added at the position of the last removed op.
        message: Description of the rewrite, one sentence.
        exact: Whether both compute the same up to rounding.
    """

    code: str
    graph_size: int
    removed: tuple[int, ...]
    tensors: tuple[NewTensor, ...]
    ops: tuple[NewOp, ...]
    message: str
    exact: bool = True


@dataclass
class Draft:
    """An edit under construction; methods return tensor indices."""

    graph: Graph
    name: str
    tensors: list[NewTensor] = field(default_factory=list)
    ops: list[NewOp] = field(default_factory=list)

    def constant(self, values: Any, dtype: str = "FLOAT32") -> int:
        """Add a constant."""
        array = np.ascontiguousarray(np.asarray(values, NUMPY_DTYPES[dtype]))
        return self._add(NewTensor(self._new_name(), tuple(np.shape(values)), dtype, array))

    def activation(self, shape: Sequence[int], dtype: str = "FLOAT32") -> int:
        """Add an activation."""
        return self._add(NewTensor(self._new_name(), tuple(int(n) for n in shape), dtype))

    def op(self, name: str, inputs: Iterable[int], outputs: Iterable[int], **options: Any) -> None:
        """Add an op; options have the names of `Op.options`, missing ones the schema's defaults."""
        self.ops.append(NewOp(name, tuple(inputs), tuple(outputs), full_options(name, options)))

    def then(
        self, name: str, inputs: Iterable[int], shape: Sequence[int], dtype: str = "FLOAT32", **options: Any
    ) -> int:
        """Add an op with one new output of a shape, and return the output."""
        output = self.activation(shape, dtype)
        self.op(name, inputs, [output], **options)
        return output

    def edit(self, code: str, removed: Iterable[int], message: str, *, exact: bool = True) -> Edit:
        """Return the edit; `code` is one of `CODES`."""
        assert code in CODES, code
        return Edit(
            code,
            len(self.graph.tensors),
            tuple(sorted(removed)),
            tuple(self.tensors),
            tuple(self.ops),
            message,
            exact,
        )

    def _new_name(self) -> str:
        return f"{self.name}/repair_{len(self.tensors)}"

    def _add(self, tensor: NewTensor) -> int:
        self.tensors.append(tensor)
        return len(self.graph.tensors) + len(self.tensors) - 1


def edited(model: Model, edits: Sequence[Edit], memo: Memo | None = None) -> Model:
    """Return the model with edits applied to its main graph, in memory, without writing a file.

    Args:
        model: The model.
        edits: Edits that share no op.
        memo: Shared by the variants of a search, which then share their tensors; new ops have no true version then.
    """
    search, memo = memo is not None, memo or Memo()
    graph = model.main
    tensors = list(graph.tensors)
    buffers = 1 + max((tensor.buffer for g in model.graphs for tensor in g.tensors), default=0)
    for number, new in enumerate(new for edit in edits for new in edit.tensors):
        place = (len(tensors), buffers + number)
        raw = memo.get((new,), ("values",), partial(_values, new))
        tensors.append(memo.get((new,), ("new", *place), partial(_tensor, new, raw, *place)))
    ops: list[Op] = []
    for old in _edited_ops(graph, edits):
        if isinstance(old, Op):
            ops.append(old if old.index == len(ops) else replace(old, index=len(ops)))
        else:
            ops.append(Op(len(ops), old.name, "", 1, old.inputs, old.outputs, old.options))
    after = replace(model, graphs=(replace(graph, tensors=tuple(tensors), ops=tuple(ops)), *model.graphs[1:]))
    if search:
        return after
    versions = file_versions(after)
    ops = [op if op.version == versions[0, op.index] else replace(op, version=versions[0, op.index]) for op in ops]
    runtime = min_runtime_version((op.name, op.version) for op in ops)
    return replace(
        after,
        graphs=(replace(after.main, ops=tuple(ops)), *model.graphs[1:]),
        metadata={**model.metadata, "min_runtime_version": runtime.encode()},
    )


def _values(new: NewTensor) -> npt.NDArray[np.uint8] | None:
    return None if new.data is None else np.frombuffer(new.data.tobytes(), np.uint8)


def _tensor(new: NewTensor, raw: npt.NDArray[np.uint8] | None, index: int, buffer: int) -> Tensor:
    return Tensor(index, new.name, new.shape, new.shape, new.dtype, 0 if raw is None else buffer, raw)


def rewritten(tflite: bytes, model: Model, edits: Sequence[Edit]) -> bytes:
    """Return the file with edits applied to its main graph, correct op versions, and without unused tensors.

    Args:
        tflite: The file.
        model: The same file, parsed.
        edits: Edits that share no op.
    """
    file = unpack(tflite)
    graph = file.subgraphs[0]
    for new in (new for edit in edits for new in edit.tensors):
        graph.tensors.append(_packed_tensor(file, new))
    graph.operators = [
        graph.operators[old.index]
        if isinstance(old, Op)
        else new_operator(file, old.name, old.inputs, old.outputs, **old.options)
        for old in _edited_ops(model.main, edits)
    ]
    drop_unused(file)
    set_versions(file, edited(model, edits))
    return pack(file)


def removed_results(graph: Graph, edits: Iterable[Edit]) -> frozenset[int]:
    """Return the tensors that edits remove: results of removed ops that no new op writes."""
    results: set[int] = set()
    written: set[int] = set()
    for edit in edits:
        results.update(i for index in edit.removed for i in graph.ops[index].outputs)
        written.update(i for op in edit.ops for i in op.outputs)
    return frozenset(results - written)


def _edited_ops(graph: Graph, edits: Sequence[Edit]) -> list[Op | NewOp]:
    """Return the ops of the edited graph in order, new ones with their final tensor indices."""
    removed = {index for edit in edits for index in edit.removed}
    replacements: dict[int, list[NewOp]] = {}
    count = 0
    for edit in edits:
        shift = count
        count += len(edit.tensors)
        replacements[edit.removed[-1]] = [
            replace(op, inputs=_shifted(op.inputs, edit, shift), outputs=_shifted(op.outputs, edit, shift))
            for op in edit.ops
        ]
    ops: list[Op | NewOp] = []
    for op in graph.ops:
        if op.index not in removed:
            ops.append(op)
        ops.extend(replacements.get(op.index, ()))
    return ops


def _shifted(indices: tuple[int, ...], edit: Edit, shift: int) -> tuple[int, ...]:
    return tuple(index + shift if index >= edit.graph_size else index for index in indices)


def _packed_tensor(file: Any, new: NewTensor) -> Any:
    tensor = schema().TensorT()
    tensor.name = new.name.encode()
    tensor.shape = np.array(new.shape, np.int32)
    tensor.type = getattr(schema().TensorType, new.dtype)
    tensor.hasRank = True
    tensor.buffer = 0
    if new.data is not None:
        tensor.buffer = add_buffer(file, new.data)
    return tensor
