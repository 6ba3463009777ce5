"""A summary of a check or a build as a Markdown table, which code hosts show with a run or a pull request."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgepack.errors import EdgepackError
from edgepack.findings import OpFinding, Placement, Report
from edgepack.pipeline.check import CheckedTarget
from edgepack.pipeline.results import TargetResult
from edgepack.runtime.metrics import measured_accuracy

#: Further ops with a reason are counted: hosts cut summaries, and the SARIF file and the JSON have all of them.
MAX_FINDINGS = 20


def check_summary(model: str, results: Sequence[CheckedTarget]) -> str:
    """Return the Markdown of a check: a row for each target, then the ops outside the accelerator with their fixes.

    Args:
        model: Path of the model, as the user gave it.
        results: The check of each target.
    """
    rows = []
    for result in results:
        summary = None if result.report is None else result.report.summary
        rows.append(
            (
                _name(result.target, result.report),
                "refused" if result.error is not None else "fits",
                result.planned or "-",
                *_counts(summary),
            )
        )
    text = [f"### {code(model)}", "", *_table(("target", "verdict", "scheme", *_COUNTS), rows)]
    for result in results:
        text.extend(_findings(result.report))
        text.extend(_error(result.target, result.error))
    return "\n".join(text) + "\n"


def build_summary(model: str, results: Sequence[TargetResult]) -> str:
    """Return the Markdown of a build: a row for each target, then errors and warnings.

    Args:
        model: Path of the model, as the user gave it.
        results: The result of each target.
    """
    rows = []
    for result in results:
        quality = result.quality
        rows.append(
            (
                _name(result.target, result.report),
                "built" if result.error is None else "failed",
                result.scheme or "-",
                "-" if result.model is None else f"{len(result.model):,}",
                "-" if quality is None or quality.accuracy is None else quality.accuracy.text,
                "-" if quality is None or quality.snr_db is None else f"{quality.snr_db:.1f}",
                *_counts(None if result.report is None else result.report.summary),
            )
        )
    header = ("target", "verdict", "scheme", "bytes", "accuracy %", "SNR dB", *_COUNTS)
    text = [f"### {code(model)}", "", *_table(header, rows)]
    for result in results:
        text.extend(_error(result.target, result.error))
    warnings = dict.fromkeys((result.target, warning) for result in results for warning in result.warnings)
    if warnings:
        text.extend(["", *(f"- **{escape(target)}**: {escape(warning)}" for target, warning in warnings)])
    return "\n".join(text) + "\n"


def project_summary(name: str, results: Sequence[tuple[Mapping[str, Any], EdgepackError | None]]) -> str:
    """Return the Markdown of a project's build: a row for each cell, then errors and the warnings of what was built.

    Args:
        name: Name of the project.
        results: Each entry of `results` of `build --json`, and why that cell failed.
    """
    rows = []
    for result, _ in results:
        model, quality, summary = (result.get(key) or {} for key in ("model", "quality", "summary"))
        accuracy, snr = measured_accuracy(quality), quality.get("snr_db")
        rows.append(
            (
                result["cell"],
                result["state"],
                result.get("scheme") or "-",
                f"{model['bytes']:,}" if model else "-",
                "-" if accuracy is None else accuracy.text,
                "-" if snr is None else f"{snr:.1f}",
                *_counts(summary or None),
            )
        )
    header = ("cell", "state", "scheme", "bytes", "accuracy %", "SNR dB", *_COUNTS)
    text = [f"### {code(name)}", "", *_table(header, rows)]
    for result, error in results:
        text.extend(_error(result["cell"], error))
    warnings = [
        (result["cell"], warning)
        for result, _ in results
        if result["state"] == "built"
        for warning in result.get("warnings", ())
    ]
    if warnings:
        text.extend(["", *(f"- **{escape(cell)}**: {escape(warning)}" for cell, warning in warnings)])
    return "\n".join(text) + "\n"


_COUNTS = ("accelerator", "host", "unsupported")


def _counts(summary: Mapping[str, int] | None) -> tuple[str, ...]:
    return tuple("-" if summary is None else str(summary[name]) for name in _COUNTS)


def _name(target: str, report: Report | None) -> str:
    return target + (f" ({report.variant})" if report is not None and report.variant else "")


def _findings(report: Report | None) -> list[str]:
    if report is None:
        return []
    outside = [finding for finding in report.ops if finding.placement is not Placement.ACCELERATOR]
    reasons = [("model", reason) for reason in report.model_reasons]
    reasons += [(_op(finding), reason) for finding in outside for reason in finding.reasons]
    if not reasons:
        return []
    lines = ["", f"<details><summary>{escape(report.target)}: {len(reasons)} findings</summary>", ""]
    rows = [(what, reason.message, reason.fix) for what, reason in reasons[:MAX_FINDINGS]]
    lines.extend(_table(("op", "reason", "fix"), rows))
    if len(reasons) > MAX_FINDINGS:
        lines.extend(["", f"and {len(reasons) - MAX_FINDINGS} more"])
    return [*lines, "", "</details>"]


def _op(finding: OpFinding) -> str:
    return f"{finding.index} {finding.op} ({finding.placement})"


def _error(target: str, error: EdgepackError | None) -> list[str]:
    if error is None:
        return []
    hint = f" Hint: {escape(error.hint)}" if error.hint else ""
    return ["", f"**{escape(target)}**: {escape(error.message)} (exit code {error.exit_code}).{hint}"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def escape(text: str) -> str:
    """Return text in one line that Markdown and HTML show as it is: names come from files that strangers may write."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|~#!@$" else character for character in line)


def code(text: str) -> str:
    """Return text as a code span; backquotes in it become apostrophes."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).replace("`", "'")
    return f"`{line}`" if line else "``"
