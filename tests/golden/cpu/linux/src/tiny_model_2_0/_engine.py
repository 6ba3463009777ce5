"""Loads and runs a .tflite: finds the runtime and the accelerator, steps down to the CPU and says why.

Made by edgepack; the same file in every Linux bundle.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._tail import Step, finish

DATA = Path(__file__).resolve().parent / "data"
_LOG = logging.getLogger(__name__)

# (module, distribution): the maintained runtime first.
_RUNTIMES = (("ai_edge_litert.interpreter", "ai-edge-litert"), ("tflite_runtime.interpreter", "tflite-runtime"))
_EDGETPU_LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: Name in the model.
        field: Name in this package.
        shape: Shape, batch included.
        dtype: NumPy dtype of the raw values.
        scale: real = scale * (raw - zero_point); 0.0 when raw values stand for themselves.
        zero_point: See `scale`.
        labels_file: File with one label a line; empty when there is none.
        tail: What is done to an output's real values.
    """

    name: str
    field: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    labels_file: str = ""
    tail: tuple[Step, ...] = ()

    def shaped(self, values: ArrayLike) -> NDArray[Any]:
        """Return values in the tensor's shape; a missing batch dimension of 1 is added.

        Raises:
            ValueError: Another shape.
        """
        array = np.asarray(values)
        if array.shape == self.shape or (self.shape[:1] == (1,) and array.shape == self.shape[1:]):
            return array.reshape(self.shape)
        raise ValueError(f"'{self.field}': expected shape {list(self.shape)}, got {list(array.shape)}")

    def quantize(self, real: ArrayLike) -> NDArray[Any]:
        """Return real values as raw ones: round(real * (1 / scale)) + zero_point, halves to even, saturated.

        In float32 and by the reciprocal: bit for bit what the runtime's QUANTIZE does with its default kernels.

        Raises:
            ValueError: Another shape, NaN, or values that the tensor's type cannot hold.
        """
        array = self.shaped(real)
        dtype = np.dtype(self.dtype)
        if self.scale == 0.0:
            if not np.can_cast(array.dtype, dtype, "same_kind") and not np.array_equal(array, array.astype(dtype)):
                raise ValueError(f"'{self.field}': expected {dtype.name} values, got {array.dtype.name}")
            return np.ascontiguousarray(array, dtype=dtype)
        limits = np.iinfo(dtype)
        scaled = array.astype(np.float32) * (np.float32(1) / np.float32(self.scale))
        if np.isnan(scaled).any():
            raise ValueError(f"'{self.field}': expected numbers, got NaN")
        # Far-away values first: they would not fit into an integer.
        scaled = np.clip(scaled, limits.min - self.zero_point - 1, limits.max - self.zero_point + 1)
        return np.clip(np.rint(scaled).astype(np.int64) + self.zero_point, limits.min, limits.max).astype(dtype)

    def dequantize(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return raw values as real ones, float32; unquantized tensors as they are."""
        if self.scale == 0.0:
            return raw
        return ((raw.astype(np.int64) - self.zero_point) * float(self.scale)).astype(np.float32)

    def finish(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Return what the caller gets of raw values: real ones, after the steps that are left to the loader."""
        return finish(self.tail, self.dequantize(raw))


@dataclass(frozen=True)
class Status:
    """What runs the model.

    Attributes:
        runtime: Name and version of the runtime.
        accelerator: `edgetpu` or `cpu`.
        model: File that was loaded.
        reasons: Why not something better; empty when the best was taken.
    """

    runtime: str
    accelerator: str
    model: str
    reasons: tuple[str, ...] = ()


class Engine:
    """One loaded model. Safe to use from several threads; runs one call at a time.

    Args:
        inputs: Inputs in the model's order.
        outputs: Outputs in the model's order.
        host: File that runs on the CPU.
        compiled: File for the Edge TPU, empty when there is none.
        threads: Threads of the CPU kernels.
        accelerator: `auto`, `require` or `never`.
        device: Which Edge TPU.

    Attributes:
        status: What runs the model, and why not something better.
        outputs: Outputs in the model's order.
    """

    status: Status

    def __init__(
        self,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        host: str,
        compiled: str | None = None,
        threads: int = 1,
        accelerator: str = "auto",
        device: str = "",
    ) -> None:
        if accelerator not in ("auto", "require", "never"):
            raise ValueError(f"accelerator: expected 'auto', 'require' or 'never', got '{accelerator}'")
        self._inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._lock = threading.Lock()
        self._runtime, self._runtime_name = _find_runtime()
        self._interpreter: Any = None
        reasons: list[str] = []
        # None: this bundle is not for an accelerator at all.
        if compiled is not None and accelerator != "never":
            self._interpreter = self._open_edgetpu(compiled, device, threads, reasons)
        if self._interpreter is not None:
            self.status = Status(self._runtime_name, "edgetpu", compiled or "")
        else:
            if accelerator == "require":
                raise RuntimeError("the Edge TPU was required: " + "; ".join(reasons))
            self._interpreter = self._open(host, threads, [])
            self.status = Status(self._runtime_name, "cpu", host, tuple(reasons))
            if reasons:
                _LOG.warning("running %s on the CPU: %s", host, "; ".join(reasons))
        self._input_indices = [detail["index"] for detail in self._interpreter.get_input_details()]
        self._output_indices = [detail["index"] for detail in self._interpreter.get_output_details()]

    def __enter__(self) -> Engine:
        """Return the engine; leaving the block closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the engine."""
        self.close()

    def close(self) -> None:
        """Free the model and the accelerator."""
        with self._lock:
            self._interpreter = None

    def reset(self) -> None:
        """Forget the state of a model that has one (LSTM), so that the next run is like the first."""
        with self._lock:
            self._live().reset_all_variables()

    def run_raw(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the model on raw values.

        Args:
            inputs: One array per input, in the model's order, dtype and shape.

        Returns:
            One array per output, in the model's order, dtype and shape.

        Raises:
            ValueError: Another number of inputs, another dtype or shape.
        """
        if len(inputs) != len(self._inputs):
            raise ValueError(f"expected {len(self._inputs)} inputs, got {len(inputs)}")
        for tensor, array in zip(self._inputs, inputs):
            if array.dtype != np.dtype(tensor.dtype) or array.shape != tensor.shape:
                raise ValueError(
                    f"'{tensor.field}': expected {tensor.dtype} {list(tensor.shape)}, "
                    f"got {array.dtype.name} {list(array.shape)}"
                )
        with self._lock:
            interpreter = self._live()
            for index, array in zip(self._input_indices, inputs):
                interpreter.set_tensor(index, np.ascontiguousarray(array))
            interpreter.invoke()
            return [np.array(interpreter.get_tensor(index), copy=True) for index in self._output_indices]

    def run_real(self, values: Sequence[ArrayLike]) -> list[NDArray[Any]]:
        """Run the model on real values: quantizes, runs, dequantizes, does what is left to the loader.

        Args:
            values: One array per input, in the model's order.

        Raises:
            ValueError: A shape or type that the model does not take.
        """
        raw = self.run_raw([tensor.quantize(value) for tensor, value in zip(self._inputs, values)])
        return [tensor.finish(array) for tensor, array in zip(self.outputs, raw)]

    def _live(self) -> Any:
        if self._interpreter is None:
            raise ValueError("the model is closed")
        return self._interpreter

    def _open(self, filename: str, threads: int, delegates: list[Any]) -> Any:
        path, chosen = str(DATA / filename), delegates or None
        try:
            interpreter = self._runtime.Interpreter(path, num_threads=threads, experimental_delegates=chosen)
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError):
            # XNNPACK, on by default, gives up on some models that the plain kernels run.
            plain = getattr(self._runtime, "OpResolverType", None)
            if plain is None:
                raise
            interpreter = self._runtime.Interpreter(
                path,
                num_threads=threads,
                experimental_delegates=chosen,
                experimental_op_resolver_type=plain.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            interpreter.allocate_tensors()
        return interpreter

    def _open_edgetpu(self, compiled: str, device: str, threads: int, reasons: list[str]) -> Any:
        """Return an interpreter on the Edge TPU, or None with the reason added to `reasons`."""
        if not compiled or not (DATA / compiled).is_file():
            reasons.append("this bundle has no model compiled for the Edge TPU")
            return None
        library = _EDGETPU_LIBRARIES.get(sys.platform, _EDGETPU_LIBRARIES["linux"])
        try:
            # Looked for first: a delegate object that failed to load complains again when it is collected.
            ctypes.CDLL(library)
            # Without a device both runtimes raise ValueError.
            delegate = self._runtime.load_delegate(library, {"device": device} if device else {})
        except (OSError, ValueError, AttributeError) as error:
            # AttributeError: a library of that name which is not libedgetpu.
            wanted = f" '{device}'" if device else ""
            reasons.append(f"no Edge TPU{wanted}: {_first_line(error)}")
            return None
        try:
            return self._open(compiled, threads, [delegate])
        except (RuntimeError, ValueError) as error:
            reasons.append(f"{library} does not run {compiled}: {_first_line(error)}")
            return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _find_runtime() -> tuple[Any, str]:
    for module, distribution in _RUNTIMES:
        try:
            found = importlib.import_module(module)
        except ImportError:
            continue
        try:
            return found, f"{distribution} {importlib.metadata.version(distribution)}"
        except importlib.metadata.PackageNotFoundError:
            return found, distribution
    raise ImportError("no TFLite runtime found: pip install ai-edge-litert (or tflite-runtime)")


@cache
def labels(filename: str) -> tuple[str, ...]:
    """Return the labels of a file in the data folder."""
    return tuple((DATA / filename).read_text(encoding="utf-8").split("\n")[:-1])


def rank(outputs: Sequence[Tensor], field: str, values: Any, k: int) -> list[tuple[str, float]]:
    """Return the `k` labels with the highest values of an output, best first; equal values keep the labels' order.

    Raises:
        ValueError: The output has no labels.
    """
    tensor = next((tensor for tensor in outputs if tensor.field == field and tensor.labels_file), None)
    if tensor is None:
        known = ", ".join(t.field for t in outputs if t.labels_file)
        raise ValueError(f"output: expected one of {known}, got '{field}'")
    names = labels(tensor.labels_file)
    scores = np.asarray(values).reshape(-1)[: len(names)]
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:k]
    return [(names[i], float(scores[i])) for i in order]
