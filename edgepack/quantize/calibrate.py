"""Calibration: run the float model on a representative dataset and collect statistics of every activation.

A copy of the model with every activation as a graph output runs in the LiteRT interpreter with XNNPACK, sample by
sample. Each activation is reduced to its `Statistics` without copying large ones out of the interpreter.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import QuantizationError, SamplesError
from edgepack.graph import Model, read_model
from edgepack.graph.edit import expose_activations, float_activations, tensor_keys
from edgepack.quantize.histogram import Counts, Floats, Statistics
from edgepack.runtime.memory import require_memory
from edgepack.runtime.state import FreshInterpreter
from edgepack.text import first_line

Sample = Mapping[str, npt.NDArray[Any]]

_FORMAT = 1

#: Activations up to this size are collected over up to `_BLOCK_SAMPLES` samples and reduced together. Measured on 100
#: samples of keyword spotting and 128 of digits: without blocks calibration takes 1.7 and 3.3 times as long; 4 KiB
#: instead of 64 KiB takes 1.5 and 1.7 times as long, 1 MiB saves nothing more. 8 samples instead of 32 take up to 1.25
#: times as long, 128 save nothing more.
_SMALL_BYTES = 1 << 16
_BLOCK_SAMPLES = 32

#: Upper limit of the memory of all blocks together; a model with many activations gets shorter blocks.
_BLOCK_BYTES = 16 << 20


@dataclass
class Calibration:
    """Statistics of a model's activations over a set of samples.

    Attributes:
        samples: Number of samples.
        tensors: Statistics by `edgepack.graph.edit.tensor_keys` key, in the order of the file.
    """

    samples: int
    tensors: dict[str, Statistics]

    def merge(self, other: "Calibration") -> None:
        """Add the statistics of other samples of the same model.

        Raises:
            QuantizationError: The calibrations are of different models.
        """
        if self.tensors.keys() != other.tensors.keys():
            raise QuantizationError("the calibrations to merge are of different models: their tensor names differ")
        self.samples += other.samples
        for key, statistics in self.tensors.items():
            statistics.merge(other.tensors[key])

    def to_bytes(self) -> bytes:
        """Return the calibration as .npz; equal calibrations give equal bytes."""
        statistics = list(self.tensors.values())
        header = {"format": _FORMAT, "samples": self.samples, "names": list(self.tensors)}
        arrays: dict[str, npt.NDArray[Any]] = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "count": np.array([s.count for s in statistics], np.int64),
            "extremes": np.array([(s.minimum, s.maximum) for s in statistics], np.float64).reshape(-1, 2),
            "place": np.array([(s.exponent, s.start) for s in statistics], np.int64).reshape(-1, 2),
            "sizes": np.array([(s.bins.size, s.channel_minimum.size) for s in statistics], np.int64).reshape(-1, 2),
            "bins": _joined([s.bins for s in statistics], np.int64),
            "channel_minimum": _joined([s.channel_minimum for s in statistics], np.float32),
            "channel_maximum": _joined([s.channel_maximum for s in statistics], np.float32),
        }
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Calibration":
        """Return the calibration that `to_bytes` wrote.

        Raises:
            QuantizationError: The bytes are not a calibration of this format.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                header = json.loads(arrays["header"].tobytes())
                if header["format"] != _FORMAT:
                    raise ValueError(f"format {header['format']}")
                sizes = arrays["sizes"]
                bins = np.split(arrays["bins"], np.cumsum(sizes[:, 0])[:-1])
                low = np.split(arrays["channel_minimum"], np.cumsum(sizes[:, 1])[:-1])
                high = np.split(arrays["channel_maximum"], np.cumsum(sizes[:, 1])[:-1])
                counts, extremes, places = (arrays[name].tolist() for name in ("count", "extremes", "place"))
                tensors = {
                    name: _restored(counts[i], extremes[i], places[i], (bins[i], low[i], high[i]))
                    for i, name in enumerate(header["names"])
                }
                return cls(int(header["samples"]), tensors)
        except Exception as error:
            raise QuantizationError(f"not a calibration file that this version can read: {error}") from error


def _restored(
    count: int, extremes: Sequence[float], place: Sequence[int], arrays: tuple[Counts, Floats, Floats]
) -> Statistics:
    bins, low, high = arrays
    # Copies: the arrays are views on larger ones.
    return Statistics(count, extremes[0], extremes[1], place[0], place[1], bins.copy(), low.copy(), high.copy())


def merged(parts: Sequence[Calibration]) -> Calibration:
    """Return the calibration of all samples of some calibrations of one model, which stay as they are.

    Args:
        parts: At least one.
    """
    whole = Calibration(0, {key: Statistics() for key in parts[0].tensors})
    for part in parts:
        whole.merge(part)
    return whole


