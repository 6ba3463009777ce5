"""What every compiler wrapper takes and gives, and how its placement is held against the check's."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from edgepack.errors import UsageError
from edgepack.findings import OpFinding, Placement
from edgepack.graph import Model
from edgepack.tools import ToolInfo

Status = Literal["compiled", "skipped", "failed"]


@dataclass(frozen=True)
class Companion:
    """Another model that shares the accelerator's memory with the one that is compiled.

    Attributes:
        name: Stem of its file.
        model: Bytes of its quantized .tflite.
    """

    name: str
    model: bytes = field(repr=False)


@dataclass(frozen=True)
class CompileRequest:
    """What to compile.

    Attributes:
        model: Bytes of the quantized .tflite.
        name: Stem of the files to make (`digits` gives `digits_edgetpu.tflite`).
        scheme: Id of the scheme the file was quantized with.
        options: The profile's `[compiler.options]`; the wrapper refuses those it does not know.
        socs: Chips to compile for (`SM8550`), for compilers that compile per chip.
        companions: Models to compile together with this one; only for wrappers with `divides`.
        segments: Parts to cut the model into, one per accelerator, 0 for the model as a whole; only for wrappers with
            `divides`.
    """

    model: bytes = field(repr=False)
    name: str
    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)
    socs: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()
    segments: int = 0


@dataclass(frozen=True)
class CompiledOp:
    """Where the compiler put an op, or several ops of one kind with one status.

    Attributes:
        op: TFLite builtin name, or `CUSTOM:name`, as in `OpFinding.op`.
        count: Number of ops.
        placement: Where they run.
        status: The compiler's own words.
        code: Why they are not on the accelerator: the check's reason code where it has one; empty on the accelerator.
        output: Name of the op's first output tensor, when the compiler reports op by op (`count` is then 1).
    """

    op: str
    count: int
    placement: Placement
    status: str = ""
    code: str = ""
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `compile.ops` in JSON."""
        document: dict[str, Any] = {
            "op": self.op,
            "count": self.count,
            "placement": str(self.placement),
            "status": self.status,
            "code": self.code,
        }
        if self.output:
            document["output"] = self.output
        return document


