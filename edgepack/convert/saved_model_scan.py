"""Scan of a SavedModel without loading it: its signatures, and operations that would access files or run Python.

It reads the protocol buffer's wire format directly, because importing TensorFlow just to refuse a model takes seconds.
Field numbers are from tensorflow/core/protobuf (saved_model.proto, meta_graph.proto, saved_object_graph.proto) and
tensorflow/core/framework (graph.proto, function.proto, node_def.proto, attr_value.proto).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.errors import ConversionError, ModelFileError
from edgepack.text import first_few

#: Operations that a model that only computes on its inputs does not have.
_FORBIDDEN = {
    op: does
    for does, ops in {
        "writes a file": "WriteFile PrintV2 DebugIdentity DebugIdentityV2 DebugIdentityV3 SaveDataset SaveDatasetV2"
        " DistributedSave SnapshotDataset SnapshotDatasetV2 SummaryWriter CreateSummaryFileWriter"
        " CreateSummaryDbWriter",
        "reads a file": "ReadFile WholeFileReader WholeFileReaderV2 ImmutableConst TextLineReader TextLineReaderV2"
        " TFRecordReader TFRecordReaderV2 LMDBReader FixedLengthRecordReader FixedLengthRecordReaderV2 TextLineDataset"
        " TFRecordDataset TFRecordDatasetV2 FixedLengthRecordDataset FixedLengthRecordDatasetV2 LoadDataset CSVDataset"
        " CSVDatasetV2 SqlDataset LMDBDataset InitializeTableFromTextFile InitializeTableFromTextFileV2 MatchingFiles"
        " MatchingFilesDataset",
        "runs Python": "PyFunc PyFuncStateless EagerPyFunc",
        "connects to another machine": "RpcCall RpcClient RpcServer RemoteCall",
    }.items()
    for op in ops.split()
}

#: Operations in the saver of every SavedModel; refused where the model itself would run them.
_SAVER = {
    **dict.fromkeys(("Save", "SaveV2", "SaveSlices", "MergeV2Checkpoints"), "writes a file"),
    **dict.fromkeys(("Restore", "RestoreV2", "RestoreSlice"), "reads a file"),
}

_INIT_COLLECTIONS = {"saved_model_main_op", "legacy_init_op"}
_INIT_SIGNATURE = "__saved_model_init_op"


@dataclass
class _Node:
    op: str
    inputs: list[str]
    functions: list[str]


@dataclass
class _MetaGraph:
    tags: list[str] = field(default_factory=list)
    nodes: dict[str, _Node] = field(default_factory=dict)
    functions: dict[str, dict[str, _Node]] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)
    root_functions: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SavedModelScan:
    """Signatures, tags and unsafe operations of a SavedModel.

    Attributes:
        signatures: Keys of the signatures, sorted.
        tags: Tags of the graph that will be loaded.
        unsafe: One phrase per operation that accesses files or runs Python: name, effect and node.
    """

    signatures: tuple[str, ...]
    tags: tuple[str, ...]
    unsafe: tuple[str, ...]


def scan_saved_model(folder: Path) -> SavedModelScan:
    """Scan a SavedModel; of several graphs, the one tagged `serve`, else the first, provides signatures and tags.

    Args:
        folder: The folder with saved_model.pb.

    Raises:
        ModelFileError: saved_model.pb cannot be read or is corrupt.
    """
    file = folder / "saved_model.pb"
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read '{file}': {error.strerror or error}") from error
    try:
        graphs = [_meta_graph(data[a:b]) for number, a, b in _messages(data) if number == 2]
    except (ValueError, IndexError) as error:
        raise ModelFileError(f"'{file}' is corrupt: {error}", hint="export the SavedModel again") from error
    if not graphs:
        raise ModelFileError(f"'{file}' contains no graph", hint="export the SavedModel again")
    chosen = next((graph for graph in graphs if graph.tags == ["serve"]), graphs[0])
    return SavedModelScan(
        signatures=tuple(sorted(key for key in chosen.signatures if key != _INIT_SIGNATURE)),
        tags=tuple(chosen.tags),
        unsafe=tuple(sorted({phrase for graph in graphs for phrase in _unsafe(graph)})),
    )


def refuse_unsafe(folder: Path, scan: SavedModelScan) -> None:
    """Refuse a SavedModel with operations that access files or run Python.

    Raises:
        ConversionError: Names the operations and the flag that allows them.
    """
    if scan.unsafe:
        raise ConversionError(
            f"'{folder}' contains operations that access files, Python or other machines: {first_few(scan.unsafe)}",
            hint="if you trust the source of the model, allow them with --allow-code; or export it without them",
            details={"operations": list(scan.unsafe)},
        )


def _unsafe(graph: _MetaGraph) -> Iterator[str]:
    places = {"": graph.nodes, **graph.functions}
    for place, nodes in places.items():
        for name, node in nodes.items():
            if node.op in _FORBIDDEN or _is_summary(node.op):
                yield f"{node.op} {_FORBIDDEN.get(node.op, 'writes a file')} ({_where(place, name)})"
    for place, name in _reached(graph):
        op = places[place][name].op
        if op in _SAVER:
            yield f"{op} {_SAVER[op]} ({_where(place, name)})"


def _is_summary(op: str) -> bool:
    return op.startswith("Write") and op.endswith("Summary")


def _where(function: str, node: str) -> str:
    return f"node '{node}' of function '{function}'" if function else f"node '{node}'"


def _reached(graph: _MetaGraph) -> Iterator[tuple[str, str]]:
    """Yield (function, node) of all that loading or calling the model can run; function is empty at the top level."""
    functions = list(graph.root_functions)
    waiting, visited = list(graph.roots), set()
    while waiting:
        name = waiting.pop()
        if name in visited or name not in graph.nodes:
            continue
        visited.add(name)
        yield "", name
        waiting += graph.nodes[name].inputs
        functions += graph.nodes[name].functions
    called = set()
    while functions:
        function = functions.pop()
        if function in called or function not in graph.functions:
            continue
        called.add(function)
        for name, node in graph.functions[function].items():
            yield function, name
            functions += node.functions


def _meta_graph(data: bytes) -> _MetaGraph:
    graph = _MetaGraph()
    for number, a, b in _messages(data):
        part = data[a:b]
        if number == 1:
            graph.tags += [part[c:d].decode() for n, c, d in _messages(part) if n == 4]
        elif number == 2:
            _graph_def(part, graph)
        elif number == 4:
            key, value = _entry(part)
            if key in _INIT_COLLECTIONS:
                graph.roots += [
                    _node_name(value[c:d][e:f].decode())
                    for n, c, d in _messages(value)
                    if n == 1
                    for m, e, f in _messages(value[c:d])
                    if m == 1
                ]
        elif number == 5:
            key, value = _entry(part)
            graph.signatures.append(key)
            graph.roots += [_node_name(name) for name in _tensor_names(value)]
        elif number == 7:
            _object_graph(part, graph)
    return graph


def _tensor_names(signature: bytes) -> Iterator[str]:
    """Yield the names of a SignatureDef's output tensors."""
    for number, a, b in _messages(signature):
        if number == 2:
            _, info = _entry(signature[a:b])
            yield from (info[c:d].decode() for n, c, d in _messages(info) if n == 1)


