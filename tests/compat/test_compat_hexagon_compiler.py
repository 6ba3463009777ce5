"""Where Qualcomm's real compiler runs, the table places ops as it does, and foretells where it writes no file."""

import importlib
import random
import sys
from pathlib import Path

import pytest
from qnn_support import needs_compiler

from edgepack.compat import check
from edgepack.compilers import qnn_sdk
from edgepack.compilers.qnn_placement import host_ops
from edgepack.findings import Placement
from edgepack.graph import read_model
from edgepack.profiles import get_target

ROOT = Path(__file__).resolve().parent.parent.parent
SOCS = ("SM8350", "SM8550", "SM8850")


def _battery():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("qnn_battery")
    finally:
        sys.path.pop(0)


def _compiled(tflite: bytes, soc: str) -> set[int] | None:
    """Return the ops that the compiler leaves on the CPU; None when it writes no file."""
    run = qnn_sdk.run(qnn_sdk.find(), tflite, soc)
    graph = read_model(tflite).main
    if run.log.nothing_selected:
        return {op.index for op in graph.ops}
    return set(host_ops(graph, read_model(run.data).main) or ()) if run.data else None


def _foretold(tflite: bytes, soc: str) -> set[int] | None:
    report = check(read_model(tflite), get_target("hexagon"), soc=soc)
    if any(reason.code == "compile-fails" for op in report.ops for reason in op.reasons):
        return None
    return {op.index for op in report.ops if op.placement is not Placement.ACCELERATOR}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("soc", SOCS)
def test_the_table_is_what_the_compiler_does(soc: str) -> None:
    """On a draw of 25 of the 1,500 models that it was measured with, op for op."""
    battery = _battery()
    cases = list(battery.cases())
    wrong = {}
    for case in random.Random(soc).sample(cases, 25):
        tflite = battery.model(case)
        ours, theirs = _foretold(tflite, soc), _compiled(tflite, soc)
        if ours != theirs:
            wrong[case.op, case.name, case.dtype] = ours, theirs
    assert not wrong


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("soc", SOCS)
def test_whole_models_are_placed_as_the_compiler_places_them(soc: str) -> None:
    """The embedded example in float, which is not a part of the battery."""
    tflite = (ROOT / "tests" / "data" / "digits_float.tflite").read_bytes()
    assert _foretold(tflite, soc) == _compiled(tflite, soc)
