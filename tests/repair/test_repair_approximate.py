"""Approximate rewrites are opt-in and stay within the error that their message states."""

import numpy as np
import pytest
from builders import run
from repair_nets import SITES, refusing, unary

from edgepack.choices import Repair
from edgepack.graph import read_model
from edgepack.repair import APPROXIMATE, repair

_GRID = np.linspace(-12, 12, 4801, dtype=np.float32).reshape(1, 1, 4801, 1)


@pytest.mark.parametrize(
    ("name", "limit", "ops"),
    [
        ("HARD_SWISH", 2e-6, ["ADD", "MUL", "MUL"]),
        ("GELU", 0.0205, ["MUL", "LOGISTIC", "MUL"]),
        ("ELU", 0.0043, ["MAXIMUM", "MINIMUM", "MUL", "TANH", "MUL", "ADD", "MUL", "TANH", "MUL", "ADD"]),
    ],
)
def test_is_as_near_as_it_says(name: str, limit: float, ops: list[str]) -> None:
    """Over [-12, 12] the approximation stays within the error its message states."""
    before = unary(name, _GRID.shape)
    result = repair(before, refusing(name), mode=Repair.APPROXIMATE)
    assert [op.name for op in read_model(result.tflite).main.ops] == ops
    assert [(rewrite.exact, rewrite.moved_ops) for rewrite in result.rewrites] == [(False, 1)]
    error = np.abs(run(result.tflite, {"image": _GRID})[0] - run(before, {"image": _GRID})[0]).max()
    assert limit / 100 < error <= limit or error <= 1e-6


@pytest.mark.parametrize("name", ["HARD_SWISH", "GELU", "ELU"])
def test_is_not_done_without_being_asked_for(name: str) -> None:
    """In mode `exact` an activation function without an exact equivalent is not rewritten."""
    before = unary(name)
    assert repair(before, refusing(name)).tflite == before


def test_exact_rewrites_are_done_as_well() -> None:
    """Mode `approximate` applies exact rewrites as well, and reports which are exact."""
    file, score, codes, _ = SITES["grouped"]
    result = repair(file(), score, mode=Repair.APPROXIMATE)
    assert [(rewrite.code, rewrite.exact) for rewrite in result.rewrites] == [(code, True) for code in codes]


def test_every_approximation_is_tried_here() -> None:
    """Every approximate rewrite has a limit in the test above."""
    assert len(APPROXIMATE) == 3