def _object_graph(data: bytes, graph: _MetaGraph) -> None:
    for number, a, b in _messages(data):
        part = data[a:b]
        if number == 2:
            graph.root_functions.append(_entry(part)[0])
        elif number == 1:
            for n, c, d in _messages(part):
                if n in {6, 8}:  # SavedFunction, SavedBareConcreteFunction: function names in field 1
                    graph.root_functions += [part[c:d][e:f].decode() for m, e, f in _messages(part[c:d]) if m == 1]


def _graph_def(data: bytes, graph: _MetaGraph) -> None:
    for number, a, b in _messages(data):
        if number == 1:
            name, node = _node(data[a:b])
            graph.nodes[name] = node
        elif number == 2:
            library = data[a:b]
            for n, c, d in _messages(library):
                if n == 1:
                    name, nodes = _function(library[c:d])
                    graph.functions[name] = nodes


def _function(data: bytes) -> tuple[str, dict[str, _Node]]:
    name, nodes = "", {}
    for number, a, b in _messages(data):
        if number == 1:
            name = next((data[a:b][c:d].decode() for n, c, d in _messages(data[a:b]) if n == 1), "")
        elif number == 3:
            key, node = _node(data[a:b])
            nodes[key] = node
    return name, nodes


def _node(data: bytes) -> tuple[str, _Node]:
    name, node = "", _Node("", [], [])
    for number, a, b in _messages(data):
        if number == 1:
            name = data[a:b].decode()
        elif number == 2:
            node.op = data[a:b].decode()
        elif number == 3:
            node.inputs.append(_node_name(data[a:b].decode()))
        elif number == 5:
            node.functions += _functions_of(_entry(data[a:b])[1])
    if node.op == "PrintV2" and b"file:" not in data:
        # Printing to the log is harmless; with output_stream "file://..." it writes to that file.
        node.op = "Print"
    return name, node


def _functions_of(attribute: bytes) -> Iterator[str]:
    """Yield the function names of an AttrValue: `func` is field 10, `list` field 1 with its `func` in field 9."""
    for number, a, b in _messages(attribute):
        if number == 10:
            yield from (attribute[a:b][c:d].decode() for n, c, d in _messages(attribute[a:b]) if n == 1)
        elif number == 1:
            part = attribute[a:b]
            for n, c, d in _messages(part):
                if n == 9:
                    yield from (part[c:d][e:f].decode() for m, e, f in _messages(part[c:d]) if m == 1)


def _node_name(tensor: str) -> str:
    """Return `scope/node` for `^scope/node`, `scope/node:0` and `scope/node:output:0`."""
    return tensor.lstrip("^").split(":", 1)[0]


def _entry(data: bytes) -> tuple[str, bytes]:
    """Return (key, value) of a map entry with a string key and a message value."""
    key, value = "", b""
    for number, a, b in _messages(data):
        if number == 1:
            key = data[a:b].decode()
        elif number == 2:
            value = data[a:b]
    return key, value


def _messages(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of the length-delimited fields of a message, skipping the others."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise ValueError(f"a field ends at byte {at + size} of {end}")
            yield tag >> 3, at, at + size
            at += size
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in {1, 5}:
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
