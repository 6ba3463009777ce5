"""The output of LiteRT's compiler plugin for Qualcomm: what was placed, what was refused and why, what failed.

LiteRT writes to stderr and QNN to stdout, each in order. Both are needed: LiteRT names the op that was refused, QNN
says why, and the name of the QNN node connects the two. The forms are those of ai-edge-litert 2.3.0 with QAIRT 2.51.

The log is incomplete: an op's builder refuses without naming the op, and a custom op is left without a line. Which ops
were placed is decided by the file that the compiler wrote; the log gives reasons.
"""

import re
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from edgepack.choices import alternatives
from edgepack.compilers.qnn_failures import Failure, failure_of
from edgepack.compilers.qnn_types import type_name, type_names

__all__ = ["Failure", "Partitioning", "QnnLog", "QnnTensor", "Refusal", "TypeSet", "parse"]

#: A record of QNN's log, which can begin in the middle of a line: `     0.0ms [ ERROR ]   <E> text`.
_QNN_ERROR = re.compile(r"<E>[ \t]*(.*?)(?=\s*\d[\d.]*ms\s*\[|\Z)", re.DOTALL)
#: Always present, whatever the outcome.
_QNN_NOISE = re.compile(r"unexpected GraphHtpSettings option|^QnnBackend_validateOpConfig failed|^Please refer to the")
_QNN_CLOSE = re.compile(r"^Failed to validate op (\S+) with error")
_TYPE_LINE = re.compile(r"(in|out)\[(\d+)\]:\s*(?:QNN_DATATYPE_)?(\w+)")

_SDK = re.compile(r"Applying plugin with SDK version: v?(\S+)")
_PARTITIONED = re.compile(
    r"Partitioned subgraph<(\d+)>, selected (\d+) ops, from a total of (\d+) ops\. resulted in (\d+) partitions"
)
_ENTRY_POINT = re.compile(r"Entry point name: (\S+)")
_NODE = re.compile(r"^QNN op validation failed: '([^']*)' \(type=(\w+)(?:, operation=(\w+))?\)")
_TENSOR = re.compile(r'^\s*\[\d+\] name="(.*?)" dtype=(?:QNN_DATATYPE_)?(\w+) dims=\[([\d,\s]*)\]\s*(.*)$')
_OP = re.compile(r"^LiteRT Op #(\d+) '([^']*)' \(code=(\d+)\) is not supported")
_OP_TENSOR = re.compile(r'^\s*\[\d+\] name=".*"\s+tensor_idx=(-?\d+)')
_BUILDER = re.compile(r"^ERROR: \[Qnn\] (.*)")
_RECORD = re.compile(r"^(INFO|WARNING|ERROR|VERBOSE|DEBUG): |^\[LITERT_TOOLS")


