"""Loads and runs a .tflite: finds the runtime and the accelerator, steps down to the CPU and says why.

Made by edgepack; the same file in every Linux bundle.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import logging
import re
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
_INSTALL = "install a libedgetpu of runtime version {} or later (16.0 has 14: the package libedgetpu1-std)"


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
        tensor: Name in the file, where segments of a model are told by it.
    """

    name: str
    field: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    labels_file: str = ""
    tail: tuple[Step, ...] = ()
    tensor: str = ""

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


class _Stage:
    """A file that runs: the whole model, whose tensors are told by position, or a segment, by name."""

    def __init__(self, interpreter: Any, *, named: bool) -> None:
        self._interpreter = interpreter
        self._inputs = _keys(interpreter.get_input_details(), "input", named)
        self._outputs = _keys(interpreter.get_output_details(), "output", named)

    def reset(self) -> None:
        """Forget the state of a file that has one."""
        self._interpreter.reset_all_variables()

    def run(self, values: dict[str, NDArray[Any]]) -> None:
        """Take the inputs out of `values` and add the outputs."""
        for key, index in self._inputs:
            self._interpreter.set_tensor(index, np.ascontiguousarray(values[key]))
        self._interpreter.invoke()
        for key, index in self._outputs:
            values[key] = np.array(self._interpreter.get_tensor(index), copy=True)


def _keys(details: list[dict[str, Any]], kind: str, named: bool) -> list[tuple[str, int]]:
    return [(detail["name"] if named else f"{kind} {i}", detail["index"]) for i, detail in enumerate(details)]


