"""Edit a .tflite, bytes to bytes. The same bytes and the same edit give the same bytes.

Tensors are keyed by `tensor_keys`: the tensor's name where it is unique, so that files with empty or repeated names can
be edited like any other.
"""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepack.errors import ModelFileError
from edgepack.graph.file_versions import file_versions
from edgepack.graph.model import Graph, Model, Signature
from edgepack.graph.read import enum_names, read_model, schema
from edgepack.graph.runtime_versions import min_runtime_version

#: schema.fbs gives `Buffer.data` force_align 16: kernels map weights straight from the file.
_ALIGNMENT = 16

#: TFLiteConverter reserves this many bytes for the metadata `min_runtime_version`, padded with zeros.
_VERSION_BYTES = 16


def tensor_keys(graph: Graph) -> tuple[str, ...]:
    """Return one unique, deterministic key for each tensor of a graph, by tensor index.

    A unique name is its own key; an empty one becomes `tensor_7`, a repeated one `name#7` (7 the tensor's index).
    """
    count = Counter(tensor.name for tensor in graph.tensors)
    taken = {name for name, times in count.items() if times == 1 and name}
    keys = []
    for tensor in graph.tensors:
        key = tensor.name
        if key not in taken:
            key = f"{tensor.name}#{tensor.index}" if tensor.name else f"tensor_{tensor.index}"
            while key in taken:
                key += "_"
            taken.add(key)
        keys.append(key)
    return tuple(keys)


def unpack(tflite: bytes) -> Any:
    """Return the schema's mutable `ModelT` of a file.

    Buffers behind the flatbuffer (`Buffer.offset`, which some tools write for large files) are moved into it, because
    older runtimes and vendors' compilers read only the flatbuffer. Old files have operator codes in
    `deprecated_builtin_code` only; they are written into both fields, because ai-edge-quantizer reads only the newer
    one and takes every op for an ADD.

    Raises:
        ModelFileError: The bytes are not a readable .tflite.
    """
    try:
        model = schema().ModelT.InitFromPackedBuf(tflite, 0)
    except Exception as error:
        raise ModelFileError(f"the model cannot be edited: {type(error).__name__} while unpacking it") from error
    for number, buffer in enumerate(model.buffers or []):
        if buffer.offset > 1:
            if buffer.offset + buffer.size > len(tflite):
                raise ModelFileError(
                    f"the model cannot be edited: buffer {number} ends at byte {buffer.offset + buffer.size} of "
                    f"{len(tflite)}"
                )
            buffer.data = np.frombuffer(tflite, np.uint8, int(buffer.size), int(buffer.offset))
        buffer.offset = buffer.size = 0
    for code in model.operatorCodes or []:
        code.builtinCode = code_number(code)
    return model


