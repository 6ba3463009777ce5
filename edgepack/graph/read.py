"""Read a .tflite into plain data. Any broken file gives a `ModelFileError`."""

import re
import struct
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import ModelFileError
from edgepack.files import read_regular
from edgepack.graph.model import NUMPY_DTYPES, Graph, Model, Op, Quantization, Signature, Tensor
from edgepack.recent import Recent

#: More dimensions than any TFLite kernel supports; a larger number means a corrupt file.
_MAX_RANK = 32

#: Most values of a constant per byte of its file: a sparse one of 99.9 % zeros. Pruning reaches 99 %.
_SPARSEST = 1024
#: Product of the other dimensions that a tensor with a dimension of 0 may have, unless the file is larger: empty boxes
#: of a detector are [0, 4], and a file of 16 MB is not a false size.
_MOST_EMPTY = 1 << 24

#: Largest scale: the runtime's kernels compute with float32.
_LARGEST_SCALE = float(np.finfo(np.float32).max)
#: Values of the types whose kernels take the zero point for one of the tensor's values; float tensors may keep others.
_ZERO_POINTS = {name: np.iinfo(NUMPY_DTYPES[name]) for name in ("INT8", "UINT8", "INT16", "INT32")}

#: Fields of builtin options with an enum value, with the enum's class in the schema.
ENUM_FIELDS = {
    "fused_activation_function": "ActivationFunctionType",
    "padding": "Padding",
    "weights_format": "FullyConnectedOptionsWeightsFormat",
    "mode": "MirrorPadMode",
    "in_data_type": "TensorType",
    "out_data_type": "TensorType",
    "output_type": "TensorType",
    "quantized_bias_type": "TensorType",
    "kernel_type": "LSTMKernelType",
}

#: Names in `Op.options` of fields whose name in snake case is unclear or too long.
_RENAMED = {
    "fused_activation_function": "fused_activation",
    "dilation_wfactor": "dilation_w",
    "dilation_hfactor": "dilation_h",
}


@cache
def schema() -> ModuleType:
    """Return the generated TFLite schema, imported on first use because the import is slow."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated  # type: ignore[no-any-return]


@cache
def enum_names(enum: str) -> dict[int, str]:
    """Return a map from value to name of an enum class of the schema."""
    return {value: name for name, value in vars(getattr(schema(), enum)).items() if isinstance(value, int)}


def read_bytes(path: Path) -> bytes:
    """Return a model file's bytes.

    Raises:
        ModelFileError: The file cannot be read.
    """
    try:
        return read_regular(path)
    except OSError as error:
        raise ModelFileError(f"cannot read '{path}': {error.strerror or error}") from error


def read_model(source: bytes | bytearray | memoryview | Path | str, *, path: Path | None = None) -> Model:
    """Read a .tflite file or its bytes.

    Args:
        source: A path, or the file's bytes.
        path: Path that the bytes were read from, for messages.

    Returns:
        The model as plain data. Constant tensors are views on the bytes, not copies.

    Raises:
        ModelFileError: The file does not exist, is not a TFLite flatbuffer or is corrupt.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        source = read_bytes(path)
    where = "the model" if path is None else f"'{path}'"
    data = source if isinstance(source, bytes) else bytes(source)
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelFileError(
            f"{where} is not a .tflite file: expected the identifier 'TFL3' at byte 4, got {data[4:8]!r}",
            hint="give a .tflite, a .keras, an .h5 or a SavedModel folder",
        )
    try:
        return _recent.get(data, lambda: _Reader(data).model())
    except ModelFileError as error:
        raise ModelFileError(f"{where} is corrupt: {error.message}", hint=error.hint) from None
    except (
        struct.error,
        IndexError,
        ValueError,
        TypeError,
        OverflowError,
        KeyError,
        AttributeError,
        MemoryError,
    ) as error:
        raise ModelFileError(
            f"{where} is corrupt: an offset or a length points outside the file ({type(error).__name__})",
            hint="copy or export the file again and compare its size and sha256 with the original",
        ) from error


