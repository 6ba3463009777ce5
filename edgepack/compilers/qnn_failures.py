"""Why a compilation for Qualcomm failed as a whole, in words: cause and fix for each message known to end one.

Each row was read from a run of ai-edge-litert 2.3.0 with QAIRT 2.51 (exit codes 3, 5 and 6). What is not known is
reported with the compiler's own words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgepack.tools import Completed

#: LiteRT's element types (the numbers of TfLiteType) that QNN may lack; others are reported by number.
_TENSOR_TYPES = {
    5: "STRING", 8: "COMPLEX64", 11: "FLOAT64", 12: "COMPLEX128", 13: "UINT64", 15: "VARIANT", 16: "UINT32",
    17: "UINT16", 18: "INT4", 19: "BFLOAT16", 20: "INT2",
}  # fmt: skip

_CPU = "without --soc the phone compiles the model itself"


@dataclass(frozen=True)
class Failure:
    """Why a compilation failed as a whole.

    Attributes:
        kind: `variable-tensor`, `tensor-type`, `name-clash`, `node-refused`, `cannot-create`, `pad-value`, `soc`,
            `library`, `unreadable`, `signal` or `unknown`.
        reason: What was wrong, one sentence without a full stop.
        hint: What to do about it.
        message: The compiler's own words.
        node: QNN's name of the node or tensor concerned, empty when the log names none.
        op_index: Index of the op within the partition, None when the log names none.
        partition: Name of the partition that was being compiled (`qnn_partition_0`), empty before the first.
    """

    kind: str
    reason: str
    hint: str
    message: str
    node: str = ""
    op_index: int | None = None
    partition: str = ""


@dataclass(frozen=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    reason: str
    hint: str


def _rule(kind: str, pattern: str, reason: str, hint: str) -> _Rule:
    return _Rule(kind, re.compile(pattern), reason, hint)


#: In the order of how specific they are; `{name}` and `{type}` are groups of the pattern.
_RULES = (
    _rule(
        "library",
        r"(?P<name>lib[\w.+-]+\.so[\w.]*): cannot open shared object file",
        "the system library {name} is missing",
        "run edgepack doctor; install the package of your system that contains {name} (Debian and Ubuntu: libatomic1 "
        "for libatomic.so.1, libstdc++6 for libstdc++.so.6), or reinstall edgepack[qualcomm] if it is Qualcomm's",
    ),
    _rule(
        "library",
        r"undefined symbol: (?P<name>\w+)|version [`'](?P<other>[\w.]+)' not found",
        "LiteRT's plugin and Qualcomm's libraries do not fit together ({name})",
        "install the versions that edgepack[qualcomm] names",
    ),
    _rule(
        "variable-tensor",
        r"Variable tensors not yet supported|QNN Unsupported data type, litert type: 14\b",
        "the model keeps a state in variable tensors (a fused LSTM, SVDF, or variables), which the compiler refuses",
        f"unroll the recurrent layers or pass the state as input and output; {_CPU}",
    ),
    _rule(
        "tensor-type",
        r"QNN Unsupported data type, litert type: (?P<type>\d+)",
        "a tensor has the data type {type}, which the compiler refuses anywhere in the model, also at ops for the CPU",
        f"keep the part of the model that needs {{type}} outside of it (before or after, in your own code); {_CPU}",
    ),
    _rule(
        "name-clash",
        r"Tensor name (?P<name>.+?) already exists in the graph",
        "two tensors have the name '{name}' for QNN, which writes every special character as '_'",
        "rename one of the tensors, or add an op between an input and the output that it is passed on to",
    ),
    _rule(
        "name-clash",
        r"QNN_TENSOR_ERROR_ALREADY_EXISTS",
        "two tensors have the same name for QNN, which writes every special character as '_'",
        "rename one of the tensors, or add an op between an input and the output that it is passed on to",
    ),
    _rule(
        "pad-value",
        r"Failed to get pad const value data",
        "the value that a PADV2 pads with is not a constant of the padded tensor's data type",
        f"pad with zeros (PAD), or build with another --scheme; {_CPU}",
    ),
    _rule(
        "cannot-create",
        r"\"(?P<name>[^\"]+)\" generated: could not create op",
        "QNN accepted the op of node '{name}' and then could not create it for this chip",
        f"replace or remove that op, or build with another --scheme; {_CPU}",
    ),
    _rule(
        "cannot-create",
        r"could not create op:? ?(?P<name>\S*)",
        "QNN accepted an op ({name}) and then could not create it for this chip",
        f"replace or remove that op, or build with another --scheme; {_CPU}",
    ),
    _rule(
        "cannot-create",
        r"Could not prepare op with id|[Gg]raph prepare failed",
        "QNN accepted the ops and then could not prepare one of them for this chip; its log does not name it",
        f"build with another --scheme, or for another chip; {_CPU}",
    ),
    _rule(
        "node-refused",
        r"Failed to add node into graph, error: (?P<name>\d+)",
        "QNN accepted an op and then refused its node (error {name}), as for int8 weights with float activations",
        f"build with a scheme that quantizes activations too (int8, int16x8), or with floats; {_CPU}",
    ),
    _rule(
        "soc",
        r"Unexpected SoC model: (?P<name>\S+)",
        "the compiler does not know the SoC {name}",
        "give a SoC that edgepack targets lists",
    ),
    _rule(
        "unreadable",
        r"Failed to load model|model allocation is null",
        "the compiler could not read the model",
        "run edgepack check on the file; if it is valid, report an issue",
    ),
)


def failure_of(errors: Sequence[str], stderr: str, exit_code: int, partition: str) -> Failure:
    """Return the cause of a failed compilation.

    Args:
        errors: Error records of LiteRT and QNN.
        stderr: LiteRT's whole log, in which a library's error follows a warning.
        exit_code: The program's exit code, negative for a signal.
        partition: The partition that was being compiled, empty before the first.
    """
    text = "\n".join(errors)
    for rule in _RULES:
        # A library that cannot be loaded is reported in the line after a warning; WebGPU's and the like are optional.
        for line in (text if rule.kind != "library" else _plugin_lines(stderr)).splitlines():
            if match := rule.pattern.search(line):
                groups = {key: value or "" for key, value in match.groupdict().items()}
                name = groups.get("name") or groups.get("other", "")
                number = groups.get("type", "")
                kind = _TENSOR_TYPES.get(int(number), f"number {number}") if number else ""
                failure = Failure(
                    kind=rule.kind,
                    reason=rule.reason.format(name=name, type=kind).replace(" ()", ""),
                    hint=rule.hint.format(name=name, type=kind),
                    message=line.strip(),
                    node=name if rule.kind in ("cannot-create", "name-clash") else "",
                    partition=partition,
                )
                op = re.search(r"LiteRt_OpId_(\d+)$", name)
                return replace(failure, op_index=int(op.group(1))) if op else failure
    words = "; ".join(dict.fromkeys(errors))
    if signal := Completed(exit_code, "", "").signal_name:
        reason = f"the compiler was ended by {signal}"
        return Failure("signal", reason, f"report an issue with the log; {_CPU}", words, partition=partition)
    reason = f"the compiler ended with exit code {exit_code}" + (f": {words}" if words else "")
    return Failure("unknown", reason, f"report an issue with the log; {_CPU}", words, partition=partition)


def _plugin_lines(stderr: str) -> str:
    """Return the lines about loading the plugin or one of QNN's libraries."""
    lines = stderr.splitlines()
    return "\n".join(line for line in lines if line.startswith("└ Could not load") or "Plugin" in line or "Qnn" in line)
