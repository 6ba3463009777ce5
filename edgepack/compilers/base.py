"""The interface of compiler wrappers, and the comparison of their placement with the check's."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from edgepack.errors import UsageError
from edgepack.findings import OpFinding, Placement
from edgepack.graph import Model
from edgepack.latency_estimate import LatencyEstimate
from edgepack.tools import ToolInfo

Status = Literal["compiled", "skipped", "failed"]


@dataclass(frozen=True)
class Companion:
    """A model that is compiled together with another and shares the accelerator's memory with it.

    Attributes:
        name: Its file name without the suffix.
        model: Bytes of its quantized .tflite.
    """

    name: str
    model: bytes = field(repr=False)


@dataclass(frozen=True)
class CompileRequest:
    """A model to compile, with its options.

    Attributes:
        model: Bytes of the quantized .tflite.
        name: Stem of the output file names (`digits` gives `digits_edgetpu.tflite`).
        scheme: Id of the file's quantization scheme.
        options: The profile's `[compiler.options]`; the wrapper refuses unknown ones.
        socs: SoCs to compile for (`SM8550`), for compilers that compile per SoC.
        companions: Models to compile together with this one; only for wrappers with `supports_segments`.
        segments: Number of pipelined segments to split the model into, one per accelerator; 0 for the whole model. Only
            for wrappers with `supports_segments`.
        external_state: True when the compiler refuses resource variables, which are then kept outside of what it
            compiles (`edgepack.compilers.compile_model`).
    """

    model: bytes = field(repr=False)
    name: str
    scheme: str
    options: Mapping[str, Any] = field(default_factory=dict)
    socs: tuple[str, ...] = ()
    companions: tuple[Companion, ...] = ()
    segments: int = 0
    external_state: bool = False


@dataclass(frozen=True)
class CompiledOp:
    """The compiler's placement of an op, or of several ops of one kind with the same status.

    Attributes:
        op: TFLite builtin name, or `CUSTOM:name`, as in `OpFinding.op`.
        count: Number of ops.
        placement: Where they run.
        status: The compiler's status text.
        code: Reason code of ops that are not on the accelerator, the check's where there is one; empty for the others.
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
    """The output of a compiler, or the reason why there is none.

    Attributes:
        status: `compiled`, or `skipped` when the tool is missing. A wrapper raises instead of returning `failed`.
        tool: The compiler's name.
        version: Its version, empty when it was not found.
        reason: Why it was skipped, one sentence; empty when compiled.
        hint: What to do about it.
        files: Contents by file name; only files that were verified to be complete.
        segments: Names of the files of a pipeline, in order; empty for a whole model.
        companions: Names of the files of the request's companions.
        chips: SoC that a file was compiled for, by file name; empty for compilers that do not compile per SoC.
        placements: The compiler's placement of the ops, None when it does not report one.
        figures: Figures that the compiler reports, as JSON values: bytes and counts but no times of the compilation, so
            that the same input gives the same figures.
        latency: The compiler's own estimate of an inference, None when it makes none. It is computed from the compiled
            program and not measured, so that the same input gives the same estimate.
        warnings: Sentences for people about a compilation that succeeded with an unexpected result.
        log_text: The compiler's output, for people; it may contain times and must not be written to a bundle.
    """

    status: Status
    tool: str
    version: str = ""
    reason: str = ""
    hint: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    segments: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    chips: Mapping[str, str] = field(default_factory=dict)
    placements: tuple[CompiledOp, ...] | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    latency: LatencyEstimate | None = None
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
        if self.latency is not None:
            document["latency"] = self.latency.to_json()
        if self.warnings:
            document["warnings"] = list(self.warnings)
        if self.placements is not None:
            document["ops"] = [op.to_json() for op in self.placements]
        return document


class Compiler(Protocol):
    """A wrapper around one vendor's compiler; entry points of `edgepack.compilers` name classes that implement this.

    Attributes:
        id: Key in profiles: `[compiler] id`.
        supports_segments: True when the compiler can split a model into pipelined segments and compile several models
            together. Other wrappers never receive a request with `segments` or `companions`. The registry adds the
            default to a wrapper without the attribute.
        supports_simulation: True when the wrapper can run its files without the accelerator: it then has the methods of
            `edgepack.compilers.simulator.SimulatingCompiler`. The registry adds the default as well.
    """

    id: str
    supports_segments: bool = False
    supports_simulation: bool = False

    def find(self) -> ToolInfo:
        """Return whether the tool is installed; never raises for a missing or broken tool."""
        ...

    def compile(self, request: CompileRequest, timeout: float = ...) -> CompileResult:
        """Compile one model.

        Args:
            request: What to compile.
            timeout: Seconds for all attempts together.

        Returns:
            Status `compiled` with the files, or `skipped` with reason and hint when the tool is not installed.

        Raises:
            UsageError: The compiler does not know an option or a SoC.
            ToolMissingError: The user's path of the tool is wrong.
            CompilerError: The compiler failed; `details` contain the end of its log.
        """
        ...


