"""Replays the golden vectors that came with the model. Made by edgepack; the same file in every Linux bundle."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._engine import DATA, Engine


@dataclass(frozen=True)
class Difference:
    """One output of one golden case, compared.

    Attributes:
        case: Number of the case.
        output: Number of the output.
        largest: Largest absolute difference of the raw values: steps for integers, absolute for floats; infinite when
            the loader makes something else of the golden raw values than it should.
        allowed: What is allowed.
    """

    case: int
    output: int
    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        """True when the difference is allowed; NaN is not."""
        return self.largest <= self.allowed


def self_test(engine: Engine) -> tuple[str, list[Difference]]:
    """Run every golden case.

    Returns:
        The tolerance that applies (`same`, `other` or `accelerator`, as in golden/index.json) and the differences.
    """
    folder = DATA / "golden"
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    kind = "other"
    if engine.status.accelerator != "cpu":
        kind = "accelerator"
    elif (index["machine"], index["runtime"]) == (platform.machine(), engine.status.runtime):
        kind = "same"
    tolerance = index["tolerance"][kind]
    found = []
    for number, case in enumerate(index["cases"]):
        engine.reset()
        results = engine.run_raw([_read(folder, entry) for entry in case["inputs"]])
        for position, (entry, actual) in enumerate(zip(case["outputs"], results)):
            expected = _read(folder, entry)
            if expected.dtype.kind == "f":
                allowed = tolerance["relative"] * float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
            else:
                allowed = float(tolerance["steps"] if index["quantized_outputs"][position] else 0)
            largest = _largest(expected, actual)
            tensor = engine.outputs[position]
            if tensor.tail and not _same(_read(folder, case["finished"][position]), tensor.finish(expected)):
                largest = float("inf")
            found.append(Difference(number, position, largest, allowed))
    return kind, found


def _read(folder: Any, entry: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(entry["dtype"])
    raw = np.frombuffer((folder / entry["file"]).read_bytes(), dtype.newbyteorder("<"))
    return raw.astype(dtype).reshape(entry["shape"])


def _same(expected: NDArray[Any], actual: NDArray[Any]) -> bool:
    """Return whether finished values are the golden ones: classes exactly, probabilities to 1e-5."""
    magnitude = float(np.abs(expected).max(initial=0)) if expected.dtype.kind == "f" else 0.0
    return _largest(expected, actual) <= 1e-5 * magnitude


def _largest(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return float("inf")
    wide, other = expected.astype(np.float64), actual.astype(np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        largest = float(np.where(same, 0.0, np.abs(wide - other)).max(initial=0.0))
    return float("inf") if np.isnan(largest) else largest
