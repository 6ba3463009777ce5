"""Arm's Vela: compiles an int8 .tflite to one with `ethos-u` custom ops, and reports the ops that run on the CPU."""

import csv
import io
import re
import tempfile
from pathlib import Path

from edgepack import tools
from edgepack.compilers import CompiledOp, Compiler, CompileRequest, CompileResult, check_options
from edgepack.errors import CompilerError, ModelFileError
from edgepack.findings import Placement
from edgepack.graph import Model, read_model
from edgepack.latency_estimate import HostLatency, LatencyEstimate

ACCELERATOR_OP = "CUSTOM:ethos-u"

_TOOL = tools.Tool(
    name="Vela",
    program="vela",
    variable="EDGEPACK_VELA",
    install="pip install ethos-u-vela, or set EDGEPACK_VELA to the program",
    from_pip=True,
)
_OPTIONS: dict[str, type] = {
    "accelerator_config": str,
    "config": str,
    "system_config": str,
    "memory_mode": str,
    "optimise": str,
    "arena_cache_size": int,
}

#: Vela's message about an operator that runs on the CPU.
_HOST = re.compile(r"^Warning \(supported operators\) operator: (\S+), ofm: '(.*)'\nReason: (.*)$", re.MULTILINE)
_FIGURES = {
    "sram_kib": r"^Total SRAM used\s+([\d.]+) KiB",
    "dram_kib": r"^Total DRAM used\s+([\d.]+) KiB",
    "flash_kib": r"^Total (?:Off|On)-chip Flash used\s+([\d.]+) KiB",
    "macs": r"^Neural network macs\s+(\d+)",
    "cpu_operators": r"^CPU operators = (\d+)",
    "npu_operators": r"^NPU operators = (\d+)",
}


class VelaCompiler(Compiler):
    """Wrapper around the program `vela` of the package ethos-u-vela."""

    id = "vela"

    def find(self) -> tools.ToolInfo:
        """Return whether Vela is installed and its version."""
        return tools.find(_TOOL)

    def compile(self, request: CompileRequest, timeout: float = 600.0) -> CompileResult:
        """Compile for the configuration in the profile's options.

        Args:
            request: The model; `socs` is ignored.
            timeout: Seconds.

        Returns:
            `compiled` with `NAME_vela.tflite`, and a placement for every op; or `skipped` without Vela.

        Raises:
            UsageError: An option is unknown.
            ToolMissingError: EDGEPACK_VELA is not the path of a program.
            CompilerError: Vela failed.
        """
        check_options(request.options, _OPTIONS, self.id)
        program = tools.locate(_TOOL)
        if program is None:
            return CompileResult("skipped", _TOOL.name, reason="vela is not installed", hint=_TOOL.install)
        arguments = [
            text
            for name, value in sorted(request.options.items())
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        with tempfile.TemporaryDirectory(prefix="edgepack-vela-") as name:
            folder = Path(name)
            (folder / "model.tflite").write_bytes(request.model)
            completed = tools.run(
                [str(program), "model.tflite", "--output-dir", ".", *arguments],
                cwd=folder,
                timeout=timeout,
                name=_TOOL.name,
            )
            output = folder / "model_vela.tflite"
            if completed.exit_code != 0 or not output.is_file():
                raise _failure(completed)
            data = output.read_bytes()
            summaries = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("model_summary_*.csv"))]
        try:
            compiled = read_model(data)
        except ModelFileError as error:
            raise CompilerError(f"Vela wrote an incomplete file: {error.message}", hint="build again") from error
        placements, warnings = placements_of(read_model(request.model), compiled, completed.output)
        version = tools.version_of(_TOOL, program)
        hosted = sum(row.placement is Placement.HOST for row in placements)
        return CompileResult(
            status="compiled",
            tool=_TOOL.name,
            version=version,
            files={f"{request.name}_vela.tflite": data},
            placements=placements,
            figures=_figures(completed.output),
            latency=latency_of(summaries[0], f"{_TOOL.name} {version}".strip(), hosted) if summaries else None,
            warnings=warnings,
            log_text=completed.output,
        )


