"""Run a float or quantized model on samples and read chosen tensors as real values."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Model, read_model
from edgepack.graph.edit import pack, tensor_keys, unpack
from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ranges import Range
from edgepack.runtime import signal as metrics
from edgepack.runtime.logits import expose_logits
from edgepack.runtime.runner import Runner, load_interpreter, model_inputs
from edgepack.runtime.runner import quantize as quantize_values
from edgepack.runtime.state import FreshInterpreter

Sample = Mapping[str, npt.NDArray[Any]]

_THREADS = 2


def iterate_activations(tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]) -> Iterator[list[Doubles]]:
    """Yield, for each sample, the real values of the tensors of the main graph with these indices.

    Args:
        tflite: A float or quantized model.
        tensors: Indices of inputs or activations.
        samples: Real values by `Model.input_names()`, with the batch dimension.
    """
    names = read_model(tflite).input_names()
    outputs = list(dict.fromkeys(tensors))
    model = unpack(tflite)
    model.subgraphs[0].outputs = np.array(outputs, np.int32)
    model.signatureDefs = None
    runner = Runner(pack(model), threads=_THREADS, stream=True)
    positions = [outputs.index(index) for index in tensors]
    for sample in samples:
        values = runner.run_real([sample[name] for name in names])
        yield [values[position] for position in positions]


def run_activations(
    tflite: bytes, tensors: Sequence[int], samples: Sequence[Sample]
) -> Iterator[Callable[[int], npt.NDArray[Any]]]:
    """Yield, for each sample, a function that returns a copy of a tensor of the main graph by its index, as stored.

    The function is valid until the next sample.

    Args:
        tflite: A float or quantized model.
        tensors: Indices of inputs or activations.
        samples: Real values by `Model.input_names()`, with the batch dimension.
    """
    source = read_model(tflite)
    names = source.input_names()
    infos = model_inputs(source)
    wanted = list(dict.fromkeys(tensors))
    model = unpack(tflite)
    # A graph input that is an output too would be copied by the runtime for nothing.
    outputs = [index for index in wanted if index not in source.main.inputs] or list(source.main.ops[0].outputs)
    model.subgraphs[0].outputs = np.array(outputs, np.int32)
    model.signatureDefs = None
    if not source.is_stream:
        # Nothing behind the last of them is needed.
        last = max((source.main.producers.get(index, 0) for index in wanted), default=0)
        model.subgraphs[0].operators = model.subgraphs[0].operators[: last + 1]
    data = pack(model)
    fresh = FreshInterpreter(source, lambda: load_interpreter(data, _THREADS), stream=True)
    for sample in samples:
        runtime = fresh.start()
        for name, info in zip(names, infos, strict=True):
            runtime.set_tensor(info.index, quantize_values(info, sample[name]).reshape(info.shape))
        runtime.invoke()
        yield runtime.get_tensor


def renamed(samples: Sequence[Sample], source: Model, target: Model) -> list[Sample]:
    """Return samples of a model under the input names of another file of it: a quantizer may change them."""
    names = dict(zip(target.input_names(), source.input_names(), strict=True))
    return [{new: sample[old] for new, old in names.items()} for sample in samples]


def logits(tflite: bytes, samples: Sequence[Sample]) -> list[list[Doubles]]:
    """Return the real outputs of a model for each sample, before the last SOFTMAX or LOGISTIC."""
    names = read_model(tflite).input_names()
    runner = Runner(expose_logits(tflite), threads=_THREADS, stream=True)
    return [runner.run_real([sample[name] for name in names]) for sample in samples]


def snr_db(reference: Sequence[Sequence[Doubles]], measured: Sequence[Sequence[Doubles]]) -> float:
    """Return the SNR of the worst output in dB, about each element's mean over the samples; inf when equal.

    What is the same for every sample carries nothing: its energy would hide an error that makes all samples alike. Of
    an output that never changes the energy itself is compared.
    """
    worst = math.inf
    for expected, actual in zip(zip(*reference, strict=True), zip(*measured, strict=True), strict=True):
        mean = np.mean(expected, axis=0)
        signal = sum(float(np.square(values - mean).sum()) for values in expected)
        energy = sum(float(np.vdot(values, values)) for values in expected)
        # Rounding of the mean leaves a trace of a constant output.
        signal = signal if signal > 1e-12 * energy else energy
        noise = sum(float(np.square(one - other).sum()) for one, other in zip(expected, actual, strict=True))
        ratio = metrics.snr_db(signal, noise)
        worst = min(worst, math.inf if ratio is None else ratio)
    return worst


def coarsest_tensor(tflite: bytes, ranges: Mapping[str, Range], samples: Sequence[Sample]) -> tuple[str, float]:
    """Return the activation that changes least between samples, in its int8 steps: (its op and name, steps).

    Args:
        tflite: The float model.
        ranges: (minimum, maximum) by `tensor_keys`.
        samples: Samples to compare.
    """
    graph = read_model(tflite).main
    keys = tensor_keys(graph)
    results = [op.outputs[0] for op in graph.ops if op.outputs and keys[op.outputs[0]] in ranges]
    count, total = 0, [np.zeros(1)] * len(results)
    squares = [np.zeros(1)] * len(results)
    for values in iterate_activations(tflite, results, samples):
        count += 1
        total = [a + b for a, b in zip(total, values, strict=True)]
        squares = [a + np.square(b) for a, b in zip(squares, values, strict=True)]
    coarsest = ("", math.inf)
    for index, sums, powers in zip(results, total, squares, strict=True):
        low, high = ranges[keys[index]]
        deviation = math.sqrt(max(0.0, float(np.mean(powers / count - np.square(sums / count)))))
        steps = deviation / max((high - low) / 255.0, 1e-30)
        if 0.0 < steps < coarsest[1]:
            coarsest = f"{graph.ops[graph.producers[index]].name} '{keys[index]}'", steps
    return coarsest
