"""Google Coral's `edgetpu_compiler`: compiles an int8 .tflite to one with `edgetpu-custom-op` and the host's ops.

The compiler can also split a model into pipelined segments for several Edge TPUs, and compile several models together,
so that their parameters share one Edge TPU's memory.
"""

import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack import tools
from edgepack.compilers.base import (
    CompiledOp,
    CompileRequest,
    CompileResult,
    check_options,
    count_ops,
    placements_from_files,
)
from edgepack.compilers.edgetpu_log import (
    VERSION_PATTERN,
    Failure,
    failure_of,
    figures_of_each,
    placements_in,
    succeeded,
    version_in,
)
from edgepack.errors import CompilerError, ModelFileError, UnfitModelError, UsageError
from edgepack.findings import Placement
from edgepack.graph import Model, read_model
from edgepack.graph.custom_ops import EDGETPU_OP
from edgepack.graph.segments import segments_fault

ACCELERATOR_OP = f"CUSTOM:{EDGETPU_OP}"

_TOOL = tools.Tool(
    name="Edge TPU Compiler",
    program="edgetpu_compiler",
    variable="EDGEPACK_EDGETPU_COMPILER",
    install="install the Debian package edgetpu-compiler (x86-64 Linux; https://coral.ai/docs/edgetpu/compiler/), "
    "or set EDGEPACK_EDGETPU_COMPILER to the program",
    version_pattern=VERSION_PATTERN,
)

#: Options of [compiler.options]: type and the compiler's flag.
_OPTIONS: dict[str, tuple[type, str]] = {
    "runtime_version": (int, "-m"),
    "search_delegate": (bool, "-d"),
    "delegate_search_step": (int, "-k"),
    "multiple_subgraphs": (bool, "-a"),
}

#: Some failures are known to disappear on a second or third run.
_ATTEMPTS = 3

#: The model's name in the working folder; the user's name for it is never on the compiler's command line.
_STEM = "model"
_SUMMED = ("accelerator_ops", "host_ops", "total_ops", "off_chip_bytes", "output_bytes")


@dataclass(frozen=True)
class _Expected:
    """A file that the compiler should write.

    Attributes:
        stem: Stem of its name in the working folder.
        filename: Its name for the user.
    """

    stem: str
    filename: str


@dataclass(frozen=True)
class _CompiledFile:
    """A file that the compiler wrote, with its operation log."""

    data: bytes
    model: Model
    log: str


@dataclass(frozen=True)
class _Run:
    """A verified run: one file for each expected one."""

    files: tuple[_CompiledFile, ...]
    completed: tools.Completed


class EdgeTpuCompiler:
    """Wrapper around `edgetpu_compiler`, found by EDGEPACK_EDGETPU_COMPILER or on PATH."""

    id = "edgetpu"
    supports_segments = True

    def find(self) -> tools.ToolInfo:
        """Return whether the compiler is installed and its version."""
        return tools.find(_TOOL)

    def compile(self, request: CompileRequest, timeout: float = 600.0) -> CompileResult:
        """Compile an int8 or uint8 model.

        Success requires exit code 0, readable output files and the success line. Failures that are known to disappear
        are retried, with up to three attempts within `timeout`.

        Args:
            request: The model; `socs` is ignored, because there is only one Edge TPU.
            timeout: Seconds for all attempts together.

        Returns:
            `compiled` with `NAME_edgetpu.tflite`, or `NAME_segment_I_of_N_edgetpu.tflite` in order, and
            `OTHER_edgetpu.tflite` of each companion; placements from the operation logs and figures in bytes and
            counts. `skipped` when the compiler is not installed.

        Raises:
            UsageError: An option is unknown, or segments or companions are invalid.
            UnfitModelError: A companion cannot be compiled.
            ToolMissingError: EDGEPACK_EDGETPU_COMPILER is not the path of a program.
            CompilerError: The compiler failed or exceeded `timeout`.
        """
        check_options(request.options, {name: kind for name, (kind, _) in _OPTIONS.items()}, self.id)
        _check_companions(request)
        if request.segments:
            _check_segments(request)
        program = tools.locate(_TOOL)
        if program is None:
            return CompileResult(
                status="skipped",
                tool=_TOOL.name,
                reason=f"{_TOOL.program} is not installed, so the model runs on the host's CPU",
                hint=_TOOL.install,
            )
        deadline = time.monotonic() + timeout
        for attempt in range(1, _ATTEMPTS + 1):
            outcome = _attempt(program, request, max(0.1, deadline - time.monotonic()))
            if isinstance(outcome, _Run):
                return _result(request, outcome)
            failure, completed = outcome
            if not failure.flaky or attempt == _ATTEMPTS or time.monotonic() >= deadline:
                break
        attempts = f" (in {attempt} attempts)" if attempt > 1 else ""
        raise CompilerError(
            f"{failure.message}{_refused_companion(request, completed.output)}{attempts}",
            hint=failure.fix,
            details={
                "cause": failure.cause,
                "exit_code": completed.exit_code,
                "attempts": attempt,
                "log_tail": tools.tail(completed.output),
            },
        )


