"""Qualcomm's compiler in tests: where it is missing, and models that it fails on."""

import importlib.util
from typing import Any

import builders
import pytest

from edgepack.compilers import qnn_sdk, qnn_simulator
from edgepack.errors import ToolMissingError

try:
    qnn_sdk.find()
    MISSING = ""
except ToolMissingError as error:
    MISSING = error.message

needs_compiler = pytest.mark.skipif(bool(MISSING), reason=f"Qualcomm's compiler is not installed: {MISSING}")


try:
    qnn_simulator.find_simulator()
    NO_SIMULATOR = MISSING
except ToolMissingError as error:
    NO_SIMULATOR = error.message

needs_simulator = pytest.mark.skipif(
    bool(NO_SIMULATOR), reason=f"Qualcomm's simulator is not installed: {NO_SIMULATOR}"
)  # fmt: skip


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in modules else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def clashing_names() -> bytes:
    """Two inputs whose names are the same once special characters are replaced."""
    net = builders.Net()
    x, y, z = (net.tensor(name, (1, 4)) for name in ("a/b", "a:b", "sum"))
    net.op("ADD", [x, y], [z])
    return net.build([x, y], [z])


def complex_tensor() -> bytes:
    """A graph for the accelerator with one complex tensor at an op for the CPU."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    c, real = net.tensor("c", (1, 4), dtype="COMPLEX64"), net.tensor("real", (1, 4))
    net.op("ABS", [x], [y])
    net.op("REAL", [c], [real])
    return net.build([x, c], [y, real])
