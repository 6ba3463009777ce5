"""Quantization error of each layer: its output compared with the float model's."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import read_model
from edgepack.runtime.memory import require_memory
from edgepack.runtime.runner import dequantize, model_inputs, quantize, tensor_info
from edgepack.runtime.signal import SignalMeter
from edgepack.runtime.state import FreshInterpreter
from edgepack.samples.source import SampleSet


@dataclass(frozen=True)
class LayerError:
    """Error of one op's output.

    Attributes:
        op: TFLite name of the op in the quantized file.
        output: Name of the tensor.
        snr_db: SNR about each element's mean over the samples, dB (`SignalMeter`), up to a factor and an offset per
            channel unless the tensor is an output of the model; None when the outputs are equal.
    """

    op: str
    output: str
    snr_db: float | None


def layer_errors(reference: bytes, quantized: bytes, samples: SampleSet, *, most: int = 20) -> list[LayerError]:
    """Return the error of every layer with the same name in both models, in the order of the quantized file.

    The error of a layer includes the errors of the layers before it: it shows where the signal is lost, not how much a
    layer adds. Channels of an integer file may be scaled and centered (`edgepack.quantize.ptq`); the next layers undo
    that, so it is no error. A constant shift that is one shows in the model's outputs.

    Args:
        reference: The float .tflite.
        quantized: The quantized file; quantizers keep the names of activations.
        samples: Samples by the reference's input names.
        most: Upper limit of the number of samples to run.

    Raises:
        UnfitModelError: A model does not load or run on this machine.
    """
    base, other = _Tapped(reference), _Tapped(quantized)
    names = [name for name in other.activations if name in base.activations]
    outputs = {tensor.name for tensor in base.outputs}
    meters = {name: _Meter(exact=name in outputs) for name in names}
    for position in range(min(most, len(samples))):
        sample = samples.sample(position)
        expected, got = base.run(sample, names), other.run(sample, names)
        for name in names:
            meters[name].add(expected[name], got[name])
    return [LayerError(other.activations[name], name, meters[name].snr_db()) for name in names]


#: Values per channel from which a factor and an offset are fitted to them.
_FEWEST_VALUES = 8


class _Meter:
    """SNR of one tensor, in the quantized file up to a factor and an offset per channel, fitted by least squares.

    Args:
        exact: Allow neither.
    """

    def __init__(self, *, exact: bool) -> None:
        self._exact = exact
        self._meter = SignalMeter(columns=False)
        self._values = 0
        self._noise = 0.0
        # Sums of: expected, actual, their squares and their product, per channel.
        self._sums: npt.NDArray[np.float64] = np.zeros((5, 1))

    def add(self, expected: npt.NDArray[np.float64], actual: npt.NDArray[np.float64]) -> None:
        """Add one sample: the tensor in the float model and in the quantized file."""
        self._meter.add(expected, actual)
        if self._exact or not expected.ndim or not expected.size:
            return
        x, y = (values.reshape(-1, values.shape[-1]) for values in (expected, actual))
        self._values += len(x)
        self._noise += float(np.square(x - y).sum())
        self._sums = self._sums + np.array([part.sum(axis=0) for part in (x, y, x * x, y * y, x * y)])

    def snr_db(self) -> float | None:
        """Return the SNR, dB; None when the outputs are equal."""
        snr = self._meter.result().snr_db
        if snr is None or self._values < _FEWEST_VALUES or not np.isfinite(self._sums).all():
            return snr
        x, y, xx, yy, xy = self._sums / self._values
        variance, covariance = np.maximum(yy - y * y, 0.0), xy - x * y
        explained = np.where(variance > 0, covariance**2 / np.where(variance > 0, variance, 1.0), 0.0)
        # Two values per channel were fitted, which leaves fewer degrees of freedom.
        noise = float(np.maximum(xx - x * x - explained, 0.0).sum()) * self._values**2 / (self._values - 2)
        if noise <= 0.0 or noise >= self._noise:
            return snr
        return snr + 10.0 * math.log10(self._noise / noise)


class _Tapped:
    """A model with access to every activation after a run."""

    def __init__(self, tflite: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        model = read_model(tflite)
        graph = model.main
        self.outputs = [graph.tensors[index] for index in graph.outputs]
        self._inputs = model_inputs(model)
        producers: dict[str, int] = {}
        for op in graph.ops:
            for tensor in graph.op_outputs(op):
                if tensor.name and (tensor.is_float or tensor.quantization is not None):
                    # Where a name is used before and after a conversion, the last tensor is the layer's result.
                    producers[tensor.name] = op.index
        self.activations = {name: graph.ops[index].label for name, index in producers.items()}
        self._tensors = {
            name: tensor_info(name, next(t for t in graph.op_outputs(graph.ops[index]) if t.name == name))
            for name, index in producers.items()
        }
        require_memory(model, keeps_all=True)

        def load() -> Any:
            interpreter = Interpreter(
                model_content=tflite,
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            interpreter.allocate_tensors()
            return interpreter

        self._fresh = FreshInterpreter(model, load, stream=True)

    def run(self, sample: Mapping[str, npt.NDArray[Any]], names: list[str]) -> dict[str, npt.NDArray[np.float64]]:
        interpreter = self._fresh.start()
        # Inputs are matched by position: a quantized file keeps their order, but not always their names.
        for info, array in zip(self._inputs, sample.values(), strict=True):
            interpreter.set_tensor(info.index, quantize(info, array))
        interpreter.invoke()
        return {
            name: dequantize(self._tensors[name], interpreter.get_tensor(self._tensors[name].index)) for name in names
        }
