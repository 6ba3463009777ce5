"""A .tflite as plain data: tensors, ops and graphs, without reading or writing files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

#: NumPy dtype of each TFLite tensor type that NumPy supports (schema.fbs, enum TensorType).
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "FLOAT16": np.dtype("<f2"),
    "FLOAT64": np.dtype("<f8"),
    "INT8": np.dtype("<i1"),
    "UINT8": np.dtype("<u1"),
    "INT16": np.dtype("<i2"),
    "UINT16": np.dtype("<u2"),
    "INT32": np.dtype("<i4"),
    "UINT32": np.dtype("<u4"),
    "INT64": np.dtype("<i8"),
    "UINT64": np.dtype("<u8"),
    "BOOL": np.dtype("?"),
    "COMPLEX64": np.dtype("<c8"),
    "COMPLEX128": np.dtype("<c16"),
}

FLOAT_DTYPES = frozenset({"FLOAT32", "FLOAT16", "FLOAT64", "BFLOAT16"})


@dataclass(frozen=True)
class Quantization:
    """Affine quantization of a tensor: real = scale * (quantized - zero_point).

    Attributes:
        scale: float32, shape (1,) per tensor or (channels,) per channel.
        zero_point: int64, the same shape.
        axis: Dimension the channels run along (`quantized_dimension` of the schema).
        blockwise: True when the file uses block-wise details; scale is then empty.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    axis: int = 0
    blockwise: bool = False

    @property
    def per_channel(self) -> bool:
        """True when there is more than one scale."""
        return int(self.scale.size) > 1


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a graph.

    Attributes:
        index: Index in the subgraph's tensor table.
        name: As in the file, may be empty.
        shape: Static shape, with 1 for each dynamic dimension (see `shape_signature`).
        shape_signature: Shape with -1 for each dynamic dimension.
        dtype: TFLite tensor type name such as `FLOAT32`.
        buffer: Index in the model's buffer table.
        raw: Bytes of a constant tensor, None for an activation.
        quantization: None when the tensor has no scale.
        is_variable: True for a state tensor, such as an LSTM's.
        has_sparsity: True when the weights are stored sparse.
        has_rank: False when the file leaves the rank open.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    dtype: str
    buffer: int
    raw: npt.NDArray[np.uint8] | None = field(repr=False)
    quantization: Quantization | None = None
    is_variable: bool = False
    has_sparsity: bool = False
    has_rank: bool = True

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of values, 1 for a scalar."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def is_constant(self) -> bool:
        """True when the file contains the values of the tensor."""
        return self.raw is not None

    @property
    def is_dynamic(self) -> bool:
        """True when a dimension is only known at run time."""
        return any(size < 0 for size in self.shape_signature)

    @property
    def is_float(self) -> bool:
        """True for a floating-point type."""
        return self.dtype in FLOAT_DTYPES

    @property
    def integers(self) -> npt.NDArray[np.int64] | None:
        """Values of an integer constant, such as axes, sizes or a permutation; None for activations and other types."""
        data = self.data
        return data.astype(np.int64) if data is not None and data.dtype.kind in "iu" else None

    @cached_property
    def data(self) -> npt.NDArray[Any] | None:
        """Values of a constant in its dtype and shape; None for activations and for types NumPy lacks (INT4)."""
        dtype = NUMPY_DTYPES.get(self.dtype)
        if self.raw is None or dtype is None or self.raw.size != self.elements * dtype.itemsize:
            return None
        return self.raw.view(dtype).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Op:
    """One operator of a graph.

    Attributes:
        index: Position in the file.
        name: Builtin operator name such as `CONV_2D`; `CUSTOM` for custom ops.
        custom_code: Name of a custom op (`FlexErf`, `TFLite_Detection_PostProcess`), empty otherwise.
        version: Operator version.
        inputs: Tensor indices; -1 for an optional input left out.
        outputs: Tensor indices.
        options: Builtin options by the schema's field names in snake case (`stride_w`, `fused_activation`), enums as
            names (`RELU6`, `SAME`).
    """

    index: int
    name: str
    custom_code: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        """`CONV_2D`, or `CUSTOM:FlexErf`."""
        return f"CUSTOM:{self.custom_code}" if self.name == "CUSTOM" else self.name


@dataclass(frozen=True, eq=False)
class Graph:
    """One subgraph.

    Attributes:
        name: As in the file.
        tensors: All tensors, by index.
        ops: All operators in file order.
        inputs: Tensor indices of the graph's inputs.
        outputs: Tensor indices of the graph's outputs.
    """

    name: str
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def op_inputs(self, op: Op) -> tuple[Tensor | None, ...]:
        """Return the op's input tensors, None for an optional input left out."""
        return tuple(self.tensors[i] if i >= 0 else None for i in op.inputs)

    def op_outputs(self, op: Op) -> tuple[Tensor, ...]:
        """Return the op's output tensors."""
        return tuple(self.tensors[i] for i in op.outputs if i >= 0)

    def output_name(self, op: Op) -> str:
        """Return the name of the op's first output, empty when it has none."""
        outputs = self.op_outputs(op)
        return outputs[0].name if outputs else ""

    @cached_property
    def producers(self) -> dict[int, int]:
        """Map from tensor index to the index of the op that writes it."""
        return {tensor: op.index for op in self.ops for tensor in op.outputs if tensor >= 0}

    @cached_property
    def consumers(self) -> dict[int, tuple[int, ...]]:
        """Map from tensor index to the indices of the ops that read it."""
        consumers: dict[int, list[int]] = {}
        for op in self.ops:
            for tensor in dict.fromkeys(op.inputs):
                if tensor >= 0:
                    consumers.setdefault(tensor, []).append(op.index)
        return {tensor: tuple(ops) for tensor, ops in consumers.items()}


