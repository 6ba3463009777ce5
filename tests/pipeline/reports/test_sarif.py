"""The SARIF document has the properties that the standard requires and that code hosts show."""

import json
import re
from typing import Any

import pytest

from edgepack.compat import REASONS
from edgepack.findings import OpFinding, Placement, Reason, Report
from edgepack.pipeline.reports.sarif import sarif

HOST = OpFinding(
    1, "ARG_MAX", 1, "y", Placement.HOST, (Reason("op-not-supported", "expected an op, got ARG_MAX", "replace it"),)
)
CUT = OpFinding(2, "TANH", 1, "z", Placement.HOST, (Reason("outside-partition", "cut off by op 1", "replace op 1"),))
NOWHERE = OpFinding(
    3, "CUSTOM:Mine", 1, "w", Placement.UNSUPPORTED, (Reason("custom-op", "expected a built-in op", "replace it"),)
)
RANK = OpFinding(4, "ADD", 1, "v", Placement.HOST, (Reason("rank-above-3", "expected 3, got 4", "merge"),))
ACCELERATED = OpFinding(0, "CONV_2D", 1, "x", Placement.ACCELERATOR)
REPORT = Report(
    "edgetpu",
    False,
    1,
    (ACCELERATED, HOST, CUT, NOWHERE, RANK),
    model_reasons=(Reason("several-subgraphs", "expected one subgraph, got 2", "unroll"),),
)


@pytest.fixture
def run() -> dict[str, Any]:
    """Return the only run, parsed from JSON."""
    document = json.loads(json.dumps(sarif([REPORT], "models/my model.tflite")))
    assert (document["version"], len(document["runs"])) == ("2.1.0", 1)
    assert document["$schema"].endswith("sarif-schema-2.1.0.json")
    only: dict[str, Any] = document["runs"][0]
    return only


def test_has_every_required_property(run: dict[str, Any]) -> None:
    """The run has what SARIF 2.1.0 requires: tool, driver name, an id per rule, a message per result."""
    driver = run["tool"]["driver"]
    assert driver["name"] == "edgepack"
    assert re.match(r"\d+\.\d+\.\d+", driver["semanticVersion"])
    for rule in driver["rules"]:
        assert rule["id"]
        assert all(rule[name]["text"].endswith(".") for name in ("shortDescription", "fullDescription", "help"))
    for result in run["results"]:
        assert result["message"]["text"]
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        location = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert location == {"uri": "models/my%20model.tflite", "index": 0}
        assert run["artifacts"][location["index"]]["location"]["uri"] == location["uri"]


def test_levels_follow_the_placement(run: dict[str, Any]) -> None:
    """Host is a warning, unsupported an error; accelerated ops and ops outside the partition have no result."""
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [
        ("op-not-supported", "warning"),
        ("custom-op", "error"),
        ("rank-above-3", "warning"),
        ("several-subgraphs", "error"),
    ]


def test_messages_name_target_op_and_fix(run: dict[str, Any]) -> None:
    """A message names the target, the op, the reason and the fix."""
    assert run["results"][0]["message"]["text"] == (
        "edgetpu: op 1 (ARG_MAX): expected an op, got ARG_MAX. Fix: replace it."
    )


def test_fingerprints_are_stable_and_unique(run: dict[str, Any]) -> None:
    """A finding has the same fingerprint in every run, and no two findings share one."""
    again = sarif([REPORT], "models/my model.tflite")["runs"][0]["results"]
    prints = [result["partialFingerprints"]["edgepack/v1"] for result in run["results"]]
    assert prints == [result["partialFingerprints"]["edgepack/v1"] for result in again]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("code", sorted(REASONS))
def test_every_reason_code_becomes_a_rule(code: str) -> None:
    """Every reason code has a rule with its meaning."""
    reason = code.replace("-N", "-5")
    finding = OpFinding(0, "ADD", 1, "x", Placement.HOST, (Reason(reason, "expected a, got b", "c"),))
    run = sarif([Report("cpu", True, 0, (finding,))], "m.tflite")["runs"][0]
    if code == "outside-partition":
        assert run["results"] == []
    else:
        assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [reason]


def test_a_clean_check_is_an_empty_run() -> None:
    """Without findings the results are an empty list."""
    run = sarif([Report("edgetpu", True, 1, (ACCELERATED,))], "m.tflite")["runs"][0]
    assert (run["results"], run["tool"]["driver"]["rules"]) == ([], [])
