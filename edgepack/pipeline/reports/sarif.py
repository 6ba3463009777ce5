"""The findings of a check as SARIF 2.1.0, which code hosts show on a pull request.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, sections 3.13 to 3.58.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from edgepack._version import __version__
from edgepack.compat import REASONS
from edgepack.findings import OpFinding, Placement, Reason, Report

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_LEVELS = {Placement.HOST: "warning", Placement.UNSUPPORTED: "error"}


def sarif(reports: Iterable[Report], model_name: str) -> dict[str, Any]:
    """Return the SARIF document of a check.

    There is one rule per reason code, with its meaning and its fix, and one result per op and reason: `warning` for an
    op that runs on the host, `error` for an op that runs nowhere, `note` for reasons that concern the whole model. Ops
    that are only outside the partition have no result: the op that ended the partition has one. A result's properties
    say whose word it is.

    Args:
        reports: The check of each target.
        model_name: Path of the model; code hosts expect it to be relative to the repository.
    """
    results: list[dict[str, Any]] = []
    for report in reports:
        target = report.target + (f" ({report.variant})" if report.variant else "")
        for finding in report.ops:
            if finding.placement is not Placement.ACCELERATOR:
                known = {"basis": finding.source, "source": report.sources.get(finding.source, "")}
                results.extend(_op_results(target, finding, model_name, known if finding.source else {}))
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


def _op_results(target: str, finding: OpFinding, model_name: str, known: Mapping[str, str]) -> Sequence[dict[str, Any]]:
    reasons = [reason for reason in finding.reasons if reason.code != "outside-partition"]
    what = f"{target}: op {finding.index} ({finding.op})"
    where = f"ops/{finding.index}"
    return [
        _result(reason, _LEVELS[finding.placement], f"{what}: {reason.message}", model_name, where, target, known)
        for reason in reasons
    ]


def _result(
    reason: Reason,
    level: str,
    text: str,
    model_name: str,
    where: str,
    target: str,
    known: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": _uri(model_name), "index": 0}}}
    if where:
        location["logicalLocations"] = [{"fullyQualifiedName": where, "kind": "element"}]
    result = {
        "ruleId": reason.code,
        "level": level,
        "message": {"text": f"{_sentence(text)} Fix: {_sentence(reason.fix)}"},
        "locations": [location],
        # Code hosts match results of successive runs by this value, so it contains no position and no time.
        "partialFingerprints": {"edgepack/v1": f"{target}:{where}:{reason.code}"},
    }
    if known:
        result["properties"] = dict(known)
    return result


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
    """Return a path as a relative URI reference, percent-encoded where needed."""
    from urllib.parse import quote

    return quote(name.replace("\\", "/"), safe="/-._~")