@dataclass(frozen=True)
class Signature:
    """Names of a graph's inputs and outputs, chosen by the model's author.

    Attributes:
        key: Signature key such as `serving_default`.
        graph: Index of the subgraph.
        inputs: Map from name to tensor index, in the file's order.
        outputs: The same for outputs.
    """

    key: str
    graph: int
    inputs: dict[str, int]
    outputs: dict[str, int]


@dataclass(frozen=True, eq=False)
class Model:
    """A whole .tflite.

    Attributes:
        graphs: Subgraphs; the first one is the model's main graph.
        signatures: In file order.
        description: Producer's description, `MLIR Converted.` for TFLiteConverter.
        metadata: Metadata buffers by name.
        size: Bytes of the file.
    """

    graphs: tuple[Graph, ...]
    signatures: tuple[Signature, ...]
    description: str
    metadata: Mapping[str, bytes]
    size: int

    @property
    def main(self) -> Graph:
        """The graph that runs when the model is invoked without a signature."""
        return self.graphs[0]

    @property
    def min_runtime_version(self) -> str:
        """`min_runtime_version` metadata such as `2.6.0`, empty when it is missing."""
        return self.metadata.get("min_runtime_version", b"").rstrip(b"\0").decode("ascii", "replace").strip()

    @property
    def signature(self) -> Signature | None:
        """The main graph's signature: `serving_default` when there is one, else the first; None without any."""
        mine = [s for s in self.signatures if s.graph == 0]
        for signature in mine:
            if signature.key == "serving_default":
                return signature
        return mine[0] if mine else None

    @property
    def has_resource_state(self) -> bool:
        """True when a run of the main graph writes a resource variable, whose value the next run reads.

        A graph that CALL_ONCE runs is left out: it only initializes variables.
        """
        once = {int(op.options.get("init_subgraph_index", 0)) for op in self.main.ops if op.name == "CALL_ONCE"}
        return any(
            op.name == "ASSIGN_VARIABLE"
            for number, graph in enumerate(self.graphs)
            if number not in once
            for op in graph.ops
        )

    @property
    def is_stateful(self) -> bool:
        """True when a run leaves a state to the next one, in a variable tensor (an LSTM's) or a resource variable."""
        return self.has_resource_state or any(
            graph.tensors[index].is_variable
            for graph in self.graphs
            for op in graph.ops
            for index in op.inputs
            if index >= 0
        )

    @property
    def is_stream(self) -> bool:
        """True when runs are steps of a stream: resource variables, an SVDF, or an LSTM of one step keep the state."""
        return self.has_resource_state or any(
            op.name == "SVDF" or (op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" and self._is_one_step(op))
            for op in self.main.ops
        )

    def _is_one_step(self, op: Op) -> bool:
        shape = self.main.tensors[op.inputs[0]].shape if op.inputs and op.inputs[0] >= 0 else ()
        return len(shape) == 3 and shape[:2] == (1, 1)

    @property
    def state(self) -> str:
        """Where the model keeps a state: `variable-tensors`, `resource-variables`, or empty for a model without one."""
        if self.has_resource_state:
            return "resource-variables"
        return "variable-tensors" if self.is_stateful else ""

    @property
    def is_quantized(self) -> bool:
        """True when an activation of the main graph is an integer with a scale: a full integer file."""
        return any(
            t.quantization is not None and not t.is_constant and t.dtype in {"INT8", "UINT8", "INT16"}
            for t in self.main.tensors
        )

    @property
    def is_float(self) -> bool:
        """True when no tensor of any graph is quantized and no weight is stored in half precision."""
        return not any(
            t.quantization is not None or (t.is_constant and t.dtype == "FLOAT16" and t.elements > 1)
            for graph in self.graphs
            for t in graph.tensors
        )

    def input_names(self) -> tuple[str, ...]:
        """Return a name for each input of the main graph: from the signature where there is one, else the tensor's."""
        return self._names(self.main.inputs, self.signature.inputs if self.signature else {})

    def output_names(self) -> tuple[str, ...]:
        """Return a name for each output of the main graph, as `input_names` does."""
        return self._names(self.main.outputs, self.signature.outputs if self.signature else {})

    def _names(self, indices: tuple[int, ...], named: Mapping[str, int]) -> tuple[str, ...]:
        by_index = {tensor: name for name, tensor in reversed(list(named.items()))}
        return tuple(by_index.get(i, self.main.tensors[i].name or f"tensor_{i}") for i in indices)