# -- the request -------------------------------------------------------------------------------------------------------


def _check_companions(request: CompileRequest) -> None:
    names = Counter([request.name, *(companion.name for companion in request.companions)])
    repeated = [name for name, count in names.items() if count > 1]
    if repeated:
        raise UsageError(f"--co-compile: two models have the name '{repeated[0]}'", hint="rename a file, or set --name")
    for companion in request.companions:
        model = read_model(companion.model)
        if any(op.label == ACCELERATOR_OP for op in model.main.ops):
            raise UnfitModelError(
                f"--co-compile: '{companion.name}' is already compiled",
                hint="pass the file that it was compiled from (NAME.tflite in model/ of its bundle), or that bundle",
            )
        if not model.is_quantized:
            raise UnfitModelError(
                f"--co-compile: '{companion.name}' is not quantized, and the Edge TPU supports only 8-bit integers",
                hint="build it with -t edgetpu and samples first, and pass that bundle",
            )


def _check_segments(request: CompileRequest) -> None:
    if request.segments < 2:
        raise UsageError(f"--segments: expected 2 or more, got {request.segments}")
    if request.companions:
        raise UsageError(
            "--segments and --co-compile exclude each other: each segment has an Edge TPU of its own, co-compiled "
            "models share one"
        )
    ops = len(read_model(request.model).main.ops)
    if request.segments > ops:
        raise UsageError(
            f"--segments: the model has {ops} op{'' if ops == 1 else 's'}, too few for {request.segments} segments",
            hint=f"use at most {ops}" if ops > 1 else "omit --segments",
        )


def _expected(request: CompileRequest) -> list[_Expected]:
    if request.segments:
        segments = [f"segment_{i}_of_{request.segments}" for i in range(request.segments)]
        return [_Expected(f"{_STEM}_{name}", f"{request.name}_{name}_edgetpu.tflite") for name in segments]
    stems = {_STEM: request.name} | {f"with_{i}": other.name for i, other in enumerate(request.companions)}
    return [_Expected(stem, f"{name}_edgetpu.tflite") for stem, name in stems.items()]


def _arguments(request: CompileRequest, timeout: float) -> list[str]:
    # The compiler's own timer (180 s by default) must not end before ours, which has the better message.
    arguments = ["-o", ".", "-t", str(int(timeout) + 5)]
    for name, (_, flag) in _OPTIONS.items():
        value = request.options.get(name)
        if value is True:
            arguments.append(flag)
        elif value not in (None, False):
            arguments += [flag, str(value)]
    if request.segments:
        arguments += ["-n", str(request.segments)]
    # The compiler caches the parameters of the first model first.
    return [*arguments, f"{_STEM}.tflite", *(f"with_{i}.tflite" for i in range(len(request.companions)))]


# -- a run -------------------------------------------------------------------------------------------------------------


def _attempt(program: Path, request: CompileRequest, timeout: float) -> _Run | tuple[Failure, tools.Completed]:
    with tempfile.TemporaryDirectory(prefix="edgepack-edgetpu-") as name:
        folder = Path(name)
        (folder / f"{_STEM}.tflite").write_bytes(request.model)
        for number, companion in enumerate(request.companions):
            (folder / f"with_{number}.tflite").write_bytes(companion.model)
        raw = tools.run(
            [str(program), *_arguments(request, timeout)],
            cwd=folder,
            timeout=timeout,
            env={"TMPDIR": name},
            name=_TOOL.name,
            writable=(folder,),
        )
        # Logs are shown and go into error details, which must not contain paths of this machine.
        completed = replace(raw, stdout=raw.stdout.replace(name, "."), stderr=raw.stderr.replace(name, "."))
        if completed.exit_code != 0 or not succeeded(completed.output, max(1, request.segments)):
            return failure_of(completed.output, completed.exit_code, completed.signal_name), completed
        files = []
        for expected in _expected(request):
            file = _read(folder, expected)
            if isinstance(file, Failure):
                return file, completed
            files.append(file)
        if request.segments and (fault := segments_fault(read_model(request.model), [file.model for file in files])):
            message = f"the segments do not form the model: {fault}"
            return Failure("broken-pipeline", message, "use fewer segments"), completed
        return _Run(tuple(files), completed)


def _read(folder: Path, expected: _Expected) -> _CompiledFile | Failure:
    path = folder / f"{expected.stem}_edgetpu.tflite"
    if not path.is_file():
        return _no_file(f"the Edge TPU compiler reported success but wrote no {expected.filename}")
    data = path.read_bytes()
    try:
        model = read_model(data)
    except ModelFileError as error:
        return _no_file(f"the Edge TPU compiler reported success but its file is incomplete: {error.message}")
    log = folder / f"{expected.stem}_edgetpu.log"
    return _CompiledFile(data, model, log.read_text("utf-8", "replace") if log.is_file() else "")