def pack(model: Any) -> bytes:
    """Return the bytes of a `ModelT`, every buffer inside the flatbuffer and aligned to 16 bytes."""
    import flatbuffers

    size = sum(len(buffer.data) for buffer in model.buffers or [] if buffer.data is not None)
    builder = flatbuffers.Builder(size + (1 << 16))
    packed = copy.copy(model)
    packed.buffers = [_aligned(buffer) for buffer in model.buffers or []]
    builder.Finish(packed.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def expose_activations(tflite: bytes, source: Model | None = None) -> bytes:
    """Make every float32 activation of the main graph a graph output.

    The original outputs stay first, in order; the rest follow by tensor index. Signatures are dropped, because a
    signature has to name every output. Graph inputs are not repeated as outputs.

    Args:
        tflite: The file.
        source: The result of `read_model` for the file, if the caller has it.

    Returns:
        The edited file, for measurements only.
    """
    source = source or read_model(tflite)
    model = unpack(tflite)
    graph = model.subgraphs[0]
    outputs = list(source.main.outputs)
    outputs += [index for index in float_activations(source.main) if index not in {*outputs, *source.main.inputs}]
    graph.outputs = np.array(outputs, np.int32)
    model.signatureDefs = None
    return pack(model)


def float_activations(graph: Graph) -> tuple[int, ...]:
    """Return the indices of the float32 activations: inputs and results of ops."""
    produced = {*graph.inputs, *graph.producers}
    return tuple(
        tensor.index
        for tensor in graph.tensors
        if tensor.dtype == "FLOAT32" and tensor.index in produced and not tensor.is_constant
    )


def set_op_versions(tflite: bytes, versions: Mapping[int, int]) -> bytes:
    """Set the version of ops of the main graph, keyed by op index.

    Ops share operator codes: codes are added as needed, unused ones removed, and the table is ordered by first use.
    """
    model = unpack(tflite)
    _set_versions(model, {(0, index): version for index, version in versions.items()})
    return pack(model)


def set_min_runtime_version(tflite: bytes, version: str) -> bytes:
    """Write the metadata `min_runtime_version`, such as `2.3.0`."""
    model = unpack(tflite)
    _set_metadata(model, version)
    return pack(model)


def write_true_versions(tflite: bytes) -> bytes:
    """Write the op versions that TFLiteConverter would write, and the `min_runtime_version` that follows from them.

    Some producers leave every version at 1; old runtimes and delegates misread their files.
    """
    model = unpack(tflite)
    set_versions(model, read_model(tflite))
    return pack(model)


def set_versions(file: Any, model: Model) -> None:
    """Set the true op versions and the `min_runtime_version` of a `ModelT`.

    Args:
        file: The schema's mutable `ModelT`.
        model: The same model as plain data, with the same ops in the same order.
    """
    versions = file_versions(model)
    _set_versions(file, versions)
    runtime = min_runtime_version(
        (op.name, versions[number, op.index]) for number, graph in enumerate(model.graphs) for op in graph.ops
    )
    if runtime:
        _set_metadata(file, runtime)


def set_ranges(tflite: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """Write (minimum, maximum) into float tensors of the main graph, keyed by `tensor_keys`.

    TFLiteConverter's calibrator passes ranges to the converter's quantizer in this form.
    """
    keys = tensor_keys(read_model(tflite).main)
    model = unpack(tflite)
    for key, tensor in zip(keys, model.subgraphs[0].tensors, strict=True):
        if key in ranges:
            tensor.quantization = schema().QuantizationParametersT()
            tensor.quantization.min = np.array([ranges[key][0]], np.float32)
            tensor.quantization.max = np.array([ranges[key][1]], np.float32)
    return pack(model)


def set_tensor_names(tflite: bytes, names: Mapping[int, str]) -> bytes:
    """Rename tensors of the main graph, keyed by tensor index."""
    model = unpack(tflite)
    for index, name in names.items():
        model.subgraphs[0].tensors[index].name = name.encode()
    return pack(model)


def add_signature(tflite: bytes) -> bytes:
    """Add a signature that keeps the names of the inputs and outputs, whatever their tensors are renamed to.

    A file that has a signature, and one with two inputs or two outputs of one name, is returned unchanged.
    """
    source = read_model(tflite)
    graph = source.main
    sides = [[graph.tensors[index].name for index in side] for side in (graph.inputs, graph.outputs)]
    if source.signatures or any(len(set(names)) < len(names) or "" in names for names in sides):
        return tflite
    model = unpack(tflite)
    entry = schema().SignatureDefT()
    entry.signatureKey, entry.subgraphIndex = b"serving_default", 0
    entry.inputs, entry.outputs = (
        [_tensor_map(name, index) for name, index in zip(names, side, strict=True)]
        for names, side in zip(sides, (graph.inputs, graph.outputs), strict=True)
    )
    model.signatureDefs = [entry]
    return pack(model)


def unique_names(tflite: bytes) -> bytes:
    """Rename the main graph's tensors to their `tensor_keys`; returns the same bytes when nothing changes."""
    graph = read_model(tflite).main
    changed = {i: key for i, key in enumerate(tensor_keys(graph)) if key != graph.tensors[i].name}
    return set_tensor_names(tflite, changed) if changed else tflite


def restore_interface(tflite: bytes, original: Model) -> bytes:
    """Restore the interface of a file that was rewritten.

    Inputs and outputs are matched by position: their tensor names, the main graph's signature (key, names, order) and
    the description become the original's. Signatures of other subgraphs are left as they are.

    Raises:
        ModelFileError: The file has another number of inputs or outputs, or a signature names another tensor.
    """
    model = unpack(tflite)
    graph = model.subgraphs[0]
    # A tensor that is an input and an output has two tensors in a file with float ends: each kind has its own map.
    moved: dict[str, dict[int, int]] = {}
    for kind in ("inputs", "outputs"):
        before, after = getattr(original.main, kind), [int(i) for i in getattr(graph, kind)]
        if len(before) != len(after):
            raise ModelFileError(f"the rewritten model has {len(after)} {kind}, expected {len(before)}")
        moved[kind] = dict(zip(before, after, strict=True))
    names = {new: original.main.tensors[old].name for kind in moved for old, new in moved[kind].items()}
    _move_names_away(graph, names)
    for index, name in names.items():
        graph.tensors[index].name = name.encode()
    others = [s for s in model.signatureDefs or [] if s.subgraphIndex != 0]
    main = [_signature(s, moved) for s in original.signatures if s.graph == 0]
    model.signatureDefs = [*main, *others] or None
    model.description = original.description.encode()
    return pack(model)


def set_batch(tflite: bytes, size: int = 1) -> bytes:
    """Fix the first dimension of inputs and activations where it is dynamic.

    Only dimensions that are -1 in `shape_signature` change; the shape constants of RESHAPE ops are already relative in
    such files.
    """
    model = unpack(tflite)
    for tensor in model.subgraphs[0].tensors:
        signature = tensor.shapeSignature
        if signature is None or len(signature) == 0 or signature[0] != -1:
            continue
        shape = np.array(tensor.shape, np.int32)
        shape[0] = size
        tensor.shape = shape
        rest = np.array(signature, np.int32)
        rest[0] = size
        tensor.shapeSignature = rest if (rest < 0).any() else None
    return pack(model)


def _move_names_away(graph: Any, interface: Mapping[int, str]) -> None:
    """Rename inner tensors that would share a name with an input or output."""
    names = {name.encode() for name in interface.values()}
    for index, tensor in enumerate(graph.tensors):
        if index not in interface and tensor.name in names:
            tensor.name = tensor.name + f"#{index}".encode()


def _signature(original: Signature, moved: Mapping[str, Mapping[int, int]]) -> Any:
    signature = schema().SignatureDefT()
    signature.signatureKey = original.key.encode()
    signature.subgraphIndex = 0
    for kind, named in (("inputs", original.inputs), ("outputs", original.outputs)):
        for name, index in named.items():
            if index not in moved[kind]:
                raise ModelFileError(
                    f"signature '{original.key}' names tensor {index} as its {kind[:-1]} '{name}': expected an input "
                    "or output of the main graph",
                    hint="export the model again with the signature of its inputs and outputs",
                )
        setattr(signature, kind, [_tensor_map(name, moved[kind][index]) for name, index in named.items()])
    return signature


def _tensor_map(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name = name.encode()
    entry.tensorIndex = index
    return entry


def _set_versions(model: Any, versions: Mapping[tuple[int, int], int]) -> None:
    """Rebuild the operator code table; `versions` is keyed by (subgraph, op index)."""
    codes: list[Any] = []
    places: dict[tuple[int, bytes, int], int] = {}
    old = model.operatorCodes
    for number, graph in enumerate(model.subgraphs):
        for index, op in enumerate(graph.operators or []):
            source = old[op.opcodeIndex]
            builtin = code_number(source)
            custom = source.customCode or b""
            version = versions.get((number, index), source.version)
            place = places.setdefault((builtin, custom, version), len(codes))
            if place == len(codes):
                code = copy.copy(source)
                code.builtinCode = builtin
                # Runtimes before 2.4 read only this byte; 127 means that the code is in `builtin_code`.
                code.deprecatedBuiltinCode = min(builtin, 127)
                code.version = version
                codes.append(code)
            op.opcodeIndex = place
    model.operatorCodes = codes


def _set_metadata(model: Any, version: str) -> None:
    data = np.zeros(_VERSION_BYTES, np.uint8)
    text = version.encode("ascii")[: _VERSION_BYTES - 1]
    data[: len(text)] = np.frombuffer(text, np.uint8)
    model.metadata = list(model.metadata or [])
    for entry in model.metadata:
        if entry.name == b"min_runtime_version":
            model.buffers[entry.buffer].data = data
            return
    entry = schema().MetadataT()
    entry.name = b"min_runtime_version"
    entry.buffer = add_buffer(model, data)
    model.metadata.append(entry)


def op_code(model: Any, name: str, version: int = 1) -> int:
    """Return the index of a builtin op's operator code; adds a code of this version to a model without one."""
    number = builtin_code(name)
    codes = model.operatorCodes
    for place, code in enumerate(codes):
        if code_number(code) == number:
            return place
    code = schema().OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
    codes.append(code)
    return len(codes) - 1


def drop_unused_codes(model: Any) -> None:
    """Remove the operator codes that no op refers to; the others keep their order.

    Tools read the table and fail on a code that they do not know, although nothing uses it.
    """
    ops = [op for graph in model.subgraphs for op in graph.operators or []]
    used = sorted({int(op.opcodeIndex) for op in ops})
    places = {old: new for new, old in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[old] for old in used]
    for op in ops:
        op.opcodeIndex = places[int(op.opcodeIndex)]


def code_number(code: Any) -> int:
    """Return the builtin operator number of an operator code, which old files store in another field."""
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def add_buffer(model: Any, values: Any) -> int:
    """Add a buffer with an array's bytes to a model, and return its index."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def used_buffers(model: Any) -> set[int]:
    """Return the indices of the buffers that a tensor or metadata refers to."""
    used = {int(tensor.buffer) for graph in model.subgraphs for tensor in graph.tensors or []}
    used |= {int(entry.buffer) for entry in model.metadata or []}
    return used | {int(index) for index in (model.metadataBuffer if model.metadataBuffer is not None else ())}


def empty_unused(model: Any) -> None:
    """Remove the contents of buffers that are no longer used; the indices of the others stay."""
    used = used_buffers(model)
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def builtin_code(name: str) -> int:
    """Return the schema's number of a builtin operator name such as `DEQUANTIZE`."""
    return next(code for code, known in enum_names("BuiltinOperator").items() if known == name)


class _AlignedBuffer:
    """Packs one buffer with its alignment, which the generated Python classes ignore."""

    def __init__(self, data: Any) -> None:
        self._data = None if data is None else np.ascontiguousarray(data, np.uint8)

    def Pack(self, builder: Any) -> int:  # name of the generated classes' method
        offset = None
        if self._data is not None and self._data.size:
            count = self._data.size
            builder.StartVector(1, count, _ALIGNMENT)
            builder.head -= count
            builder.Bytes[builder.head : builder.head + count] = self._data.tobytes()
            offset = builder.EndVector()
        schema().BufferStart(builder)
        if offset is not None:
            schema().BufferAddData(builder, offset)
        return int(schema().BufferEnd(builder))


def _aligned(buffer: Any) -> _AlignedBuffer:
    return _AlignedBuffer(buffer.data)