def host_operators(log: str) -> dict[str, tuple[str, str]]:
    """Return the operators that Vela places on the CPU: name of the output -> (operator, reason)."""
    return {output: (operator, reason.strip()) for operator, output, reason in _HOST.findall(log)}


def placements_of(source: Model, compiled: Model, log: str) -> tuple[tuple[CompiledOp, ...], tuple[str, ...]]:
    """Return a placement for every op of the source from Vela's report, and warnings where its file disagrees."""
    reported = host_operators(log)
    left = {compiled.main.output_name(op) for op in compiled.main.ops if op.label != ACCELERATOR_OP}
    rows = []
    for op in source.main.ops:
        output = source.main.output_name(op)
        if output in reported:
            rows.append(CompiledOp(op.label, 1, Placement.HOST, reported[output][1], "left-by-compiler", output))
        else:
            rows.append(CompiledOp(op.label, 1, Placement.ACCELERATOR, "NPU", "", output))
    warnings = tuple(
        f"Vela's report and its file disagree about the op that writes '{output}'"
        for output in sorted(left ^ set(reported))
    )
    return tuple(rows), warnings


def latency_of(summary: str, by: str, host_ops: int) -> LatencyEstimate | None:
    """Return Vela's cycle estimate as a latency, None without one: all ops run on the CPU.

    Args:
        summary: The CSV file that Vela writes beside its output: names and one row of values.
        by: Vela with its version.
        host_ops: Ops that Vela leaves to the CPU, which its estimate does not include.
    """
    row = next(csv.DictReader(io.StringIO(summary)), {})
    try:
        seconds, cycles, clock = (float(row[key]) for key in ("inference_time", "cycles_total", "core_clock"))
    except (KeyError, TypeError, ValueError):
        return None
    if not (seconds > 0 and cycles > 0 and clock > 0):
        return None
    configuration = str(row.get("accelerator_configuration", "")).replace("_", "-")
    return LatencyEstimate(
        by=by,
        figures=(
            HostLatency(
                configuration.lower(),
                f"{configuration} at {clock / 1e6:g} MHz with {row.get('memory_mode', '')}",
                1000 * seconds,
            ),
        ),
        host_ops=host_ops,
        details={
            "cycles": int(cycles),
            "npu_cycles": int(float(row.get("cycles_npu") or 0)),
            "clock_hz": int(clock),
            "system_config": row.get("system_config", ""),
            "memory_mode": row.get("memory_mode", ""),
        },
    )


def _figures(log: str) -> dict[str, float]:
    matches = {name: re.search(pattern, log, re.MULTILINE) for name, pattern in _FIGURES.items()}
    return {
        name: float(match.group(1)) if "." in match.group(1) else int(match.group(1))
        for name, match in matches.items()
        if match
    }


def _failure(completed: tools.Completed) -> CompilerError:
    if match := re.search(
        r"Error: (\w+) '(.*)' Does not have valid TFLite Semantics\.\n((?: .*\n?)*)", completed.output
    ):
        operator, output, lines = match.groups()
        cause = ", ".join(line.strip(" -,") for line in lines.splitlines())
        return CompilerError(
            f"Vela refuses the whole file because of {operator} '{output}': {cause}",
            hint="quantize the whole model: this op has a data type that Vela does not support",
            details={"exit_code": completed.exit_code, "log_tail": tools.tail(completed.output)},
        )
    lines = [line for line in completed.output.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    signal = completed.signal_name
    end = f"crashed with {signal}" if signal else f"ended with exit code {completed.exit_code}"
    return CompilerError(
        f"Vela {end}: {last}",
        hint="'edgepack inspect' shows the file's contents; Vela supports quantized files that are not compiled yet",
        details={"exit_code": completed.exit_code, "log_tail": tools.tail(completed.output)},
    )
