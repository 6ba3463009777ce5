"""Ranges of what saturating functions read: values where the function is flat need no part of the scale.

Behind a batch normalization the values before a SiLU, hard swish or sigmoid reach far below those that change its
result: hard swish is zero below -3. The range of such an activation is chosen by the error of the function's result
instead of the error of the activation: rounding counts by the squared slope of the function, clipping by what it
changes in the result, more than rounding because it has one sign. Both are taken over the histogram of the calibration.
Only bounds on a side where the function flattens move.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import Graph, Op, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.histogram import Statistics
from edgepack.quantize.ptq.layers import Doubles
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import ONE_SIDED
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

#: Bounds tried per side, as shares of the current one.
_SHARES = np.arange(129) / 128

_LEVELS = 255.0


@dataclass(frozen=True)
class Response:
    """What becomes of an activation.

    Attributes:
        function: The function that its only readers compute.
        flat_below: The function flattens towards minus infinity.
        flat_above: The function flattens towards infinity.
    """

    function: Callable[[Doubles], Doubles]
    flat_below: bool
    flat_above: bool


def _sigmoid(x: Doubles) -> Doubles:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _gelu(x: Doubles) -> Doubles:
    return np.asarray(0.5 * x * (1.0 + np.tanh(0.7978845608 * (x + 0.044715 * x**3))))


#: Functions of single ops.
_RESPONSES: dict[str, Response] = {
    "ELU": Response(lambda x: np.where(x < 0.0, np.expm1(np.minimum(x, 0.0)), x), True, False),
    "GELU": Response(_gelu, True, False),
    "HARD_SWISH": Response(lambda x: x * np.clip(x + 3.0, 0.0, 6.0) / 6.0, True, False),
    "LOGISTIC": Response(_sigmoid, True, True),
    "RELU": Response(lambda x: np.maximum(x, 0.0), True, False),
    "RELU6": Response(lambda x: np.clip(x, 0.0, 6.0), True, True),
    "RELU_N1_TO_1": Response(lambda x: np.clip(x, -1.0, 1.0), True, True),
    "TANH": Response(np.tanh, True, True),
}


class _Saturation(Step):
    id = "saturation"
    effort = Effort.LOW
    source = "bounds where the function that reads an activation is flat, by the error of its result"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        return [{self.id: "flat sides"}] if find_responses(subject.graph) else []

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        graph = read_model(fit.reference).main
        keys, statistics = tensor_keys(graph), view.calibration(fit.reference).tensors
        chosen = {
            keys[index]: choose_bounds(statistics[keys[index]], fit.ranges[keys[index]], response)
            for index, response in find_responses(graph).items()
            if keys[index] in fit.ranges and keys[index] in statistics
        }
        return replace(fit, ranges={**fit.ranges, **chosen})


SATURATION = _Saturation()


def find_responses(graph: Graph) -> dict[int, Response]:
    """Return the function behind each activation that only one saturating function reads, by tensor index."""
    bound = {index for group in same_scale_groups(graph) for index in group}
    bound |= {op.outputs[0] for op in graph.ops if op.outputs and fixed_range(op, 8) is not None}
    bound |= {*graph.inputs, *graph.outputs}
    found = {}
    for index, readers in graph.consumers.items():
        if index in graph.producers and index not in bound:
            response = _response(graph, index, [graph.ops[reader] for reader in dict.fromkeys(readers)])
            if response is not None:
                found[index] = response
    return found


def _response(graph: Graph, index: int, readers: Sequence[Op]) -> Response | None:
    if len(readers) == 1:
        slope = _negative_slope(graph, readers[0])
        if slope is not None:
            return Response(lambda x: np.where(x < 0.0, x * slope, x), True, False)
        return _RESPONSES.get(readers[0].name)
    by_name = {op.name: op for op in readers}
    if len(readers) == 2 and by_name.keys() == {"LOGISTIC", "MUL"}:
        gate = by_name["LOGISTIC"].outputs[0]
        if set(by_name["MUL"].inputs) == {index, gate}:
            return Response(lambda x: x * _sigmoid(x), True, False)
    return None


def _negative_slope(graph: Graph, op: Op) -> float | None:
    """Return the slope below zero of a LEAKY_RELU, or of a PRELU: the root of the mean square over its channels."""
    if op.name == "LEAKY_RELU":
        return float(op.options["alpha"])
    slopes = graph.tensors[op.inputs[1]].data if op.name == "PRELU" else None
    return None if slopes is None else float(np.sqrt(np.square(slopes, dtype=np.float64).mean()))


def choose_bounds(statistics: Statistics, bounds: Range, response: Response) -> Range:
    """Return the range with the least squared error of the function's result; bounds on other sides stay.

    Args:
        statistics: Statistics of the activation.
        bounds: Its current range.
        response: The function.
    """
    counts, values = statistics.bins.astype(np.float64), statistics.centres
    if not counts.sum() or bounds[0] >= bounds[1]:
        return bounds
    exact = response.function(values)
    width = 1e-3 * (bounds[1] - bounds[0])
    slopes = (response.function(values + width) - response.function(values - width)) / (2.0 * width)
    rounding = float((counts * slopes**2).sum()) / (12.0 * _LEVELS**2)

    def clipping(bound: float, side: Doubles) -> float:
        return ONE_SIDED * float((counts * side * (response.function(np.full(1, bound)) - exact) ** 2).sum())

    lows = bounds[0] * _SHARES if response.flat_below else np.array([bounds[0]])
    highs = bounds[1] * _SHARES if response.flat_above else np.array([bounds[1]])
    below = np.array([clipping(low, values < low) for low in lows])
    above = np.array([clipping(high, values > high) for high in highs])
    error = below[:, np.newaxis] + above + rounding * (highs - lows[:, np.newaxis]) ** 2
    low, high = np.unravel_index(int(np.argmin(error)), error.shape)
    chosen = float(lows[low]), float(highs[high])
    return chosen if chosen[0] < chosen[1] else bounds