@dataclass(frozen=True)
class CompileResult:
    """What a compiler made, or why it made nothing.

    Attributes:
        status: `compiled`, or `skipped` when the tool is missing. A wrapper never returns `failed`: it raises.
        tool: The compiler's name.
        version: Its version, empty when it was not found.
        reason: Why it was skipped, one sentence; empty when compiled.
        hint: What to do about it.
        files: Contents by file name; only files that were checked to be whole.
        segments: Names of the files that are run one after the other, in order; empty for a model as a whole.
        companions: Names of the files that belong to the request's companions.
        placements: Where the compiler put the ops, None when it does not say.
        figures: What the compiler reports, as JSON values: bytes and counts, no times, so that the same input gives the
            same figures.
        warnings: Sentences for people about a compilation that succeeded but may not be what was wanted.
        log_text: What the compiler printed, for people; it may hold times and must not go into a bundle.
    """

    status: Status
    tool: str
    version: str = ""
    reason: str = ""
    hint: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    segments: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    placements: tuple[CompiledOp, ...] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    log_text: str = field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return the `compile` object of the JSON contract and of the manifest."""
        document: dict[str, Any] = {
            "status": self.status,
            "tool": self.tool,
            "version": self.version,
            "reason": self.reason,
        }
        if self.hint:
            document["hint"] = self.hint
        if self.segments:
            document["segments"] = list(self.segments)
        if self.companions:
            document["companions"] = list(self.companions)
        if self.figures:
            document["figures"] = dict(self.figures)
        if self.warnings:
            document["warnings"] = list(self.warnings)
        if self.placements is not None:
            document["ops"] = [op.to_json() for op in self.placements]
        return document


class Compiler(Protocol):
    """A wrapper around one vendor's compiler; entry points of `edgepack.compilers` name classes that do this.

    Attributes:
        id: Key in profiles: `[compiler] id`.

    A wrapper that can cut a model into segments and compile several models together says so with an attribute
    `divides = True`; one without it never gets a request for that.
    """

    id: str

    def find(self) -> ToolInfo:
        """Return whether the tool is there; never raises for a missing or broken tool."""
        ...

    def compile(self, request: CompileRequest, timeout: float = ...) -> CompileResult:
        """Compile one model.

        Args:
            request: What to compile.
            timeout: Seconds for everything, repetitions included.

        Returns:
            Status `compiled` with the files, or `skipped` with reason and hint when the tool is not installed.

        Raises:
            UsageError: An option or a chip that the compiler does not know.
            ToolMissingError: The user pointed at a tool that is not there.
            CompilerError: The compiler failed; message and hint say why and what to do, `details` hold its log's tail.
        """
        ...


@dataclass(frozen=True)
class Difference:
    """An op, or a kind of op, that the check and the compiler place differently, or for different reasons.

    Attributes:
        op: TFLite builtin name, or `CUSTOM:name`.
        ours: How many the check places on the accelerator.
        theirs: How many the compiler does.
        message: One sentence for people.
        output: Name of the op's first output tensor, when the compiler reports op by op.
    """

    op: str
    ours: int
    theirs: int
    message: str
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "op": self.op,
            "output": self.output,
            "check": self.ours,
            "compiler": self.theirs,
            "message": self.message,
        }


def compare_placements(ours: Iterable[OpFinding], theirs: Iterable[CompiledOp]) -> tuple[Difference, ...]:
    """Hold the check's placement against the compiler's.

    Where the compiler names each op's output, ops are compared one by one; otherwise the numbers of accelerated ops are
    compared for each kind of op, because that is all its log says. Ops that both leave to the host are compared by
    reason code, where the compiler's is one that the check gives as well.

    Args:
        ours: Findings of the check, of the file that was compiled.
        theirs: The compiler's placements.

    Returns:
        The differences, sorted by op and output; empty when both agree.
    """
    findings, compiled = list(ours), list(theirs)
    if compiled and all(op.output for op in compiled):
        return _compare_one_by_one(findings, compiled)
    if any(row.op == "CUSTOM" for row in compiled):
        # Some logs do not say which custom op it was.
        findings = [replace(f, op="CUSTOM") if f.op.startswith("CUSTOM:") else f for f in findings]
    mine = Counter(finding.op for finding in findings if finding.placement is Placement.ACCELERATOR)
    its = Counter[str]()
    for row in compiled:
        its[row.op] += row.count if row.placement is Placement.ACCELERATOR else 0
    differences = []
    for op in sorted({*mine, *its}):
        if mine[op] != its[op]:
            statuses = [f"{row.count} x {row.status}" for row in compiled if row.op == op and row.status]
            said = f" ({', '.join(sorted(statuses))})" if statuses else ""
            message = f"{op}: the check places {mine[op]} on the accelerator, the compiler {its[op]}{said}"
            differences.append(Difference(op, mine[op], its[op], message))
            continue
        host = [finding for finding in findings if finding.op == op and finding.placement is not Placement.ACCELERATOR]
        for row in sorted((row for row in compiled if row.op == op), key=lambda row: row.code):
            if (
                sum(_agrees(finding, row) for finding in host) < row.count
                and row.placement is not Placement.ACCELERATOR
            ):
                message = f"{op}: {_reasons(host)}, the compiler {row.count} x {row.status or row.code}"
                differences.append(Difference(op, mine[op], its[op], message))
    return tuple(differences)


#: Codes of compilers that say too little to be held against the check's: `left-by-compiler` and its like.
_UNTOLD = ("", "left-by-compiler", "unknown-status", "unspecified-limitation")


def _agrees(finding: OpFinding, row: CompiledOp) -> bool:
    """Return whether the check has the compiler's reason among its own; `dtype` is all that is about data types.

    Of a custom op compilers look at the data types only: any reason of the check's is the same.
    """
    if row.code in _UNTOLD or finding.op.startswith("CUSTOM"):
        return True
    codes = {reason.code for reason in finding.reasons}
    return row.code in codes or (row.code == "dtype" and any("dtype" in code or code == "float-io" for code in codes))


def _reasons(findings: Iterable[OpFinding]) -> str:
    codes = sorted({reason.code for finding in findings for reason in finding.reasons})
    return f"the check's reason is {' and '.join(codes)}"


def _compare_one_by_one(findings: list[OpFinding], compiled: list[CompiledOp]) -> tuple[Difference, ...]:
    mine = {finding.output: finding for finding in findings}
    its = {row.output: row for row in compiled}
    differences = []
    for output in {*mine, *its}:
        finding, row = mine.get(output), its.get(output)
        if finding is not None and row is not None and finding.placement is row.placement:
            if finding.placement is Placement.ACCELERATOR or _agrees(finding, row):
                continue
            message = f"{finding.op} '{output}': {_reasons([finding])}, the compiler's {row.status or row.code}"
            differences.append(Difference(finding.op, 0, 0, message, output))
            continue
        op = finding.op if finding is not None else its[output].op
        check = f"on {finding.placement}" if finding is not None else "nowhere"
        compiler = f"on {row.placement}" if row is not None else "nowhere"
        if row is not None and row.status:
            compiler += f" ({row.status})"
        differences.append(
            Difference(
                op=op,
                ours=int(finding is not None and finding.placement is Placement.ACCELERATOR),
                theirs=int(row is not None and row.placement is Placement.ACCELERATOR),
                message=f"{op} '{output}': the check places it {check}, the compiler {compiler}",
                output=output,
            )
        )
    return tuple(sorted(differences, key=lambda difference: (difference.op, difference.output)))


def placements_from_files(
    source: Model, compiled: Model | Sequence[Model], accelerator_op: str
) -> tuple[CompiledOp, ...]:
    """Count what the compiler took, from what it left over.

    Holds for compilers that copy host ops unchanged and replace the others by custom ops of their own.

    Args:
        source: The file that was compiled.
        compiled: The file that was made of it, or its segments.
        accelerator_op: Label of the custom op that stands for the accelerator's part (`CUSTOM:edgetpu-custom-op`).

    Returns:
        Rows sorted by op, the accelerator's first.
    """
    before = Counter(op.label for op in source.main.ops)
    parts = (compiled,) if isinstance(compiled, Model) else compiled
    after = Counter(op.label for part in parts for op in part.main.ops if op.label != accelerator_op)
    rows = []
    for label in sorted(before):
        left = min(after[label], before[label])
        if taken := before[label] - left:
            rows.append(CompiledOp(label, taken, Placement.ACCELERATOR, "not in the compiled file"))
        if left:
            rows.append(CompiledOp(label, left, Placement.HOST, "left in the compiled file", code="left-by-compiler"))
    return tuple(rows)


def check_options(options: Mapping[str, Any], known: Mapping[str, type], compiler: str) -> None:
    """Refuse options that a compiler wrapper does not know or that have another type.

    Raises:
        UsageError: Lists every such option.
    """
    faults = []
    for key, value in sorted(options.items()):
        if key not in known:
            faults.append(f"unknown option '{key}'")
        elif type(value) is not known[key]:
            faults.append(f"option '{key}': expected {known[key].__name__}, got {value!r}")
    if faults:
        raise UsageError(
            f"[compiler.options] of {compiler}: {'; '.join(faults)}",
            hint=f"options are: {', '.join(sorted(known)) or 'none'}",
        )