def calibrate(
    tflite: bytes,
    samples: Iterable[Sample],
    threads: int = 1,
    *,
    on_sample: Callable[[int], None] | None = None,
) -> Calibration:
    """Run a float model on samples and return the statistics of its activations.

    Args:
        tflite: A float .tflite.
        samples: The representative dataset: arrays keyed by `Model.input_names()`, in the input's shape, with or
            without its batch dimension of 1.
        threads: Threads of the interpreter.
        on_sample: Called after each sample with the number of samples run so far.

    Raises:
        SamplesError: There are no samples, or one does not match the model's inputs.
        QuantizationError: The runtime cannot run the model, or an activation is NaN or infinite.
    """
    model = read_model(tflite)
    keys = tensor_keys(model.main)
    require_memory(model, keeps_all=True)
    collector = _Collector({index: keys[index] for index in float_activations(model.main)}, model)
    exposed = expose_activations(tflite, model)
    fresh = FreshInterpreter(model, lambda: _runtime(exposed, threads), stream=True)
    count = 0
    for count, sample in enumerate(samples, 1):
        runtime = fresh.start()
        for index, values in zip(model.main.inputs, _arrays(model, sample, count), strict=True):
            runtime.set_tensor(index, values)
            collector.add(index, values)
        _invoke(runtime, count)
        for index in collector.computed:
            collector.add(index, runtime.tensor(index)())
        collector.end_sample()
        if on_sample is not None:
            on_sample(count)
    if not count:
        raise SamplesError("calibration needs samples, got none", hint="100 to 500 samples are typical")
    collector.flush()
    return Calibration(count, {keys[index]: statistics for index, statistics in collector.statistics.items()})


class _Collector:
    """Reduces activations to statistics.

    A small activation is copied into a block and reduced together with those of the next samples, because NumPy's cost
    per call would exceed that of the model; a large one is reduced in the interpreter's memory.
    """

    def __init__(self, names: Mapping[int, str], model: Model) -> None:
        self.statistics = {index: Statistics() for index in names}
        self.computed = [index for index in names if index not in model.main.inputs]
        self._names = names
        self._sample = 0
        self._pending = 0
        tensors = [model.main.tensors[index] for index in names]
        small = [tensor for tensor in tensors if not tensor.is_dynamic and tensor.elements * 4 <= _SMALL_BYTES]
        total = sum(tensor.elements * 4 for tensor in small)
        self._length = max(1, min(_BLOCK_SAMPLES, _BLOCK_BYTES // max(1, total)))
        self._blocks = {t.index: np.empty((self._length, *t.shape), np.float32) for t in small}

    def add(self, index: int, values: npt.NDArray[Any]) -> None:
        block = self._blocks.get(index)
        if block is not None and block.shape[1:] == values.shape:
            block[self._pending] = values
        elif index in self.statistics:
            self.statistics[index].observe(values)
            self._require_finite(index, values[np.newaxis], self._sample)

    def end_sample(self) -> None:
        self._sample += 1
        self._pending += 1
        if self._pending == self._length:
            self.flush()

    def flush(self) -> None:
        first = self._sample - self._pending
        for index, block in self._blocks.items():
            if self._pending:
                self.statistics[index].observe(block[: self._pending], self._pending)
                self._require_finite(index, block[: self._pending], first)
        self._pending = 0

    def _require_finite(self, index: int, block: npt.NDArray[Any], first: int) -> None:
        if self.statistics[index].is_finite:
            return
        bad = next(i for i, values in enumerate(block) if not np.isfinite(values).all())
        raise QuantizationError(
            f"tensor '{self._names[index]}' is NaN or infinite on calibration sample {first + bad + 1}: "
            "its range cannot be measured",
            hint="check the preprocessing of the sample and what the float model computes for it",
        )


def _runtime(tflite: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        runtime = Interpreter(model_content=tflite, num_threads=threads)
        runtime.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise QuantizationError(
            f"the float model cannot be calibrated because it does not run on this machine: {first_line(error)}",
            hint="models with custom ops cannot be calibrated",
        ) from error
    return runtime


def _invoke(runtime: Any, number: int) -> None:
    try:
        runtime.invoke()
    except RuntimeError as error:
        raise QuantizationError(
            f"the float model failed on calibration sample {number}: {first_line(error)}"
        ) from error


def _arrays(model: Model, sample: Sample, number: int) -> list[npt.NDArray[Any]]:
    """Return the sample's arrays in the order, shape and dtype of the model's inputs."""
    names = model.input_names()
    if set(sample) != set(names):
        raise SamplesError(
            f"calibration sample {number} has the arrays {sorted(sample)}, expected the model's inputs {sorted(names)}"
        )
    arrays = []
    for name, index in zip(names, model.main.inputs, strict=True):
        tensor = model.main.tensors[index]
        values = np.asarray(sample[name])
        if tensor.rank and tensor.shape[0] == 1 and values.ndim == tensor.rank - 1:
            values = values[np.newaxis]
        if values.shape != tensor.shape:
            raise SamplesError(
                f"calibration sample {number}: input '{name}' expected the shape {list(tensor.shape)}, "
                f"got {list(values.shape)}"
            )
        dtype = np.dtype(tensor.dtype.lower())
        if not np.can_cast(values.dtype, dtype, "same_kind"):
            raise SamplesError(
                f"calibration sample {number}: input '{name}' expected {dtype.name} values, got {values.dtype.name}"
            )
        arrays.append(np.asarray(values, dtype, order="C"))
    return arrays


def _joined(arrays: list[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate(arrays).astype(dtype, copy=False) if arrays else np.zeros(0, dtype)
