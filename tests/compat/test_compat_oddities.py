"""Models that are more than a chain of layers are placed, or refused with a reason, on every target and variant.

Custom and Select TF ops, control flow, variables, hash tables, several signatures, complex numbers and strings come
from the real converter; 4-bit and sparse weights are built by hand.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compat_graphs import model, tensor, weights

from edgepack.child import Worker
from edgepack.compat import check
from edgepack.findings import Placement, Report
from edgepack.graph import Model, read_model
from edgepack.profiles import all_targets

VARIANTS = [(p.id, v.id) for p in all_targets().values() for v in p.variants]

#: File -> ops that run on no accelerator, with their code on accelerators and on the CPU.
ODD = {
    "branch": {"IF": ("op-not-supported", "built-in-kernel")},
    "complex": {
        "RFFT2D": ("op-not-supported", "built-in-kernel"),
        "COMPLEX_ABS": ("op-not-supported", "built-in-kernel"),
    },
    "custom": {"CUSTOM:MatrixInverse": ("custom-op", "custom-op")},
    "flex": {"CUSTOM:FlexMatrixInverse": ("flex-op", "flex-op")},
    "hybrid": {},
    "loop": {"WHILE": ("op-not-supported", "built-in-kernel")},
    "two signatures": {},
    "variable": {
        "CALL_ONCE": ("op-not-supported", "built-in-kernel"),
        "VAR_HANDLE": ("op-not-supported", "built-in-kernel"),
        "READ_VARIABLE": ("op-not-supported", "built-in-kernel"),
        "ASSIGN_VARIABLE": ("op-not-supported", "built-in-kernel"),
    },
    "words": {
        "CALL_ONCE": ("op-not-supported", "built-in-kernel"),
        "HASHTABLE": ("op-not-supported", "built-in-kernel"),
        "HASHTABLE_FIND": ("op-not-supported", "built-in-kernel"),
    },
}
#: Each target's codes for a convolution with 4-bit weights; empty where it supports them.
FOUR_BITS: dict[tuple[str, str], set[str]] = {
    ("android-gpu", "legacy"): {"weights-dtype"},
    ("android-gpu", "ml-drift"): set(),
    ("cpu", ""): {"weights-dtype"},
    ("edgetpu", ""): {"weights-dtype"},
    ("hexagon", "htp"): {"dtype-combination"},
    ("hexagon", "dsp-legacy"): {"weights-dtype"},
}
#: The file and the variant whose variables are kept outside of what is compiled.
OUTSIDE = ("variable", "htp")
#: Files with more than one subgraph.
SEVERAL = {"branch", "loop", "two signatures", "variable", "words"}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The converter's files of the models, by name."""
    folder: Path = tmp_path_factory.mktemp("odd")
    with Worker(writable=[folder]) as worker:
        worker.call("converter_oddities:write", str(folder), timeout=300)
    return {path.stem: read_model(path) for path in folder.glob("*.tflite")}


def assert_explained(report: Report) -> None:
    """Assert that each op is on the accelerator or has reasons, each with a fix."""
    for finding in report.ops:
        assert bool(finding.reasons) == (finding.placement is not Placement.ACCELERATOR), finding
        assert all(reason.message and reason.fix for reason in finding.reasons), finding


@pytest.mark.slow
def test_every_odd_model_has_expectations(odd: dict[str, Model]) -> None:
    """No file of the converter goes unchecked."""
    assert set(odd) == set(ODD)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "variant"), VARIANTS)
@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_placed_or_refused_with_a_reason(
    odd: dict[str, Model], name: str, target: str, variant: str
) -> None:
    """Their unusual ops run on the host, or nowhere, with a reason; only ops that run nowhere make the file unfit."""
    report = check(odd[name], all_targets()[target], variant=variant, soc="SM8550" if variant == "htp" else "")
    assert_explained(report)
    for op, (accelerator, cpu) in ODD[name].items():
        findings = [finding for finding in report.ops if finding.op == op]
        assert findings
        for finding in findings:
            nowhere = op.startswith("CUSTOM:")
            assert finding.placement is (Placement.UNSUPPORTED if nowhere else Placement.HOST)
            expected = "state-on-host" if (name, variant) == OUTSIDE else cpu if target == "cpu" else accelerator
            assert expected in {reason.code for reason in finding.reasons}
    assert report.compatible == (name not in {"custom", "flex"})
    assert ("several-subgraphs" in {reason.code for reason in report.model_reasons}) == (
        name in SEVERAL and (name, variant) != OUTSIDE
    )


@pytest.mark.slow
def test_variables_keep_the_order_of_the_file(odd: dict[str, Model]) -> None:
    """An op that reads a variable after a change is not grouped with the ops that change it."""
    report = check(odd["variable"], all_targets()["android-gpu"])
    placed = {finding.op: finding for finding in report.ops}
    assert placed["ADD"].placement is Placement.ACCELERATOR
    assert [reason.code for reason in placed["MUL"].reasons] == ["outside-partition"]


def convolution(filters: dict[str, Any]) -> Model:
    """Return one convolution with these weights."""
    bias = tensor((8,), "INT32", np.zeros(8, np.int32), scales=0)
    options = {"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "padding": "SAME", "version": 3}
    ops = [("CONV_2D", [0, 1, 2], [3], options)]
    return model(ops, [tensor(), filters, bias, tensor((1, 8, 8, 8))], inputs=[0], outputs=[3])


@pytest.mark.parametrize(("target", "variant"), VARIANTS)
def test_four_bit_and_sparse_weights_are_placed_or_refused_with_a_reason(target: str, variant: str) -> None:
    """Every target places or refuses a layer with 4-bit weights and one with sparse weights."""
    narrow = weights((8, 3, 3, 4)) | {"dtype": "INT4"}
    report = check(convolution(narrow), all_targets()[target], variant=variant)
    assert_explained(report)
    codes = {reason.code for reason in report.ops[0].reasons}
    assert codes == FOUR_BITS[target, variant]
    sparse = check(convolution(weights((8, 3, 3, 4)) | {"has_sparsity": True}), all_targets()[target], variant=variant)
    assert_explained(sparse)
    assert "sparse-weights" in {reason.code for reason in sparse.ops[0].reasons}