@dataclass(frozen=True)
class QnnTensor:
    """A tensor of a QNN node, as LiteRT lists it.

    Attributes:
        name: QNN's name.
        dtype: QNN's data type without its prefix (`SFIXED_POINT_8`).
        shape: Dimensions.
        quantization: `per-tensor-quant` and the like; empty for none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    quantization: str = ""


@dataclass(frozen=True)
class TypeSet:
    """Data types that go together, of a node's inputs and outputs in order.

    Attributes:
        configuration: QNN's name of the group (`INT16`), empty for what was requested.
        inputs: Data types without prefix; an index that QNN does not list is an empty string.
        outputs: As `inputs`.
    """

    configuration: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """An op that the compiler leaves to the CPU, and why.

    Attributes:
        kind: `no-builder`: the plugin has none for the op. `builder`: it has one, which refused. `validation`: QNN
            refused one of the nodes that it made.
        subgraph: Index of the subgraph; None when the log ends before it says.
        op_index: Index of the op in the subgraph; None when the log does not name it.
        op: LiteRT's name of the op (`Exp`), empty when the log does not name it.
        op_code: Its builtin operator code, None when the log does not name it.
        inputs: Indices of its input tensors.
        outputs: Indices of its output tensors.
        node: QNN's name of the refused node (`Tile_2`), empty without validation.
        node_type: Its type (`Tile`).
        operation: Its operation, for element-wise types (`Exp`).
        node_inputs: The node's inputs.
        node_outputs: The node's outputs.
        requested: Data types that were requested, None when QNN does not say.
        supported: Data types that QNN would take; empty when it does not say.
        messages: Further sentences of QNN or of the builder.
    """

    kind: Literal["no-builder", "builder", "validation"]
    subgraph: int | None = None
    op_index: int | None = None
    op: str = ""
    op_code: int | None = None
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    node: str = ""
    node_type: str = ""
    operation: str = ""
    node_inputs: tuple[QnnTensor, ...] = ()
    node_outputs: tuple[QnnTensor, ...] = ()
    requested: TypeSet | None = None
    supported: tuple[TypeSet, ...] = ()
    messages: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """Why the op was refused, one sentence without the op's name."""
        if self.kind == "no-builder":
            return "LiteRT's plugin does not translate this op for QNN"
        if self.kind == "builder":
            return f"LiteRT's plugin does not translate it: {' '.join(self.messages)}".rstrip(". ")
        what = f"{self.node_type} ({self.operation})" if self.operation else self.node_type
        ranks = {len(tensor.shape) for tensor in (*self.node_inputs, *self.node_outputs)}
        if any("incorrect Rank" in message for message in self.messages):
            return f"QNN refuses {what} of rank {max(ranks, default=0)}"
        types = f"{_list(self.node_inputs)} -> {_list(self.node_outputs)}"
        if self.supported:
            return f"QNN refuses {what} for the data types {types}{self._instead()}"
        detail = f": {self.messages[0].rstrip('.')}" if self.messages else ""
        return f"QNN refuses {what} for {types}{detail}"

    def _instead(self) -> str:
        """Return which data types QNN would take, of the first input or, where that is one of them, of the output."""
        given = self.node_inputs[0].dtype if self.node_inputs else ""
        sets = [entry for entry in self.supported if entry.inputs]
        first = type_names(entry.inputs[0] for entry in sets)
        if type_name(given) not in first:
            return f"; its first input may be {alternatives(first)}" if first else ""
        outputs = type_names(entry.outputs[0] for entry in sets if entry.inputs[0] == given and entry.outputs)
        wrong = bool(self.node_outputs) and type_name(self.node_outputs[0].dtype) not in outputs
        return f"; from {type_name(given)} its output may be {alternatives(outputs)}" if wrong and outputs else ""


@dataclass(frozen=True)
class Partitioning:
    """How many ops of a subgraph were selected.

    Attributes:
        subgraph: Its index.
        selected: Number of ops selected for the accelerator.
        total: Number of ops after LiteRT's own rewriting.
        partitions: Number of partitions that the selected ops form.
    """

    subgraph: int
    selected: int
    total: int
    partitions: int


@dataclass(frozen=True)
class QnnLog:
    """What the compiler's output says.

    Attributes:
        sdk_version: QAIRT's version, empty when the libraries were not loaded.
        partitionings: By subgraph, in the log's order.
        refusals: Ops left to the CPU, as far as the log names them.
        failure: Why the compilation failed as a whole; None when it did not, and when no op was selected.
        errors: The error records that are not about a single op, whole.
    """

    sdk_version: str
    partitionings: tuple[Partitioning, ...]
    refusals: tuple[Refusal, ...]
    failure: Failure | None
    errors: tuple[str, ...] = ()

    @property
    def nothing_selected(self) -> bool:
        """True when no op was selected: the tool then ends with 1 and writes an empty file, which is no failure."""
        return bool(self.partitionings) and not any(entry.selected for entry in self.partitionings)


@dataclass(frozen=True)
class _Validation:
    requested: TypeSet | None
    supported: tuple[TypeSet, ...]
    messages: tuple[str, ...]


