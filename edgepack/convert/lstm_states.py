"""Ranges inside LSTM ops, which no output of the graph shows: the cell state and the intermediate results.

TFLite's quantized LSTM needs them (tensorflow/lite/tools/optimize/operator_property.cc); TFLiteConverter's calibrator
measures them with kernels of its own. It runs TensorFlow: call it in a child process.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from edgepack.convert.environment import import_tensorflow
from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema
from edgepack.runtime.evaluate import synthetic_samples
from edgepack.runtime.runner import model_inputs
from edgepack.samples import SampleSet

#: Ops with ranges inside.
LSTM_OPS = frozenset({"UNIDIRECTIONAL_SEQUENCE_LSTM"})

#: Position of the output state and the cell state among the inputs (tensorflow/lite/kernels/lstm_shared.h), and of the
#: output before the projection among the intermediate results.
_HIDDEN, _CELL, _EFFECTIVE_HIDDEN = 18, 19, 4

#: Most samples that are run: the calibrator is created anew for each.
_MOST_SAMPLES = 200

Ranges = dict[int, tuple[float, float]]


def with_state_ranges(tflite: bytes, samples: SampleSet | int) -> bytes:
    """Return a float model with the ranges inside its LSTM ops; a model without such ops as it is.

    The output of an LSTM gets the range of the output state as well, because it is the state of the next step: a range
    that clips one of them would make the op leave its own scale.

    Args:
        tflite: The float model, which may have ranges.
        samples: Calibration samples, or how many random ones. Each starts from the initial state.

    Raises:
        QuantizationError: There are no samples, or the calibrator does not run the model.
    """
    source = read_model(tflite)
    places = [op.index for op in source.main.ops if op.name in LSTM_OPS]
    if not places:
        return tflite
    if isinstance(samples, int):
        given: Iterable[Mapping[str, Any]] = synthetic_samples(model_inputs(source), samples)
    else:
        used = samples.limited(_MOST_SAMPLES)
        given = (used.sample(i) for i in range(len(used)))
    import_tensorflow()
    from tensorflow.lite.python.optimize import calibrator

    prepared = bytes(calibrator.add_intermediate_tensors(tflite))
    names = source.input_names()
    ranges: Ranges = {}
    try:
        for sample in given:
            # A new calibrator, because it keeps the state of the model from sample to sample.
            one = calibrator.Calibrator(prepared)
            arrays = [np.asarray(sample[name]) for name in names]
            _widen(ranges, one.calibrate(lambda arrays=arrays: iter([arrays])))
    except (RuntimeError, ValueError) as error:
        raise QuantizationError(f"TFLiteConverter's calibrator failed: {error}") from error
    if not ranges:
        raise QuantizationError("the ranges inside LSTM ops need samples, got none")
    model = unpack(prepared)
    graph = model.subgraphs[0]
    for place in places:
        op = graph.operators[place]
        inner = op.intermediates if op.intermediates is not None else ()
        for index in (int(op.inputs[_CELL]), *(int(i) for i in inner)):
            if index in ranges:
                _set(graph.tensors[index], ranges[index])
        shared = [int(op.inputs[_HIDDEN]), int(op.outputs[0])]
        known = [ranges[index] for index in (*shared, *(int(i) for i in inner[_EFFECTIVE_HIDDEN:])) if index in ranges]
        for index in shared:
            _set(graph.tensors[index], (min(low for low, _ in known), max(high for _, high in known)))
    return pack(model)


def _widen(ranges: Ranges, calibrated: bytes) -> None:
    """Add the ranges that the calibrator wrote into a file."""
    # Read in place: unpacking all weights for every sample takes most of the time.
    graph = schema().Model.GetRootAs(bytearray(calibrated), 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        found = graph.Tensors(index).Quantization()
        if found is None or found.MinLength() != 1 or found.MaxLength() != 1:
            continue
        low, high = ranges.get(index, (np.inf, -np.inf))
        ranges[index] = (min(low, float(found.Min(0))), max(high, float(found.Max(0))))


def _set(tensor: Any, values: tuple[float, float]) -> None:
    tensor.quantization = schema().QuantizationParametersT()
    tensor.quantization.min = np.array([values[0]], np.float32)
    tensor.quantization.max = np.array([values[1]], np.float32)
