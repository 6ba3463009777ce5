"""Qualcomm's Hexagon through LiteRT's ahead-of-time compiler: one compiled .tflite per SoC.

The compiler is LiteRT's plugin with Qualcomm's QAIRT libraries (`edgepack.compilers.qnn_sdk`). It is run as the program
that LiteRT's own `aot_compile` runs, with the same arguments: that function joins both logs in one file, in which their
lines are cut into one another, and reports a failure without its reason.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgepack import tools
from edgepack.compilers import qnn_sdk, qnn_simulator
from edgepack.compilers.base import CompiledOp, CompileRequest, CompileResult, check_options, count_ops
from edgepack.compilers.qnn_failures import Failure
from edgepack.compilers.qnn_placement import ACCELERATOR_OP, placements
from edgepack.compilers.qnn_sdk import INSTALL, NAME, QnnRun
from edgepack.compilers.simulator import Simulator, SimulatorInfo
from edgepack.errors import CompilerError, ModelFileError, ToolMissingError
from edgepack.findings import Placement
from edgepack.graph import Model, read_model

__all__ = ["ACCELERATOR_OP", "QnnAotCompiler", "interpret", "known_socs"]


def known_socs() -> tuple[str, ...]:
    """Return the SoCs that the installed LiteRT compiles for, sorted; empty when it has no compiler."""
    try:
        from ai_edge_litert.aot.vendors.qualcomm.target import SocModel
    except ImportError:
        return ()
    return tuple(sorted(str(soc.value) for soc in SocModel if soc is not SocModel.ALL))


class QnnAotCompiler:
    """Wrapper around LiteRT's compiler plugin for Qualcomm's SoCs."""

    id = "qnn"
    supports_segments = False
    supports_simulation = True
    #: A check asks about files up to this size without an option. Seconds of CPU for SM8550, QAIRT 2.51: 0.25 for 54 kB
    #: (keyword spotting), 0.6 for 3.6 MB (MobileNetV2), 1.2 for 0.8 MB (DeepLab 513x513), 0.9 for 18.6 MB
    #: (EfficientNet-Lite0 in float), the largest file measured.
    asks_up_to = 20_000_000

    def find(self) -> tools.ToolInfo:
        """Return which compiler is used: the folder of QAIRT's libraries, LiteRT's version and QAIRT's.

        The libraries are loaded once in a process of their own, which names a system library that they lack.
        """
        try:
            sdk = qnn_sdk.find()
            problem = qnn_sdk.loading_problem(sdk)
        except ToolMissingError as error:
            return tools.ToolInfo(NAME, "", qnn_sdk.litert_version(), False, error.message, error.hint or INSTALL)
        version = f"{sdk.full_version} ({sdk.source})"
        return tools.ToolInfo(NAME, str(sdk.libraries), version, not problem, problem, INSTALL)

    def compile(self, request: CompileRequest, timeout: float = 900.0) -> CompileResult:
        """Compile a model for each SoC of `request.socs`.

        Args:
            request: The model and the SoCs; without a SoC nothing is compiled ahead of time. The option `socs` is the
                profile's list of SoCs that the compiler supports.
            timeout: Seconds for all SoCs together.

        Returns:
            `compiled` with one `NAME_Qualcomm_SOC.tflite` per SoC; the placements are those of the first SoC, and the
            figures contain `ops_accelerated`, `ops_total`, `partitions` and `bytes` by SoC. `skipped` without SoCs,
            when a part of the compiler is not installed, when LiteRT compiles for none of the SoCs, or when the
            compiler selects no op for any of them.

        Raises:
            UsageError: An option is unknown.
            ToolMissingError: EDGEPACK_PATCHELF is wrong.
            CompilerError: The compilation for a SoC failed, or `timeout` was exceeded.
        """
        check_options(request.options, {"socs": list}, self.id)
        socs = tuple(dict.fromkeys(request.socs))
        version = qnn_sdk.litert_version()
        listed = request.options.get("socs")
        known = tuple(soc for soc in known_socs() if listed is None or soc in listed)
        unknown = [soc for soc in socs if known and soc not in known]
        if unknown and len(unknown) == len(socs):
            # The profile may support the SoC all the same; only ahead-of-time compilation does not.
            return _skipped(
                version,
                f"LiteRT does not compile ahead of time for {', '.join(unknown)}",
                f"supported SoCs: {', '.join(known)}",
            )
        if not socs:
            return _skipped(
                version,
                "no SoC was specified: the phone compiles the model when it first runs it",
                f"compile ahead of time with --soc SM8550 (supported: {', '.join(known)})",
            )
        if not known:
            return _skipped(version, "ai_edge_litert has no ahead-of-time compiler on this machine", INSTALL)
        # A wrong path from the user is an error, a part that is not installed is none.
        tools.locate(qnn_sdk.PATCHELF)
        try:
            sdk = qnn_sdk.find()
        except ToolMissingError as error:
            return _skipped(version, f"nothing was compiled: {error.message}", error.hint)
        deadline = time.monotonic() + timeout
        runs: dict[str, QnnRun] = {}
        for soc in socs:
            if soc not in unknown:
                runs[soc] = qnn_sdk.run(sdk, request.model, soc, max(1.0, deadline - time.monotonic()))
        result = interpret(request, runs, sdk.full_version)
        if not unknown:
            return result
        return replace(
            result, warnings=(*result.warnings, f"LiteRT does not compile ahead of time for {', '.join(unknown)}")
        )

    def find_simulator(self) -> SimulatorInfo:
        """Return the HTP simulator: see `SimulatingCompiler.find_simulator`."""
        return qnn_simulator.find_simulator()

    def load_simulator(self, compiled: bytes, architecture: str) -> Simulator:
        """Load a file into the HTP simulator: see `SimulatingCompiler.load_simulator`."""
        qnn_simulator.find_simulator()
        return qnn_simulator.QnnSimulator(compiled, architecture)


def _skipped(version: str, reason: str, hint: str) -> CompileResult:
    return CompileResult(status="skipped", tool=NAME, version=version, reason=reason, hint=hint)


def interpret(request: CompileRequest, runs: Mapping[str, QnnRun], version: str) -> CompileResult:
    """Turn the compiler's runs into a result.

    Args:
        request: The request.
        runs: The run for each SoC, in the order of the request.
        version: Version of the compiler, unless a log names it more precisely.

    Returns:
        `compiled` with the readable files; `skipped` when the compiler selected no op for any SoC. A SoC for which it
        selected none has no file and a warning.

    Raises:
        CompilerError: The compilation for a SoC failed. The message has the cause for each SoC, the details the
            compiler's own words.
    """
    files: dict[str, bytes] = {}
    figures: dict[str, Any] = {}
    rows: dict[str, tuple[CompiledOp, ...]] = {}
    failed: dict[str, Failure] = {}
    source = read_model(request.model)
    for soc, run in runs.items():
        compiled = _outcome(run)
        if isinstance(compiled, Failure):
            failed[soc] = compiled
            continue
        rows[soc] = placements(source, compiled, run.log)
        if compiled is not None:
            files[_file_name(request, soc)] = run.data
        figures[soc] = _figures(source, compiled, run, rows[soc])
        if run.log.sdk_version:
            version = f"{version.partition('+')[0]}+qairt-{run.log.sdk_version}"
    log = "\n\n".join(f"{soc}:\n{run.completed.output}" for soc, run in runs.items())
    if failed:
        raise _error(failed, runs)
    warnings = [
        f"{soc}: no op was mapped to the accelerator, the model runs on the CPU"
        for soc, entry in figures.items()
        if entry["ops_accelerated"] == 0
    ]
    warnings += _differences(rows)
    result = CompileResult(
        status="compiled",
        tool=NAME,
        version=version,
        files=files,
        chips={_file_name(request, soc): soc for soc in runs if _file_name(request, soc) in files},
        placements=next(iter(rows.values()), None),
        figures=figures,
        warnings=tuple(warnings),
        log_text=log,
    )
    if files:
        return result
    reason = f"the compiler selects no op of the model for {', '.join(figures)}: it runs on the CPU"
    return replace(result, status="skipped", reason=reason, hint="edgepack check names the reason for each op")


def _file_name(request: CompileRequest, soc: str) -> str:
    return f"{request.name}_Qualcomm_{soc}.tflite"


def _outcome(run: QnnRun) -> Model | Failure | None:
    """Return the compiled model, None when no op was selected, or why there is none."""
    if run.log.failure is not None:
        return run.log.failure
    if not run.data and run.log.nothing_selected:
        return None
    try:
        return read_model(run.data)
    except ModelFileError as error:
        reason = f"its output ({len(run.data)} bytes) is not a model: {error.message}"
        return Failure("output", reason, "build again; if it fails again, report an issue with the log", "")


def _figures(source: Model, compiled: Model | None, run: QnnRun, rows: tuple[CompiledOp, ...]) -> dict[str, int]:
    entries = run.log.partitionings
    accelerated = count_ops(rows, Placement.ACCELERATOR)
    partitions = sum(op.label == ACCELERATOR_OP for op in compiled.main.ops) if compiled is not None else 0
    return {
        "bytes": len(run.data),
        "ops_accelerated": sum(entry.selected for entry in entries) if entries else accelerated,
        "ops_total": sum(entry.total for entry in entries) if entries else len(source.main.ops),
        "partitions": sum(entry.partitions for entry in entries) if entries else partitions,
    }


def _differences(rows: Mapping[str, tuple[CompiledOp, ...]]) -> list[str]:
    """Return a sentence for each SoC whose placement differs from the first one's, which is the one reported."""
    texts = []
    first = next(iter(rows), "")
    for soc, entries in rows.items():
        others = sorted({row.op for row in {*entries} ^ {*rows[first]} if row.placement is Placement.HOST})
        if {_key(row) for row in entries} != {_key(row) for row in rows[first]}:
            texts.append(f"{soc}: the compiler places ops differently than for {first}: {', '.join(others)}")
    return texts


def _key(row: CompiledOp) -> tuple[str, str, int, Placement]:
    return row.op, row.output, row.count, row.placement


def _error(failed: Mapping[str, Failure], runs: Mapping[str, QnnRun]) -> CompilerError:
    causes: dict[str, list[str]] = {}
    for soc, failure in failed.items():
        causes.setdefault(failure.reason, []).append(soc)
    words = []
    for soc in failed:
        errors = runs[soc].log.errors
        words += [f"{soc}: {line}" for line in errors] or tools.tail(runs[soc].completed.output).splitlines()
    return CompilerError(
        f"{NAME} failed for " + "; ".join(f"{', '.join(socs)}: {reason}" for reason, socs in causes.items()),
        hint="; ".join(dict.fromkeys(failure.hint for failure in failed.values())),
        details={
            "socs": sorted(failed),
            "failures": {
                soc: {"kind": failure.kind, "reason": failure.reason, "message": failure.message, "node": failure.node}
                for soc, failure in failed.items()
            },
            "log_tail": "\n".join(words),
        },
    )