def parse(stdout: str, stderr: str, exit_code: int) -> QnnLog:
    """Read the compiler's output.

    Args:
        stdout: QNN's log.
        stderr: LiteRT's log.
        exit_code: The program's exit code, negative for a signal.

    Returns:
        What it says. Text that is not a log gives an empty result, with a failure when `exit_code` is not 0.
    """
    qnn = [text.strip() for text in _QNN_ERROR.findall(stdout)]
    validations, remaining = _validations([text for text in qnn if text and not _QNN_NOISE.search(text)])
    reader = _Reader(validations)
    reader.read(stderr.splitlines())
    sdk = _SDK.search(stderr)
    log = QnnLog(
        sdk_version=sdk.group(1) if sdk else "",
        partitionings=tuple(reader.partitionings),
        refusals=tuple(reader.refusals),
        failure=None,
    )
    if exit_code == 0 or (log.nothing_selected and exit_code == 1):
        return log
    errors = [*_errors(stderr), *remaining]
    failure = failure_of(errors, stderr, exit_code, reader.entry_point)
    return replace(log, failure=failure, errors=tuple(dict.fromkeys(errors)))


class _Reader:
    """Reads LiteRT's log line by line."""

    def __init__(self, validations: dict[str, deque[_Validation]]) -> None:
        self.partitionings: list[Partitioning] = []
        self.refusals: list[Refusal] = []
        self.entry_point = ""
        self._validations = validations
        #: Refusals since the last partitioning; the line that names their subgraph comes after them.
        self._open: list[dict[str, object]] = []
        self._nodes: list[dict[str, object]] = []
        self._builder: list[str] = []
        #: The error record that the op's line belongs to: its source file tells a missing builder.
        self._header = ""

    def read(self, lines: list[str]) -> None:
        index = 0
        while index < len(lines):
            line = lines[index]
            index += 1
            if match := _NODE.match(line):
                index = self._node(match, lines, index)
            elif match := _OP.match(line):
                index = self._op(match, lines, index)
            elif match := _BUILDER.match(line):
                self._builder.append(match.group(1).strip())
            elif line.startswith("ERROR: "):
                self._header = line
            elif match := _PARTITIONED.search(line):
                self._close_builder()
                partitioning = Partitioning(*map(int, match.groups()))
                self.partitionings.append(partitioning)
                self._close(partitioning.subgraph)
            elif match := _ENTRY_POINT.search(line):
                self.entry_point = match.group(1)
        # Messages of builders after the last partitioning are about the compilation, not about the selection.
        if not self.partitionings:
            self._close_builder()
        self._close(None)

    def _node(self, match: re.Match[str], lines: list[str], index: int) -> int:
        inputs: list[QnnTensor] = []
        outputs: list[QnnTensor] = []
        target = inputs
        while index < len(lines) and not _RECORD.match(lines[index]) and not _OP.match(lines[index]):
            text = lines[index].strip()
            index += 1
            if text in ("Inputs:", "Outputs:"):
                target = inputs if text == "Inputs:" else outputs
            elif tensor := _TENSOR.match(text):
                name, dtype, dims, quantization = tensor.groups()
                shape = tuple(int(part) for part in dims.split(",") if part.strip())
                quantization = "" if "no quantization" in quantization else quantization.strip()
                target.append(QnnTensor(name, dtype, shape, quantization))
        name, node_type, operation = match.groups()
        queue = self._validations.get(name)
        found = queue.popleft() if queue else _Validation(None, (), ())
        self._nodes.append(
            {
                "node": name,
                "node_type": node_type,
                "operation": operation or "",
                "node_inputs": tuple(inputs),
                "node_outputs": tuple(outputs),
                "requested": found.requested,
                "supported": found.supported,
                "messages": found.messages,
            }
        )
        return index

    def _op(self, match: re.Match[str], lines: list[str], index: int) -> int:
        inputs: list[int] = []
        outputs: list[int] = []
        target = inputs
        while index < len(lines) and not _RECORD.match(lines[index]):
            text = lines[index].strip()
            index += 1
            if text in ("Inputs:", "Outputs:"):
                target = inputs if text == "Inputs:" else outputs
            elif tensor := _OP_TENSOR.match(text):
                target.append(int(tensor.group(1)))
        entry: dict[str, object] = {
            "op_index": int(match.group(1)),
            "op": match.group(2),
            "op_code": int(match.group(3)),
            "inputs": tuple(inputs),
            "outputs": tuple(outputs),
        }
        if self._nodes:
            # Of an op with several nodes, the last is the one that QNN refused last.
            entry |= {"kind": "validation", **self._nodes[-1]}
        elif self._builder and "qnn_compose_graph" not in self._header:
            entry |= {"kind": "builder", "messages": tuple(self._builder)}
            self._builder = []
        else:
            entry["kind"] = "no-builder"
        self._close_builder()
        self._nodes = []
        self._open.append(entry)
        return index

    def _close_builder(self) -> None:
        self._open += [{"kind": "builder", "messages": (text,)} for text in self._builder]
        self._builder = []

    def _close(self, subgraph: int | None) -> None:
        self.refusals += [Refusal(subgraph=subgraph, **entry) for entry in self._open]  # type: ignore[arg-type]
        self._open = []