class Engine:
    """One loaded model. Safe to use from several threads; runs one call at a time.

    Args:
        inputs: Inputs in the model's order.
        outputs: Outputs in the model's order.
        host: File that runs on the CPU.
        compiled: Files for the Edge TPU, run one after the other; empty when there are none, None for a model that is
            not for an Edge TPU at all.
        runtime_version: Version of libedgetpu's runtime that these files need, 0 for any.
        threads: Threads of the CPU kernels.
        accelerator: `auto`, `require` or `never`.
        device: Which Edge TPU; for segments one for each, separated by commas.

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
        compiled: Sequence[str] | None = None,
        runtime_version: int = 0,
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
        self._stages: list[_Stage] = []
        reasons: list[str] = []
        if compiled is not None and accelerator != "never":
            self._stages = self._open_edgetpu(compiled, runtime_version, device, threads, reasons)
        if self._stages:
            self.status = Status(self._runtime_name, "edgetpu", ", ".join(compiled or ()), tuple(reasons))
            for reason in reasons:
                _LOG.warning("running on the Edge TPU: %s", reason)
        else:
            if accelerator == "require":
                raise RuntimeError("the Edge TPU was required: " + "; ".join(reasons))
            self._stages = [_Stage(self._open(host, threads, []), named=False)]
            self.status = Status(self._runtime_name, "cpu", host, tuple(reasons))
            if reasons:
                _LOG.warning("running %s on the CPU: %s", host, "; ".join(reasons))
        named = len(self._stages) > 1
        self._input_keys = [t.tensor if named else f"input {i}" for i, t in enumerate(self._inputs)]
        self._output_keys = [t.tensor if named else f"output {i}" for i, t in enumerate(self.outputs)]

    def __enter__(self) -> Engine:
        """Return the engine; leaving the block closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the engine."""
        self.close()

    def close(self) -> None:
        """Free the model and the accelerator."""
        with self._lock:
            self._stages = []

    def reset(self) -> None:
        """Forget the state of a model that has one (LSTM), so that the next run is like the first."""
        with self._lock:
            for stage in self._live():
                stage.reset()

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
            values = dict(zip(self._input_keys, inputs))
            for stage in self._live():
                stage.run(values)
            return [values[key] for key in self._output_keys]

    def run_real(self, values: Sequence[ArrayLike]) -> list[NDArray[Any]]:
        """Run the model on real values: quantizes, runs, dequantizes, does what is left to the loader.

        Args:
            values: One array per input, in the model's order.

        Raises:
            ValueError: A shape or type that the model does not take.
        """
        raw = self.run_raw([tensor.quantize(value) for tensor, value in zip(self._inputs, values)])
        return [tensor.finish(array) for tensor, array in zip(self.outputs, raw)]

    def _live(self) -> list[_Stage]:
        if not self._stages:
            raise ValueError("the model is closed")
        return self._stages

    def _open(self, filename: str, threads: int, delegates: list[Any]) -> Any:
        path, chosen = str(DATA / filename), delegates or None
        try:
            interpreter = self._runtime.Interpreter(path, num_threads=threads, experimental_delegates=chosen)
            interpreter.allocate_tensors()
        except SystemError as error:
            # What tflite-runtime's extension, built for NumPy 1, does under a later one.
            raise ImportError(f"{self._runtime_name} fails on NumPy {np.__version__}: pip install 'numpy<2'") from error
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

    def _open_edgetpu(
        self, compiled: Sequence[str], needed: int, device: str, threads: int, reasons: list[str]
    ) -> list[_Stage]:
        """Return the files on Edge TPUs, or nothing with the reason added to `reasons`."""
        if not compiled or not all((DATA / name).is_file() for name in compiled):
            reasons.append("this bundle has no model compiled for the Edge TPU")
            return []
        library = _EDGETPU_LIBRARIES.get(sys.platform, _EDGETPU_LIBRARIES["linux"])
        try:
            # Looked for first: a delegate object that failed to load complains again when it is collected.
            version = _runtime_version(ctypes.CDLL(library))
        except OSError as error:
            reasons.append(f"no Edge TPU: {_first_line(error)}: {_INSTALL.format(needed)}")
            return []
        if 0 < version < needed:
            reasons.append(
                f"{library} has runtime version {version}, this model needs {needed}: {_INSTALL.format(needed)}"
            )
            return []
        delegates = self._delegates(library, device, len(compiled), reasons)
        try:
            return [
                _Stage(self._open(name, threads, [delegate]), named=len(compiled) > 1)
                for name, delegate in zip(compiled, delegates)
            ]
        except (RuntimeError, ValueError) as error:
            reasons.append(f"{library} does not run {', '.join(compiled)}: {_first_line(error)}")
            return []

    def _delegates(self, library: str, device: str, count: int, reasons: list[str]) -> list[Any]:
        """Return a delegate for each file, or nothing with the reason added to `reasons`.

        Segments get an Edge TPU each; where there are fewer, they take turns.
        """
        wanted = device.split(",") if device else [f":{i}" for i in range(count)] if count > 1 else [""]
        if len(wanted) not in (1, count):
            reasons.append(f"device: expected one Edge TPU, or one for each of {count} segments, got '{device}'")
            return []
        found: list[Any] = []
        for name in wanted * (count // len(wanted)):
            try:
                found.append(self._delegate(library, name))
            except (ValueError, AttributeError) as error:
                # AttributeError: a library of that name which is not libedgetpu.
                if found and not device:
                    break
                which = f" '{name}'" if name else ""
                reasons.append(f"no Edge TPU{which}: {_first_line(error)}")
                return []
        if len(found) < count:
            there = len(found)
            plural = "s" if there > 1 else ""
            reasons.append(f"{count} segments take turns on {there} Edge TPU{plural}, which is slower")
            found += [self._delegate(library, wanted[i % there]) for i in range(there, count)]
        return found

    def _delegate(self, library: str, device: str) -> Any:
        # Without a device both runtimes raise ValueError.
        return self._runtime.load_delegate(library, {"device": device} if device else {})


def _runtime_version(library: ctypes.CDLL) -> int:
    """Return the version in libedgetpu's `... RuntimeVersion(14)`, 0 when the library does not say."""
    try:
        function = library.edgetpu_version
    except AttributeError:
        return 0
    function.restype = ctypes.c_char_p
    match = re.search(rb"RuntimeVersion\((\d+)\)", function() or b"")
    return int(match.group(1)) if match else 0


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
