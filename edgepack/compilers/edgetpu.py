"""Google Coral's `edgetpu_compiler`: int8 .tflite in; out a .tflite with one `edgetpu-custom-op` and the host's ops."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack import tools
from edgepack.compilers.base import CompiledOp, CompileRequest, CompileResult, check_options, placements_from_files
from edgepack.compilers.edgetpu_log import (
    Failure,
    failure_of,
    figures_in,
    placements_in,
    succeeded,
    version_in,
)
from edgepack.errors import CompilerError, ModelFileError
from edgepack.findings import Placement
from edgepack.graph import Model, read_model

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


@dataclass(frozen=True)
class _Made:
    """A run that passed every test: the file, its model, its log."""

    data: bytes
    model: Model
    log: str
    done: tools.Completed


class EdgeTpuCompiler:
    """Wrapper around `edgetpu_compiler`, found by EDGEPACK_EDGETPU_COMPILER or on PATH."""

    id = "edgetpu"

    def find(self) -> tools.ToolInfo:
        """Return whether the compiler is there and its version."""
        return tools.find(_TOOL)

    def compile(self, request: CompileRequest, timeout: float = 600.0) -> CompileResult:
        """Compile an int8 or uint8 model.

        Success needs exit code 0, a readable output file and the success line, all three. Failures that are recorded as
        passing later are tried up to three times within `timeout`.

        Args:
            request: The model; `socs` is ignored, there is one Edge TPU.
            timeout: Seconds for all attempts together.

        Returns:
            `compiled` with `NAME_edgetpu.tflite`, placements from the operation log and figures in bytes and counts; or
            `skipped` when the compiler is not installed.

        Raises:
            UsageError: Unknown option.
            ToolMissingError: EDGEPACK_EDGETPU_COMPILER is set to something that is not a program.
            CompilerError: The compiler failed, or took too long.
        """
        check_options(request.options, _OPTIONS, self.id)
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
            f"{failure.message}{tried}",
            hint=failure.fix,
            details={
                "cause": failure.cause,
                "exit_code": done.exit_code,
                "attempts": attempt,
                "log_tail": tools.tail(done.output),
            },
        )


def _arguments(options: Mapping[str, Any], timeout: float) -> list[str]:
    # The compiler's own timer (180 s by default) must not end before ours, whose message says what happened.
    arguments = ["-o", ".", "-t", str(int(timeout) + 5)]
    for name, flag in _FLAGS.items():
        value = options.get(name)
        if value is True:
            arguments.append(flag)
        elif value not in (None, False):
            arguments += [flag, str(value)]
    return arguments


def _attempt(program: Path, request: CompileRequest, timeout: float) -> _Made | tuple[Failure, tools.Completed]:
    with tempfile.TemporaryDirectory(prefix="edgepack-edgetpu-") as name:
        folder = Path(name)
        (folder / f"{_STEM}.tflite").write_bytes(request.model)
        done = tools.run(
            [str(program), *_arguments(request.options, timeout), f"{_STEM}.tflite"],
            cwd=folder,
            timeout=timeout,
            name=_TOOL.name,
        )
        # Logs go to people and into error details; where this machine keeps temporary files is nobody's business.
        done = replace(done, stdout=done.stdout.replace(name, "."), stderr=done.stderr.replace(name, "."))
        if done.exit_code != 0 or not succeeded(done.output):
            return failure_of(done.output, done.exit_code, done.signal_name), done
        made = folder / f"{_STEM}_edgetpu.tflite"
        if not made.is_file():
            return _no_file("the Edge TPU compiler says it succeeded but wrote no file"), done
        data = made.read_bytes()
        try:
            model = read_model(data)
        except ModelFileError as error:
            return _no_file(f"the Edge TPU compiler says it succeeded but its file is not whole: {error.message}"), done
        log = folder / f"{_STEM}_edgetpu.log"
        return _Made(data, model, log.read_text("utf-8", "replace") if log.is_file() else "", done)


def _no_file(message: str) -> Failure:
    return Failure("no-file", message, "check the free space of the temporary folder (TMPDIR) and build again")


def _result(request: CompileRequest, made: _Made) -> CompileResult:
    from_file = placements_from_files(read_model(request.model), made.model, ACCELERATOR_OP)
    from_log = placements_in(made.log)
    placements = from_log or from_file
    accelerated = _count(placements, Placement.ACCELERATOR)
    figures = figures_in(made.done.stdout)
    # The two counts are only printed when some op stays on the host.
    figures.setdefault("accelerator_ops", accelerated)
    figures.setdefault("host_ops", _count(placements, Placement.HOST))
    figures["output_bytes"] = len(made.data)
    warnings = []
    custom = sum(1 for op in made.model.main.ops if op.label == ACCELERATOR_OP)
    if figures["accelerator_ops"] == 0 or custom == 0:
        warnings.append(
            "the Edge TPU compiler succeeded but mapped no op to the Edge TPU: the whole model runs on the host's CPU"
        )
    elif from_log and accelerated != _count(from_file, Placement.ACCELERATOR):
        warnings.append(
            f"the compiler's log has {accelerated} ops on the Edge TPU, its file "
            f"{_count(from_file, Placement.ACCELERATOR)}: the log is shown"
        )
    if figures.get("off_chip_bytes"):
        warnings.append(
            f"{figures['off_chip_bytes']} bytes of parameters do not fit on the chip and are sent to it at every run"
        )
    return CompileResult(
        status="compiled",
        tool=_TOOL.name,
        version=version_in(made.done.stdout),
        files={f"{request.name}_edgetpu.tflite": made.data},
        placements=placements,
        figures=dict(sorted(figures.items())),
        warnings=tuple(warnings),
        log_text=f"{made.done.output}\n\n{made.log}".strip() + "\n",
    )


def _count(placements: tuple[CompiledOp, ...], placement: Placement) -> int:
    return sum(row.count for row in placements if row.placement is placement)
