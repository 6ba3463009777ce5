"""A check as SARIF 2.1.0, the format in which code hosts take findings and show them on a pull request.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, sections 3.13 to 3.58.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from edgepack._version import __version__
from edgepack.compat import REASONS
from edgepack.findings import OpFinding, Placement, Reason, Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {Placement.HOST: "warning", Placement.UNSUPPORTED: "error"}


def sarif(reports: Iterable[Report], model_name: str) -> dict[str, Any]:
    """Return the SARIF document of a check.

    One rule per reason code that occurs, with its meaning and its fix; one result per op and reason: `warning` for an
    op left to the host, `error` for one that runs nowhere, `note` for what concerns the whole model. Ops that are only
    cut off by another one are left out: the one that cuts is there.

    Args:
        reports: The check of each target.
        model_name: Path of the model as the user gave it, relative to the repository for a code host to find it.
    """
    results: list[dict[str, Any]] = []
    for report in reports:
        target = report.target + (f" ({report.variant})" if report.variant else "")
        for finding in report.ops:
            if finding.placement is not Placement.ACCELERATOR:
                results.extend(_op_results(target, finding, model_name))
        for reason in report.model_reasons:
            level = "note" if report.compatible else "error"
            results.append(_result(reason, level, f"{target}: {reason.message}", model_name, "", report.target))
    codes = sorted({result["ruleId"] for result in results})
    for result in results:
        result["ruleIndex"] = codes.index(result["ruleId"])
    driver = {
        "name": "edgepack",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [_rule(code) for code in codes],
    }
    run = {
        "tool": {"driver": driver},
        "artifacts": [{"location": {"uri": _uri(model_name)}}],
        "results": results,
        "columnKind": "utf16CodeUnits",
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _op_results(target: str, finding: OpFinding, model_name: str) -> Sequence[dict[str, Any]]:
    reasons = [reason for reason in finding.reasons if reason.code != "outside-partition"]
    what = f"{target}: op {finding.index} ({finding.op})"
    where = f"ops/{finding.index}"
    return [
        _result(reason, _LEVELS[finding.placement], f"{what}: {reason.message}", model_name, where, target)
        for reason in reasons
    ]


def _result(reason: Reason, level: str, text: str, model_name: str, where: str, target: str) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(model_name), "index": 0}}}
    if where:
        location["logicalLocations"] = [{"fullyQualifiedName": where, "kind": "element"}]
    return {
        "ruleId": reason.code,
        "level": level,
        "message": {"text": f"{_sentence(text)} Fix: {_sentence(reason.fix)}"},
        "locations": [location],
        # A code host tells results of one run from those of the next by this, so it must not name a line or a time.
        "partialFingerprints": {"edgepack/v1": f"{target}:{where}:{reason.code}"},
    }


def _rule(code: str) -> dict[str, Any]:
    kind = REASONS[re.sub(r"\d+$", "N", code) if code.startswith("rank-above-") else code]
    help_text = f"{kind.meaning} Fix: {_sentence(kind.fix)}"
    return {
        "id": code,
        "name": "".join(part.capitalize() for part in code.split("-")),
        "shortDescription": {"text": kind.meaning},
        "fullDescription": {"text": kind.meaning},
        "help": {"text": help_text, "markdown": help_text},
        "defaultConfiguration": {"level": "warning"},
    }


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _uri(name: str) -> str:
    """Return a path as a relative URI reference, whatever its characters."""
    from urllib.parse import quote

    return quote(name.replace("\\", "/"), safe="/-._~")