def _validations(texts: list[str]) -> tuple[dict[str, deque[_Validation]], list[str]]:
    """Group QNN's errors by the node whose validation they end with; return the groups and what is left."""
    groups: dict[str, deque[_Validation]] = defaultdict(deque)
    current: list[str] = []
    for text in texts:
        if match := _QNN_CLOSE.match(text):
            groups[match.group(1)].append(_validation(current))
            current = []
        else:
            current.append(text)
    return groups, current


def _validation(texts: list[str]) -> _Validation:
    requested: TypeSet | None = None
    supported: list[TypeSet] = []
    messages: list[str] = []
    for text in texts:
        if text.startswith("Requested I/O datatype set"):
            sets = _type_sets(text, "")
            requested = sets[0] if sets else None
        elif text.startswith("Supported I/O datatype sets"):
            configuration = text.splitlines()[0].rpartition(":")[2].strip()
            supported += [entry for entry in _type_sets(text, configuration) if entry not in supported]
        elif text not in messages:
            messages.append(text)
    return _Validation(requested, tuple(supported), tuple(messages))


def _type_sets(text: str, configuration: str) -> list[TypeSet]:
    """Return the sets of a record: each begins with a line `1:`, or the record has one set without a number."""
    parts = re.split(r"^\s*\d+:\s*$", text, flags=re.MULTILINE)
    sets = []
    for part in parts:
        rows: dict[str, dict[int, str]] = {"in": {}, "out": {}}
        for kind, position, dtype in _TYPE_LINE.findall(part):
            rows[kind][int(position)] = dtype
        if rows["in"] or rows["out"]:
            lists = (tuple(row.get(i, "") for i in range(max(row, default=-1) + 1)) for row in rows.values())
            sets.append(TypeSet(configuration, *lists))
    return sets


def _list(tensors: tuple[QnnTensor, ...]) -> str:
    """Return the data types, equal ones in a row once."""
    names = (type_name(tensor.dtype) or "an unknown type" for tensor in tensors)
    return ", ".join(name for name, _ in groupby(names))


def _errors(stderr: str) -> list[str]:
    """Return LiteRT's error records that are not refusals of an op, one line each."""
    texts = []
    for line in stderr.splitlines():
        if line.startswith(("ERROR: ", "└ ", "[LITERT_TOOLS:APPLY] Failed")):
            text = re.sub(r"^(ERROR: |\[LITERT_TOOLS:APPLY\] )+", "", line).strip()
            text = re.sub(r"\[LITERT_TOOLS:APPLY\]\s*Failed$", "", text)
            # A record without text of its own (`[apply_plugin.cc:455] ERROR: [...]`) passes another one on.
            if re.sub(r"\[[^\]]*\]|ERROR:|└", "", text).strip():
                texts.append(text)
    return texts
