"""Qualcomm's Hexagon through LiteRT's ahead-of-time compiler: one compiled .tflite per chip.

`ai_edge_litert.aot` needs Qualcomm's QAIRT SDK, which comes as the package `ai_edge_litert_sdk_qualcomm`. Without it
the compiler returns as if nothing were wrong and leaves an empty file, so nothing it says is believed: only files that
can be read count. It runs as a program of its own (`edgepack.compilers.qnn_child`), because it starts native programs
that a time limit has to end too, and leaves logs in the temporary folder.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepack import tools
from edgepack.compilers.base import CompiledOp, CompileRequest, CompileResult, check_options, placements_from_files
from edgepack.errors import CompilerError, ModelFileError
from edgepack.findings import Placement
from edgepack.graph import read_model

_NAME = "LiteRT AOT compiler for Qualcomm"
_SDK = "ai_edge_litert_sdk_qualcomm"
_INSTALL = "install Qualcomm's QAIRT SDK for LiteRT: pip install ai-edge-litert-sdk-qualcomm (x86-64 Linux)"

#: Custom op that runs a compiled partition (LiteRT's dispatch API).
ACCELERATOR_OP = "CUSTOM:DISPATCH_OP"


def known_socs() -> tuple[str, ...]:
    """Return the chips that the installed LiteRT compiles for, sorted; empty when it has no compiler."""
    try:
        from ai_edge_litert.aot.vendors.qualcomm.target import SocModel
    except ImportError:
        return ()
    return tuple(sorted(str(soc.value) for soc in SocModel if soc is not SocModel.ALL))


def has_sdk() -> bool:
    """Return whether the QAIRT SDK package is installed."""
    return importlib.util.find_spec(_SDK) is not None


class QnnAotCompiler:
    """Wrapper around `ai_edge_litert.aot.aot_compile` for Qualcomm's chips."""

    id = "qnn"

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
        """Compile a model for each chip of `request.socs`.

        Args:
            request: The model and the chips. Without chips nothing can be compiled ahead of time. The option `socs`
                is the profile's list of chips that the compiler takes.
            timeout: Seconds for all chips together.

        Returns:
            `compiled` with one `NAME_Qualcomm_SOC.tflite` per chip; the placements are those of the first chip, and the
            figures hold `ops_accelerated`, `ops_total`, `partitions` and `bytes` by chip. `skipped` without chips,
            without the SDK, or when LiteRT compiles for none of the chips.

        Raises:
            UsageError: An unknown option.
            CompilerError: The SDK is there and a chip failed, or time ran out.
        """
        check_options(request.options, {"socs": list}, self.id)
        socs = tuple(dict.fromkeys(request.socs))
        version = _litert_version()
        listed = request.options.get("socs")
        known = tuple(soc for soc in known_socs() if listed is None or soc in listed)
        unknown = [soc for soc in socs if known and soc not in known]
        if unknown and len(unknown) == len(socs):
            # The chip may be sound (the profile has its facts); only compiling ahead of time is not to be had for it.
            return CompileResult(
                status="skipped",
                tool=_NAME,
                version=version,
                reason=f"LiteRT does not compile ahead of time for {', '.join(unknown)}",
                hint=f"chips it compiles for: {', '.join(known)}",
            )
        if not socs:
            return CompileResult(
                status="skipped",
                tool=_NAME,
                version=version,
                reason="no chip was chosen: the phone compiles the model itself when it first runs it",
                hint=f"compile ahead of time with --soc SM8550 (known: {', '.join(known)})",
            )
        if not known:
            return _skipped(version, "ai_edge_litert has no ahead-of-time compiler on this machine")
        with tempfile.TemporaryDirectory(prefix="edgepack-qnn-") as name:
            able = replace(request, socs=tuple(soc for soc in socs if soc not in unknown))
            report, log = _run(Path(name), able, able.socs, timeout)
            log = log.replace(name, ".")
            done = interpret(able, report, version=version, sdk=has_sdk(), log=log)
        if not unknown:
            return done
        return replace(
            done, warnings=(*done.warnings, f"LiteRT does not compile ahead of time for {', '.join(unknown)}")
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
    """Run the compiler in `folder`; return soc -> {"data", "stats"} or {"error"}, and everything it printed."""
    (folder / "model.tflite").write_bytes(request.model)
    (folder / "tmp").mkdir()
    done = tools.run(
        [sys.executable, "-m", "edgepack.compilers.qnn_child", *socs],
        cwd=folder,
        timeout=timeout,
        env={"PYTHONPATH": os.pathsep.join(str(Path(p).resolve()) for p in sys.path), "TMPDIR": str(folder / "tmp")},
        name=_NAME,
    )
    # The native tool's own log is in a file that its Python wrapper leaves behind.
    logs = "\n".join(path.read_text("utf-8", "replace") for path in sorted((folder / "tmp").glob("*.error")))
    log = f"{done.output}\n{logs}".strip()
    try:
        report: dict[str, dict[str, Any]] = json.loads((folder / "report.json").read_text())
    except (OSError, ValueError):
        how = f"was killed by {done.signal_name}" if done.signal_name else f"ended with exit code {done.exit_code}"
        raise CompilerError(
            f"{_NAME} {how} before it reported",
            hint="build again; without --soc the phone compiles the model itself",
            details={"exit_code": done.exit_code, "log_tail": tools.tail(log.replace(str(folder), "."))},
        ) from None
    for entry in report.values():
        if file := entry.pop("file", ""):
            entry["data"] = (folder / file).read_bytes() if (folder / file).is_file() else b""
    return report, log


def interpret(
    request: CompileRequest, report: Mapping[str, Mapping[str, Any]], *, version: str, sdk: bool, log: str
) -> CompileResult:
    """Turn what the compiler left behind into a result.

    Args:
        request: What was asked for.
        report: Chip -> {"data": bytes, "stats": list of {"offloaded", "total", "partitions"}} or {"error": text}.
        version: LiteRT's version.
        sdk: Whether the SDK package is installed.
        log: Everything that was printed.

    Returns:
        `compiled` when every chip has a readable file, `skipped` when one failed and there is no SDK.

    Raises:
        CompilerError: A chip failed although the SDK is there.
    """
    files: dict[str, bytes] = {}
    figures: dict[str, Any] = {}
    placements: tuple[CompiledOp, ...] | None = None
    failed: dict[str, str] = {}
    source = read_model(request.model)
    for soc in dict.fromkeys(request.socs):
        entry = report.get(soc, {"error": "the compiler does not mention this chip"})
        if "error" in entry:
            failed[soc] = str(entry["error"])
            continue
        try:
            compiled = read_model(entry["data"])
        except ModelFileError as error:
            failed[soc] = f"the file it wrote ({len(entry['data'])} bytes) is not a model: {error.message}"
            continue
        files[f"{request.name}_Qualcomm_{soc}.tflite"] = entry["data"]
        rows = placements_from_files(source, compiled, ACCELERATOR_OP)
        placements = rows if placements is None else placements
        stats = entry.get("stats", [])
        figures[soc] = {
            "bytes": len(entry["data"]),
            "ops_accelerated": sum(s["offloaded"] for s in stats)
            if stats
            else sum(row.count for row in rows if row.placement is Placement.ACCELERATOR),
            "ops_total": sum(s["total"] for s in stats) if stats else len(source.main.ops),
            "partitions": sum(s["partitions"] for s in stats)
            if stats
            else sum(op.label == ACCELERATOR_OP for op in compiled.main.ops),
        }
    if failed:
        missing = re.search(r"lib(Qnn\w+)\.so: cannot open shared object", log)
        if not sdk:
            what = f" ({missing.group(0).split(':')[0]} is missing)" if missing else ""
            return _skipped(version, f"Qualcomm's QAIRT SDK is not installed{what}: nothing was compiled", log)
        text = "; ".join(f"{soc}: {error}" for soc, error in failed.items())
        # The message must not carry the path of a log that is gone.
        text = re.sub(r"\s*See \S+ for details\.?", "", text)
        raise CompilerError(
            f"{_NAME} failed for {text}",
            hint="read the end of its log; leave the chip out, and the phone compiles the model itself",
            details={"socs": sorted(failed), "log_tail": tools.tail(log)},
        )
    warnings = tuple(
        f"{soc}: no op was taken by the accelerator, the model runs on the CPU"
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