#: Models are plain data that nobody changes.
_recent: Recent[Model] = Recent()


def remember(tflite: bytes, model: Model) -> None:
    """Keep what is known to be in a file, so that it is not read again.

    Args:
        tflite: The file.
        model: What `read_model` would return.
    """
    _recent.get(tflite, lambda: model)


def snake_case(name: str) -> str:
    """Return `stride_w` for `strideW`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


class _Reader:
    """Reads one flatbuffer; every length is compared with the file's size before it is used."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._bytes = np.frombuffer(data, np.uint8)
        self._root = schema().Model.GetRootAsModel(data, 0)
        self._buffers: dict[int, npt.NDArray[np.uint8] | None] = {}

    def _length(self, length: int, what: str) -> int:
        if length < 0 or length * 4 > len(self._data):
            raise ModelFileError(f"{what} claims {length} entries in a file of {len(self._data)} bytes")
        return length

    def model(self) -> Model:
        root = self._root
        codes = [root.OperatorCodes(i) for i in range(self._length(root.OperatorCodesLength(), "operator code table"))]
        builtin = enum_names("BuiltinOperator")
        # Old files store the code in a byte; codes above 126 are in a second field.
        names = [
            builtin.get(max(c.BuiltinCode(), c.DeprecatedBuiltinCode()), f"BUILTIN_{c.BuiltinCode()}") for c in codes
        ]
        customs = [(c.CustomCode() or b"").decode("utf-8", "replace") for c in codes]
        versions = [c.Version() for c in codes]
        count = self._length(root.SubgraphsLength(), "subgraph table")
        if count == 0:
            raise ModelFileError("it has no subgraph")
        for index in range(self._length(root.BuffersLength(), "buffer table")):
            # Buffers that no tensor uses are read when the file is edited.
            self._buffer(index)
        graphs = tuple(self._graph(root.Subgraphs(i), names, customs, versions) for i in range(count))
        return Model(
            graphs=graphs,
            signatures=tuple(self._signatures(graphs)),
            description=(root.Description() or b"").decode("utf-8", "replace"),
            metadata=self._metadata(),
            size=len(self._data),
        )

    def _buffer(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Return the bytes of a buffer, None for the empty buffer of an activation."""
        if index in self._buffers:
            return self._buffers[index]
        if not 0 <= index < self._length(self._root.BuffersLength(), "buffer table"):
            raise ModelFileError(f"tensor buffer {index} does not exist")
        buffer = self._root.Buffers(index)
        data: npt.NDArray[np.uint8] | None = None
        if buffer.Offset() > 1:
            # Files above 2 GB store their weights behind the flatbuffer.
            start, size = int(buffer.Offset()), int(buffer.Size())
            if start + size > len(self._data):
                raise ModelFileError(f"buffer {index} ends at byte {start + size} of {len(self._data)}")
            data = self._bytes[start : start + size]
        elif not buffer.DataIsNone() and buffer.DataLength() > 0:
            if buffer.DataLength() > len(self._data):
                raise ModelFileError(f"buffer {index} claims {buffer.DataLength()} bytes")
            data = buffer.DataAsNumpy()
        self._buffers[index] = data
        return data

    def _graph(self, graph: Any, names: list[str], customs: list[str], versions: list[int]) -> Graph:
        tensors = tuple(
            self._tensor(graph.Tensors(i), i) for i in range(self._length(graph.TensorsLength(), "tensor table"))
        )
        ops = tuple(
            self._op(graph.Operators(i), i, len(tensors), names, customs, versions)
            for i in range(self._length(graph.OperatorsLength(), "operator table"))
        )
        return Graph(
            name=(graph.Name() or b"").decode("utf-8", "replace"),
            tensors=tensors,
            ops=ops,
            inputs=self._indices(graph, "Inputs", len(tensors), "graph inputs"),
            outputs=self._indices(graph, "Outputs", len(tensors), "graph outputs"),
        )

    def _ints(self, table: Any, name: str, what: str) -> tuple[int, ...]:
        # An absent vector has the length 0; a file of 10,000 ops has 40,000 vectors, so the length is read only once.
        if self._length(getattr(table, f"{name}Length")(), what) == 0:
            return ()
        return tuple(getattr(table, f"{name}AsNumpy")().tolist())

    def _indices(self, table: Any, name: str, tensors: int, what: str) -> tuple[int, ...]:
        indices = self._ints(table, name, what)
        for index in indices:
            if not -1 <= index < tensors:
                raise ModelFileError(f"{what} name tensor {index}, but there are {tensors}")
        return indices

    def _tensor(self, tensor: Any, index: int) -> Tensor:
        shape = self._ints(tensor, "Shape", f"shape of tensor {index}")
        signature = self._ints(tensor, "ShapeSignature", f"shape signature of tensor {index}")
        if len(shape) > _MAX_RANK or any(size < 0 for size in shape):
            raise ModelFileError(f"tensor {index} has the shape {list(shape)}")
        buffer, code = tensor.Buffer(), tensor.Type()
        raw = self._buffer(buffer)
        kind = enum_names("TensorType").get(code, f"TYPE_{code}")
        sparse = tensor.Sparsity() is not None
        if 0 in shape and prod(size for size in shape if size) > max(len(self._data), _MOST_EMPTY):
            # It holds nothing, yet ops compute the size of their outputs from the other dimensions.
            raise ModelFileError(f"tensor {index} is empty and has the shape {list(shape)}")
        if raw is not None and kind in NUMPY_DTYPES and not sparse:
            # The runtime refuses such a file as well; reading it here could reserve any amount of memory.
            needed = prod(shape) * NUMPY_DTYPES[kind].itemsize
            if raw.size < needed:
                raise ModelFileError(f"tensor {index} {list(shape)} needs {needed} bytes, its buffer has {raw.size}")
        if raw is not None and prod(max(size, 1) for size in shape) > _SPARSEST * len(self._data):
            # A sparse constant, or one with a dimension of 0, has no size to compare with that of its buffer.
            raise ModelFileError(f"constant {index} claims the shape {list(shape)} in {len(self._data)} bytes")
        return Tensor(
            index=index,
            name=(tensor.Name() or b"").decode("utf-8", "replace"),
            shape=shape,
            shape_signature=signature if len(signature) == len(shape) else shape,
            dtype=kind,
            buffer=buffer,
            raw=raw,
            quantization=self._quantization(tensor.Quantization(), index, kind),
            is_variable=bool(tensor.IsVariable()),
            has_sparsity=sparse,
            has_rank=bool(tensor.HasRank()) or bool(shape),
        )

    def _quantization(self, parameters: Any, index: int, kind: str) -> Quantization | None:
        if parameters is None:
            return None
        blockwise = parameters.DetailsType() == schema().QuantizationDetails.BlockwiseQuantization
        if parameters.ScaleLength() == 0:
            empty = np.zeros(0, np.float32)
            return Quantization(empty, np.zeros(0, np.int64), 0, blockwise=True) if blockwise else None
        self._length(parameters.ScaleLength(), "quantization scales")
        scale = parameters.ScaleAsNumpy()
        if parameters.ZeroPointLength() != scale.size:
            zero_point = np.zeros(scale.size, np.int64)
        else:
            zero_point = parameters.ZeroPointAsNumpy()
        # A negated comparison is also true of NaN; float32's largest number excludes infinity.
        if not (scale.min() >= 0 and scale.max() <= _LARGEST_SCALE):
            wrong = scale[~((scale >= 0) & (scale <= _LARGEST_SCALE))][0]
            raise ModelFileError(f"tensor {index} has the scale {wrong}: expected a finite number of 0 or more")
        if kind in _ZERO_POINTS and not (
            zero_point.min() >= _ZERO_POINTS[kind].min and zero_point.max() <= _ZERO_POINTS[kind].max
        ):
            limits = _ZERO_POINTS[kind]
            wrong = zero_point[(zero_point < limits.min) | (zero_point > limits.max)][0]
            raise ModelFileError(
                f"tensor {index} of {kind} has the zero point {wrong}: expected {limits.min} to {limits.max}"
            )
        return Quantization(scale, zero_point, int(parameters.QuantizedDimension()), blockwise)

    def _op(
        self, operator: Any, index: int, tensors: int, names: list[str], customs: list[str], versions: list[int]
    ) -> Op:
        code = operator.OpcodeIndex()
        if code >= len(names):
            raise ModelFileError(f"operator {index} names operator code {code}, but there are {len(names)}")
        return Op(
            index=index,
            name=names[code],
            custom_code=customs[code],
            version=versions[code],
            inputs=self._indices(operator, "Inputs", tensors, f"inputs of operator {index}"),
            outputs=self._indices(operator, "Outputs", tensors, f"outputs of operator {index}"),
            options=self._options(operator),
        )

    def _options(self, operator: Any) -> dict[str, Any]:
        for union, table, kind in (
            ("BuiltinOptions", operator.BuiltinOptions(), operator.BuiltinOptionsType()),
            ("BuiltinOptions2", operator.BuiltinOptions2(), operator.BuiltinOptions2Type()),
        ):
            name = enum_names(union).get(kind, "NONE")
            if table is None or name == "NONE":
                continue
            reader = getattr(schema(), name)()
            reader.Init(table.Bytes, table.Pos)
            for field in _vector_fields(name):
                self._length(getattr(reader, f"{field}Length")(), f"{name}.{field}")
            return plain_options(vars(getattr(schema(), f"{name}T").InitFromObj(reader)))
        return {}

    def _metadata(self) -> dict[str, bytes]:
        metadata: dict[str, bytes] = {}
        for i in range(self._length(self._root.MetadataLength(), "metadata table")):
            entry = self._root.Metadata(i)
            raw = self._buffer(entry.Buffer())
            metadata[(entry.Name() or b"").decode("utf-8", "replace")] = b"" if raw is None else raw.tobytes()
        return metadata

    def _signatures(self, graphs: tuple[Graph, ...]) -> list[Signature]:
        signatures = []
        for i in range(self._length(self._root.SignatureDefsLength(), "signature table")):
            signature = self._root.SignatureDefs(i)
            graph = signature.SubgraphIndex()
            if graph >= len(graphs):
                raise ModelFileError(f"signature {i} names subgraph {graph}, but there are {len(graphs)}")
            tensors = len(graphs[graph].tensors)
            maps = []
            for kind in ("Inputs", "Outputs"):
                count = self._length(getattr(signature, f"{kind}Length")(), f"signature {kind.lower()}")
                entries = [getattr(signature, kind)(j) for j in range(count)]
                named = {(e.Name() or b"").decode("utf-8", "replace"): int(e.TensorIndex()) for e in entries}
                if any(index >= tensors for index in named.values()):
                    raise ModelFileError(f"signature {i} names a tensor that does not exist")
                maps.append(named)
            key = (signature.SignatureKey() or b"").decode("utf-8", "replace")
            signatures.append(Signature(key, graph, maps[0], maps[1]))
        return signatures


@cache
def _vector_fields(options: str) -> tuple[str, ...]:
    """Return the vector fields of a class of builtin options, whose length in the file has to be checked."""
    return tuple(field[:-6] for field in dir(getattr(schema(), options)) if field.endswith("Length"))


@cache
def plain_name(field: str) -> str:
    """Return the name in `Op.options` of a field of the schema: `fused_activation`, `stride_w`."""
    name = snake_case(field)
    return _RENAMED.get(name, name)


def plain_options(fields: dict[str, Any]) -> dict[str, Any]:
    """Return builtin options with snake-case names, enums as names and arrays as lists."""
    plain: dict[str, Any] = {}
    for field, value in fields.items():
        name = snake_case(field)
        if name in ENUM_FIELDS and isinstance(value, int):
            value = enum_names(ENUM_FIELDS[name]).get(value, value)
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        plain[plain_name(field)] = value
    return plain
