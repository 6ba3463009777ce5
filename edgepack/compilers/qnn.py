"""Qualcomm's Hexagon through LiteRT's ahead-of-time compiler: one compiled .tflite per SoC.

`ai_edge_litert.aot` needs Qualcomm's QAIRT SDK, the package `ai_edge_litert_sdk_qualcomm`. Without it the compiler
returns normally and leaves an empty file, so its report alone does not count: only readable files do. It runs as a
separate program (`edgepack.compilers.qnn_child`) and not in a `Worker`, because a time limit must also end the native
programs that it starts, and because it leaves logs in the temporary folder.
"""

import importlib.metadata
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
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
from edgepack.errors import CompilerError, ModelFileError
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.import_path import as_variable

_NAME = "LiteRT AOT compiler for Qualcomm"
_SDK = "ai_edge_litert_sdk_qualcomm"
_INSTALL = "install Qualcomm's QAIRT SDK for LiteRT: pip install ai-edge-litert-sdk-qualcomm (x86-64 Linux)"

#: Custom op that runs a compiled partition (LiteRT's dispatch API).
ACCELERATOR_OP = "CUSTOM:DISPATCH_OP"


def known_socs() -> tuple[str, ...]:
    """Return the SoCs that the installed LiteRT compiles for, sorted; empty when it has no compiler."""
    try:
        from ai_edge_litert.aot.vendors.qualcomm.target import SocModel
    except ImportError:
        return ()
    return tuple(sorted(str(soc.value) for soc in SocModel if soc is not SocModel.ALL))


def has_sdk() -> bool:
    """Return whether the QAIRT SDK package is installed."""
    return importlib.util.find_spec(_SDK) is not None


class QnnAotCompiler:
    """Wrapper around `ai_edge_litert.aot.aot_compile` for Qualcomm's SoCs."""

    id = "qnn"
    supports_segments = False

    def find(self) -> tools.ToolInfo:
        """Return whether LiteRT's compiler and the QAIRT SDK are installed."""
        version = _litert_version()
        if not known_socs():
            return tools.ToolInfo(_NAME, "", version, False, "ai_edge_litert has no ahead-of-time compiler", _INSTALL)
        if not has_sdk():
            return tools.ToolInfo(_NAME, "", version, False, f"the QAIRT SDK ({_SDK}) is not installed", _INSTALL)
        spec = importlib.util.find_spec(_SDK)
        origin = spec.origin if spec is not None and spec.origin else ""
        return tools.ToolInfo(_NAME, origin, version, True, "", _INSTALL)

    def compile(self, request: CompileRequest, timeout: float = 900.0) -> CompileResult:
        """Compile a model for each SoC of `request.socs`.

        Args:
            request: The model and the SoCs; without a SoC nothing is compiled ahead of time. The option `socs` is the
                profile's list of SoCs that the compiler supports.
            timeout: Seconds for all SoCs together.

        Returns:
            `compiled` with one `NAME_Qualcomm_SOC.tflite` per SoC; the placements are those of the first SoC, and the
            figures contain `ops_accelerated`, `ops_total`, `partitions` and `bytes` by SoC. `skipped` without SoCs,
            without the SDK, or when LiteRT compiles for none of the SoCs.

        Raises:
            UsageError: An option is unknown.
            CompilerError: The SDK is installed and the compilation for a SoC failed, or `timeout` was exceeded.
        """
        check_options(request.options, {"socs": list}, self.id)
        socs = tuple(dict.fromkeys(request.socs))
        version = _litert_version()
        listed = request.options.get("socs")
        known = tuple(soc for soc in known_socs() if listed is None or soc in listed)
        unknown = [soc for soc in socs if known and soc not in known]
        if unknown and len(unknown) == len(socs):
            # The profile may support the SoC all the same; only ahead-of-time compilation does not.
            return CompileResult(
                status="skipped",
                tool=_NAME,
                version=version,
                reason=f"LiteRT does not compile ahead of time for {', '.join(unknown)}",
                hint=f"supported SoCs: {', '.join(known)}",
            )
        if not socs:
            return CompileResult(
                status="skipped",
                tool=_NAME,
                version=version,
                reason="no SoC was specified: the phone compiles the model when it first runs it",
                hint=f"compile ahead of time with --soc SM8550 (supported: {', '.join(known)})",
            )
        if not known:
            return _skipped(version, "ai_edge_litert has no ahead-of-time compiler on this machine")
        with tempfile.TemporaryDirectory(prefix="edgepack-qnn-") as name:
            supported = replace(request, socs=tuple(soc for soc in socs if soc not in unknown))
            report, log = _run(Path(name), supported, supported.socs, timeout)
            log = log.replace(name, ".")
            result = interpret(supported, report, version=version, sdk=has_sdk(), log=log)
        if not unknown:
            return result
        return replace(
            result, warnings=(*result.warnings, f"LiteRT does not compile ahead of time for {', '.join(unknown)}")
        )


