"""Google Coral's `edgetpu_compiler`: int8 .tflite in; out a .tflite with one `edgetpu-custom-op` and the host's ops.

It can also cut a model into segments that run on several Edge TPUs one after the other, and compile several models
together, so that their parameters share one Edge TPU's memory.
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
from edgepack.compilers.base import CompiledOp, CompileRequest, CompileResult, check_options, placements_from_files
from edgepack.compilers.edgetpu_log import (
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
from edgepack.graph.segments import segments_fault

ACCELERATOR_OP = "CUSTOM:edgetpu-custom-op"

_TOOL = tools.Tool(
    name="Edge TPU Compiler",
    program="edgetpu_compiler",
    variable="EDGEPACK_EDGETPU_COMPILER",
    install="install the Debian package edgetpu-compiler (x86-64 Linux; https://coral.ai/docs/edgetpu/compiler/), "
    "or set EDGEPACK_EDGETPU_COMPILER to the program",
    version_pattern=r"Edge TPU Compiler version (\S+)",
)

#: Options of [compiler.options] and their types, with the compiler's flag.
_OPTIONS: dict[str, type] = {
    "runtime_version": int,
    "search_delegate": bool,
    "delegate_search_step": int,
    "multiple_subgraphs": bool,
}
_FLAGS = {
    "runtime_version": "-m",
    "search_delegate": "-d",
    "delegate_search_step": "-k",
    "multiple_subgraphs": "-a",
}

#: Some failures are recorded to pass on a second or third run.
_ATTEMPTS = 3

#: The model's name inside the working folder: what the user called it never meets the compiler's command line.
_STEM = "model"
_SUMMED = ("accelerator_ops", "host_ops", "total_ops", "off_chip_bytes", "output_bytes")


@dataclass(frozen=True)
class _Part:
    """A file that the compiler is expected to write.

    Attributes:
        stem: Its name in the working folder, without ending.
        filename: Its name for the user.
    """

    stem: str
    filename: str


@dataclass(frozen=True)
class _File:
    """A file that it wrote, read."""

    data: bytes
    model: Model
    log: str


@dataclass(frozen=True)
class _Made:
    """A run that passed every test: one file for each part."""

    files: tuple[_File, ...]
    done: tools.Completed


class EdgeTpuCompiler:
    """Wrapper around `edgetpu_compiler`, found by EDGEPACK_EDGETPU_COMPILER or on PATH."""

    id = "edgetpu"
    divides = True

    def find(self) -> tools.ToolInfo:
        """Return whether the compiler is there and its version."""
        return tools.find(_TOOL)

    def compile(self, request: CompileRequest, timeout: float = 600.0) -> CompileResult:
        """Compile an int8 or uint8 model.

        Success needs exit code 0, readable output files and the success line, all three. Failures that are recorded as
        passing later are tried up to three times within `timeout`.

        Args:
            request: The model; `socs` is ignored, there is one Edge TPU.
            timeout: Seconds for all attempts together.

        Returns:
            `compiled` with `NAME_edgetpu.tflite`, or `NAME_segment_I_of_N_edgetpu.tflite` in order, and
            `OTHER_edgetpu.tflite` of each companion; placements from the operation logs and figures in bytes and
            counts. `skipped` when the compiler is not installed.

        Raises:
            UsageError: Unknown option, or segments and companions that cannot be.
            UnfitModelError: A companion is not a model that can be compiled.
            ToolMissingError: EDGEPACK_EDGETPU_COMPILER is set to something that is not a program.
            CompilerError: The compiler failed, or took too long.
        """
        check_options(request.options, _OPTIONS, self.id)
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
            if isinstance(outcome, _Made):
                return _result(request, outcome)
            failure, done = outcome
            if not failure.flaky or attempt == _ATTEMPTS or time.monotonic() >= deadline:
                break
        tried = f" (tried {attempt} times)" if attempt > 1 else ""
        raise CompilerError(
            f"{failure.message}{_whose(request, done.output)}{tried}",
            hint=failure.fix,
            details={
                "cause": failure.cause,
                "exit_code": done.exit_code,
                "attempts": attempt,
                "log_tail": tools.tail(done.output),
            },
        )


# -- the request -------------------------------------------------------------------------------------------------------


def _check_companions(request: CompileRequest) -> None:
    names = Counter([request.name, *(companion.name for companion in request.companions)])
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UsageError(f"--co-compile: two models are called '{twice[0]}'", hint="rename a file, or give --name")
    for companion in request.companions:
        model = read_model(companion.model)
        if any(op.label == ACCELERATOR_OP for op in model.main.ops):
            raise UnfitModelError(
                f"--co-compile: '{companion.name}' was compiled already",
                hint="give the file that it was compiled from: NAME.tflite in model/ of its bundle, or that bundle",
            )
        if not model.is_quantized:
            raise UnfitModelError(
                f"--co-compile: '{companion.name}' is not quantized, and the Edge TPU takes 8-bit integers only",
                hint="build it with -t edgetpu and samples first, and give that bundle",
            )


def _check_segments(request: CompileRequest) -> None:
    if request.segments < 2:
        raise UsageError(f"--segments: expected 2 or more, got {request.segments}")
    if request.companions:
        raise UsageError(
            "--segments and --co-compile do not go together: segments have an Edge TPU each, co-compiled models share "
            "one"
        )
    ops = len(read_model(request.model).main.ops)
    if request.segments > ops:
        raise UsageError(
            f"--segments: the model has {ops} op{'' if ops == 1 else 's'}, which cannot be cut into {request.segments} "
            "segments",
            hint=f"give at most {ops}" if ops > 1 else "leave --segments out",
        )


def _parts(request: CompileRequest) -> list[_Part]:
    if request.segments:
        places = [f"segment_{i}_of_{request.segments}" for i in range(request.segments)]
        return [_Part(f"{_STEM}_{place}", f"{request.name}_{place}_edgetpu.tflite") for place in places]
    stems = {_STEM: request.name} | {f"with_{i}": other.name for i, other in enumerate(request.companions)}
    return [_Part(stem, f"{name}_edgetpu.tflite") for stem, name in stems.items()]


def _arguments(request: CompileRequest, timeout: float) -> list[str]:
    # The compiler's own timer (180 s by default) must not end before ours, whose message says what happened.
    arguments = ["-o", ".", "-t", str(int(timeout) + 5)]
    for name, flag in _FLAGS.items():
        value = request.options.get(name)
        if value is True:
            arguments.append(flag)
        elif value not in (None, False):
            arguments += [flag, str(value)]
    if request.segments:
        arguments += ["-n", str(request.segments)]
    # The first model's parameters are cached first.
    return [*arguments, f"{_STEM}.tflite", *(f"with_{i}.tflite" for i in range(len(request.companions)))]


# -- a run -------------------------------------------------------------------------------------------------------------


def _attempt(program: Path, request: CompileRequest, timeout: float) -> _Made | tuple[Failure, tools.Completed]:
    with tempfile.TemporaryDirectory(prefix="edgepack-edgetpu-") as name:
        folder = Path(name)
        (folder / f"{_STEM}.tflite").write_bytes(request.model)
        for number, companion in enumerate(request.companions):
            (folder / f"with_{number}.tflite").write_bytes(companion.model)
        done = tools.run([str(program), *_arguments(request, timeout)], cwd=folder, timeout=timeout, name=_TOOL.name)
        # Logs go to people and into error details; where this machine keeps temporary files is nobody's business.
        done = replace(done, stdout=done.stdout.replace(name, "."), stderr=done.stderr.replace(name, "."))
        if done.exit_code != 0 or not succeeded(done.output, max(1, request.segments)):
            return failure_of(done.output, done.exit_code, done.signal_name), done
        files = []
        for part in _parts(request):
            read = _read(folder, part)
            if isinstance(read, Failure):
                return read, done
            files.append(read)
        if request.segments and (fault := segments_fault(read_model(request.model), [file.model for file in files])):
            return Failure("broken-pipeline", f"the segments do not fit together: {fault}", "take fewer segments"), done
        return _Made(tuple(files), done)


def _read(folder: Path, part: _Part) -> _File | Failure:
    made = folder / f"{part.stem}_edgetpu.tflite"
    if not made.is_file():
        return _no_file(f"the Edge TPU compiler says it succeeded but wrote no {part.filename}")
    data = made.read_bytes()
    try:
        model = read_model(data)
    except ModelFileError as error:
        return _no_file(f"the Edge TPU compiler says it succeeded but its file is not whole: {error.message}")
    log = folder / f"{part.stem}_edgetpu.log"
    return _File(data, model, log.read_text("utf-8", "replace") if log.is_file() else "")


def _no_file(message: str) -> Failure:
    return Failure("no-file", message, "check the free space of the temporary folder (TMPDIR) and build again")


def _whose(request: CompileRequest, output: str) -> str:
    """Return which of several models the compiler complains about, where it says so."""
    match = re.search(r"Invalid model: \S*?with_(\d+)\.tflite", output)
    if match and int(match.group(1)) < len(request.companions):
        return f" (the model '{request.companions[int(match.group(1))].name}' of --co-compile)"
    return ""


# -- the result --------------------------------------------------------------------------------------------------------


def _result(request: CompileRequest, made: _Made) -> CompileResult:
    parts = _parts(request)
    count = request.segments or 1
    mine, others = made.files[:count], made.files[count:]
    from_file = placements_from_files(read_model(request.model), [file.model for file in mine], ACCELERATOR_OP)
    from_log = _merged([row for file in mine for row in placements_in(file.log)])
    placements = from_log or from_file
    figures = _figures(request, made, placements)
    warnings = []
    custom = sum(1 for file in mine for op in file.model.main.ops if op.label == ACCELERATOR_OP)
    accelerated = _count(placements, Placement.ACCELERATOR)
    if figures["accelerator_ops"] == 0 or custom == 0:
        warnings.append(
            "the Edge TPU compiler succeeded but mapped no op to the Edge TPU: the whole model runs on the host's CPU"
        )
    elif from_log and accelerated != _count(from_file, Placement.ACCELERATOR):
        warnings.append(
            f"the compiler's log has {accelerated} ops on the Edge TPU, its file "
            f"{_count(from_file, Placement.ACCELERATOR)}: the log is shown"
        )
    for number, file in enumerate(mine if request.segments else ()):
        if custom and all(op.label != ACCELERATOR_OP for op in file.model.main.ops):
            warnings.append(f"segment {number} has no op on the Edge TPU: fewer segments do as well")
    if figures.get("off_chip_bytes"):
        warnings.append(
            f"{figures['off_chip_bytes']} bytes of parameters do not fit on the chip and are sent to it at every run"
        )
    return CompileResult(
        status="compiled",
        tool=_TOOL.name,
        version=version_in(made.done.stdout),
        files={part.filename: file.data for part, file in zip(parts, made.files, strict=True)},
        segments=tuple(part.filename for part in parts) if request.segments else (),
        companions=tuple(part.filename for part in parts[count:]) if others else (),
        placements=placements,
        figures=figures,
        warnings=tuple(warnings),
        log_text="\n\n".join([made.done.output, *(file.log for file in made.files)]).strip() + "\n",
    )


def _figures(request: CompileRequest, made: _Made, placements: tuple[CompiledOp, ...]) -> dict[str, Any]:
    """Return the figures of the model; those of segments and companions one by one as well."""
    parts = _parts(request)
    reported = figures_of_each(made.done.stdout)
    each = []
    for part, file in zip(parts, made.files, strict=True):
        found = dict(reported.get(f"{part.stem}.tflite", {}))
        rows = placements_in(file.log)
        # The two counts are only printed when some op stays on the host.
        if rows:
            found.setdefault("accelerator_ops", _count(rows, Placement.ACCELERATOR))
            found.setdefault("host_ops", _count(rows, Placement.HOST))
        found["output_bytes"] = len(file.data)
        each.append(found)
    if request.segments:
        figures = {key: sum(one[key] for one in each) for key in _SUMMED if all(key in one for one in each)}
        figures["segments"] = [dict(sorted(one.items())) for one in each]
    else:
        figures = dict(each[0])
    figures.setdefault("accelerator_ops", _count(placements, Placement.ACCELERATOR))
    figures.setdefault("host_ops", _count(placements, Placement.HOST))
    if request.companions:
        named = zip(request.companions, each[1:], strict=True)
        figures["co_compiled"] = {companion.name: dict(sorted(one.items())) for companion, one in named}
    if "runtime_version" in request.options:
        figures["runtime_version"] = request.options["runtime_version"]
    return dict(sorted(figures.items()))


def _merged(rows: Sequence[CompiledOp]) -> tuple[CompiledOp, ...]:
    """Return rows with those of the same op and status added up, sorted as one log's."""
    counts = Counter[tuple[str, Placement, str, str]]()
    for row in rows:
        counts[row.op, row.placement, row.status, row.code] += row.count
    merged = [CompiledOp(op, count, where, status, code) for (op, where, status, code), count in counts.items()]
    return tuple(sorted(merged, key=lambda row: (row.op, row.placement is Placement.HOST, row.status)))


def _count(placements: Sequence[CompiledOp], placement: Placement) -> int:
    return sum(row.count for row in placements if row.placement is placement)