def _no_file(message: str) -> Failure:
    return Failure("no-file", message, "check the free space of the temporary folder (TMPDIR), then build again")


def _refused_companion(request: CompileRequest, output: str) -> str:
    """Return " (the model ...)" when the compiler names a companion as invalid, else an empty string."""
    match = re.search(r"Invalid model: \S*?with_(\d+)\.tflite", output)
    if match and int(match.group(1)) < len(request.companions):
        return f" (the model '{request.companions[int(match.group(1))].name}' of --co-compile)"
    return ""


# -- the result --------------------------------------------------------------------------------------------------------


def _result(request: CompileRequest, run: _Run) -> CompileResult:
    expected = _expected(request)
    count = request.segments or 1
    own, companions = run.files[:count], run.files[count:]
    from_file = placements_from_files(read_model(request.model), [file.model for file in own], ACCELERATOR_OP)
    from_log = _merged([row for file in own for row in placements_in(file.log)])
    placements = from_log or from_file
    figures = _figures(request, run, placements)
    warnings = []
    custom = sum(1 for file in own for op in file.model.main.ops if op.label == ACCELERATOR_OP)
    accelerated = count_ops(placements, Placement.ACCELERATOR)
    if figures["accelerator_ops"] == 0 or custom == 0:
        warnings.append(
            "the Edge TPU compiler succeeded but mapped no op to the Edge TPU: the whole model runs on the host's CPU"
        )
    elif from_log and accelerated != (in_file := count_ops(from_file, Placement.ACCELERATOR)):
        warnings.append(
            f"the compiler's log has {accelerated} ops on the Edge TPU, its file {in_file}: the log's numbers are shown"
        )
    for number, file in enumerate(own if request.segments else ()):
        if custom and all(op.label != ACCELERATOR_OP for op in file.model.main.ops):
            warnings.append(f"segment {number} has no op on the Edge TPU: fewer segments are enough")
    if streamed := figures.get("off_chip_bytes"):
        warnings.append(f"{streamed} bytes of parameters do not fit on the chip and are streamed in every inference")
    return CompileResult(
        status="compiled",
        tool=_TOOL.name,
        version=version_in(run.completed.stdout),
        files={entry.filename: file.data for entry, file in zip(expected, run.files, strict=True)},
        segments=tuple(entry.filename for entry in expected) if request.segments else (),
        companions=tuple(entry.filename for entry in expected[count:]) if companions else (),
        placements=placements,
        figures=figures,
        warnings=tuple(warnings),
        log_text="\n\n".join([run.completed.output, *(file.log for file in run.files)]).strip() + "\n",
    )


def _figures(request: CompileRequest, run: _Run, placements: tuple[CompiledOp, ...]) -> dict[str, Any]:
    """Return the figures of the model, with those of each segment and companion."""
    reported = figures_of_each(run.completed.stdout)
    each = []
    for entry, file in zip(_expected(request), run.files, strict=True):
        own = dict(reported.get(f"{entry.stem}.tflite", {}))
        rows = placements_in(file.log)
        # The compiler prints the two counts only when some op runs on the host.
        if rows:
            _add_counts(own, rows)
        own["output_bytes"] = len(file.data)
        each.append(own)
    if request.segments:
        figures = {key: sum(own[key] for own in each) for key in _SUMMED if all(key in own for own in each)}
        figures["segments"] = [dict(sorted(own.items())) for own in each]
    else:
        figures = dict(each[0])
    _add_counts(figures, placements)
    if request.companions:
        pairs = zip(request.companions, each[1:], strict=True)
        figures["co_compiled"] = {companion.name: dict(sorted(own.items())) for companion, own in pairs}
    if "runtime_version" in request.options:
        figures["runtime_version"] = request.options["runtime_version"]
    return dict(sorted(figures.items()))


def _merged(rows: Sequence[CompiledOp]) -> tuple[CompiledOp, ...]:
    """Return the rows with equal ops and statuses added up, sorted as in one log."""
    counts = Counter[tuple[str, Placement, str, str]]()
    for row in rows:
        counts[row.op, row.placement, row.status, row.code] += row.count
    merged = [CompiledOp(op, count, where, status, code) for (op, where, status, code), count in counts.items()]
    return tuple(sorted(merged, key=lambda row: (row.op, row.placement is Placement.HOST, row.status)))


def _add_counts(figures: dict[str, Any], placements: Sequence[CompiledOp]) -> None:
    figures.setdefault("accelerator_ops", count_ops(placements, Placement.ACCELERATOR))
    figures.setdefault("host_ops", count_ops(placements, Placement.HOST))