def _litert_version() -> str:
    try:
        return importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _skipped(version: str, reason: str, log: str = "") -> CompileResult:
    return CompileResult(status="skipped", tool=_NAME, version=version, reason=reason, hint=_INSTALL, log_text=log)


def _run(
    folder: Path, request: CompileRequest, socs: tuple[str, ...], timeout: float
) -> tuple[dict[str, dict[str, Any]], str]:
    """Run the compiler in `folder`; return SoC -> {"data", "stats"} or {"error"}, and its output."""
    (folder / "model.tflite").write_bytes(request.model)
    (folder / "tmp").mkdir()
    completed = tools.run(
        [sys.executable, "-m", "edgepack.compilers.qnn_child", *socs],
        cwd=folder,
        timeout=timeout,
        env={"PYTHONPATH": as_variable(), "PYTHONSAFEPATH": "1", "TMPDIR": str(folder / "tmp")},
        name=_NAME,
        writable=(folder,),
    )
    # The log of the native tool is in a file that its Python wrapper leaves in the temporary folder.
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted((folder / "tmp").glob("*.error")))
    log = f"{completed.output}\n{logs}".strip()
    try:
        report: dict[str, dict[str, Any]] = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        code, signal = completed.exit_code, completed.signal_name
        end = f"was killed by {signal}" if signal else f"ended with exit code {code}"
        raise CompilerError(
            f"{_NAME} {end} before it reported",
            hint="build again; without --soc the phone compiles the model itself",
            details={"exit_code": code, "log_tail": tools.tail(log.replace(str(folder), "."))},
        ) from None
    for entry in report.values():
        if file := entry.pop("file", ""):
            entry["data"] = (folder / file).read_bytes() if (folder / file).is_file() else b""
    return report, log


def interpret(
    request: CompileRequest, report: Mapping[str, Mapping[str, Any]], *, version: str, sdk: bool, log: str
) -> CompileResult:
    """Turn the compiler's report into a result.

    Args:
        request: The request.
        report: SoC -> {"data": bytes, "stats": list of {"offloaded", "total", "partitions"}} or {"error": text}.
        version: LiteRT's version.
        sdk: Whether the SDK package is installed.
        log: The compiler's output.

    Returns:
        `compiled` when every SoC has a readable file, `skipped` when one failed and the SDK is not installed.

    Raises:
        CompilerError: The compilation for a SoC failed although the SDK is installed.
    """
    files: dict[str, bytes] = {}
    figures: dict[str, Any] = {}
    placements: tuple[CompiledOp, ...] | None = None
    failed: dict[str, str] = {}
    source = read_model(request.model)
    for soc in dict.fromkeys(request.socs):
        entry = report.get(soc, {"error": "the compiler's report does not mention this SoC"})
        if "error" in entry:
            failed[soc] = str(entry["error"])
            continue
        try:
            compiled = read_model(entry["data"])
        except ModelFileError as error:
            failed[soc] = f"its output ({len(entry['data'])} bytes) is not a model: {error.message}"
            continue
        files[f"{request.name}_Qualcomm_{soc}.tflite"] = entry["data"]
        rows = placements_from_files(source, compiled, ACCELERATOR_OP)
        placements = rows if placements is None else placements
        stats = entry.get("stats", [])
        figures[soc] = {
            "bytes": len(entry["data"]),
            "ops_accelerated": sum(s["offloaded"] for s in stats) if stats else count_ops(rows, Placement.ACCELERATOR),
            "ops_total": sum(s["total"] for s in stats) if stats else len(source.main.ops),
            "partitions": sum(s["partitions"] for s in stats)
            if stats
            else sum(op.label == ACCELERATOR_OP for op in compiled.main.ops),
        }
    if failed:
        missing = re.search(r"lib(Qnn\w+)\.so: cannot open shared object", log)
        if not sdk:
            library = f" ({missing.group(0).split(':')[0]} is missing)" if missing else ""
            return _skipped(version, f"Qualcomm's QAIRT SDK is not installed{library}: nothing was compiled", log)
        text = "; ".join(f"{soc}: {error}" for soc, error in failed.items())
        # The log at that path is already deleted.
        text = re.sub(r"\s*See \S+ for details\.?", "", text)
        raise CompilerError(
            f"{_NAME} failed for {text}",
            hint="see the end of its log; without that SoC in --soc, the phone compiles the model itself",
            details={"socs": sorted(failed), "log_tail": tools.tail(log)},
        )
    warnings = tuple(
        f"{soc}: no op was mapped to the accelerator, the model runs on the CPU"
        for soc, entry in figures.items()
        if entry["ops_accelerated"] == 0
    )
    return CompileResult(
        status="compiled",
        tool=_NAME,
        version=version,
        files=files,
        placements=placements,
        figures=figures,
        warnings=warnings,
        log_text=log,
    )