@dataclass(frozen=True)
class Difference:
    """An op, or a kind of op, that the check and the compiler place differently, or for different reasons.

    Attributes:
        op: TFLite builtin name, or `CUSTOM:name`.
        ours: Number of ops that the check places on the accelerator.
        theirs: Number of ops that the compiler places there.
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
    """Compare the check's placement with the compiler's.

    When the compiler names each op's output, ops are compared one by one. Otherwise the numbers of accelerated ops are
    compared for each kind of op, because the log contains nothing else. Ops that both place on the host are compared by
    reason code, when the compiler's is one that the check reports as well.

    Args:
        ours: Findings of the check for the file that was compiled.
        theirs: The compiler's placements.

    Returns:
        The differences, sorted by op and output; empty when both agree.
    """
    findings, compiled = list(ours), list(theirs)
    if compiled and all(op.output for op in compiled):
        return _compare_one_by_one(findings, compiled)
    if any(row.op == "CUSTOM" for row in compiled):
        # Some logs do not name the custom op.
        findings = [replace(f, op="CUSTOM") if f.op.startswith("CUSTOM:") else f for f in findings]
    mine = Counter(finding.op for finding in findings if finding.placement is Placement.ACCELERATOR)
    its = Counter[str]()
    for row in compiled:
        its[row.op] += row.count if row.placement is Placement.ACCELERATOR else 0
    differences = []
    for op in sorted({*mine, *its}):
        if mine[op] != its[op]:
            statuses = [f"{row.count} x {row.status}" for row in compiled if row.op == op and row.status]
            detail = f" ({', '.join(sorted(statuses))})" if statuses else ""
            message = f"{op}: the check places {mine[op]} on the accelerator, the compiler {its[op]}{detail}"
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


#: Codes of compilers that are too unspecific to compare with the check's.
_UNSPECIFIC = ("", "left-by-compiler", "unknown-status", "unspecified-limitation")


def _agrees(finding: OpFinding, row: CompiledOp) -> bool:
    """Return whether the check's reasons include the compiler's; `dtype` stands for every reason about data types.

    For a custom op compilers examine the data types only, so any reason of the check agrees.
    """
    if row.code in _UNSPECIFIC or finding.op.startswith("CUSTOM"):
        return True
    codes = {reason.code for reason in finding.reasons}
    return row.code in codes or (row.code == "dtype" and any("dtype" in code or code == "float-io" for code in codes))


def _reasons(findings: Iterable[OpFinding]) -> str:
    codes = sorted({reason.code for finding in findings for reason in finding.reasons})
    return f"the check's reason is {' and '.join(codes)}"


def _compare_one_by_one(findings: list[OpFinding], compiled: list[CompiledOp]) -> tuple[Difference, ...]:
    # An op without a result assigns a variable or initializes one, which no accelerator does.
    mine = {finding.output: finding for finding in findings if finding.output}
    its = {row.output: row for row in compiled}
    differences = []
    for output in {*mine, *its}:
        finding, row = mine.get(output), its.get(output)
        left = finding is not None and finding.placement is Placement.UNSUPPORTED
        if left and row is not None and row.placement is Placement.HOST:
            # A compiler leaves an op on the host without knowing whether the host's runtime has it.
            continue
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
    """Count the ops that the compiler mapped, from those that are left in its output.

    Applies to compilers that copy host ops unchanged and replace the others by custom ops of their own.

    Args:
        source: The file that was compiled.
        compiled: The compiler's output: a file, or its segments.
        accelerator_op: Label of the custom op for the compiled part (`CUSTOM:edgetpu-custom-op`).

    Returns:
        Rows sorted by op, the accelerator's first.
    """
    before = Counter(op.label for op in source.main.ops)
    parts = (compiled,) if isinstance(compiled, Model) else compiled
    after = Counter(op.label for part in parts for op in part.main.ops if op.label != accelerator_op)
    rows = []
    for label in sorted(before):
        left = min(after[label], before[label])
        if mapped := before[label] - left:
            rows.append(CompiledOp(label, mapped, Placement.ACCELERATOR, "not in the compiled file"))
        if left:
            rows.append(CompiledOp(label, left, Placement.HOST, "left in the compiled file", code="left-by-compiler"))
    return tuple(rows)


def count_ops(placements: Iterable[CompiledOp], placement: Placement) -> int:
    """Return the number of ops with a placement."""
    return sum(row.count for row in placements if row.placement is placement)


def check_options(options: Mapping[str, Any], known: Mapping[str, type], compiler: str) -> None:
    """Refuse options that a compiler wrapper does not know or that have the wrong type.

    Raises:
        UsageError: An option is unknown or has the wrong type; the message lists all such options.
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
