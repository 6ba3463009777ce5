"""Block reconstruction: learn rounding, biases and ranges block by block against the float model's activations.

Each block of a few layers is quantized in TensorFlow as the integer kernels do, and Adam (Kingma and Ba 2014) lowers
the error of its outputs, weighted with how much the logits depend on each channel: Li et al. 2021, "BRECQ". A block
reads what the quantized blocks before it produce, and activations are quantized at random only: Wei et al. 2022,
"QDrop". Ranges are learned as scales (Esser et al. 2019, "Learned Step Size Quantization"). Of every block the state
with the lowest error on samples that nothing is fitted to is kept, the one before training included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgepack.choices import Effort
from edgepack.graph import read_model
from edgepack.graph.edit import tensor_keys
from edgepack.quantize.ptq.activations import Sample
from edgepack.quantize.ptq.blocks import Block, split_blocks
from edgepack.quantize.ptq.checkpoint import part_name
from edgepack.quantize.ptq.gptq import MAX_WEIGHT, weight_scales
from edgepack.quantize.ptq.layers import Floats, Layer, constant_values, find_layers, set_constants
from edgepack.quantize.ptq.moments import evenly_spaced
from edgepack.quantize.ptq.noise_gain import NoiseGain
from edgepack.quantize.ptq.noise_minimization import measured_gains
from edgepack.quantize.ptq.step import Change, Fit, Setting, Step, Subject, View
from edgepack.quantize.ptq.tuning import (
    BATCH,
    BLOCK_SAMPLES,
    CHEAP_WORK,
    DROP,
    FEWEST_STEPS,
    LEARNING_RATES,
    MOST_STEPS,
)
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import fixed_range, same_scale_groups

#: Parts that progress is reported in: percent.
PARTS = 100


def reconstruct(
    fit: Fit, samples: Sequence[Sample], gains: Mapping[int, NoiseGain], subject: Subject, step: str, number: int = 0
) -> Fit:
    """Return the fit with weights, biases and ranges learned block by block.

    Finished blocks are read from the checkpoint and written to it.

    Args:
        fit: Weights on their grid, biases and ranges to start from.
        samples: Samples to learn from.
        gains: Noise gain of activations by tensor index.
        subject: What is quantized.
        step: Name for progress.
        number: Number of the view that the samples belong to.
    """
    return _Reconstruction(fit, samples, gains, subject).run(step, number)


class _Reconstruction:
    def __init__(self, fit: Fit, samples: Sequence[Sample], gains: Mapping[int, NoiseGain], subject: Subject) -> None:
        from edgepack.quantize.ptq.lowering.differentiable_logits import differentiable_logits
        from edgepack.quantize.ptq.lowering.lazy import tf
        from edgepack.quantize.ptq.lowering.model import LoweredModel

        tf.config.experimental.enable_op_determinism()
        self.fit, self.gains, self.subject = fit, gains, subject
        self.graph = read_model(fit.tflite).main
        self.layers = [layer for layer in find_layers(self.graph) if layer.bias >= 0]
        self.keys = tensor_keys(self.graph)
        self.reference, self.lowered = LoweredModel(fit.reference), LoweredModel(fit.tflite)
        logits = differentiable_logits(self.lowered)
        self.blocks = split_blocks(self.graph, self.layers, logits)
        self.inputs = dict(zip(self.graph.inputs, self.lowered.stack(samples), strict=True))
        self.count = len(samples)
        self.ranges: dict[str, Range] = dict(fit.ranges)
        self.constants: dict[int, Floats] = {}
        self.group: dict[int, int] = {}
        for members in same_scale_groups(self.graph):
            self.group.update(dict.fromkeys(members, min(members)))
        self.fixed = {op.outputs[0] for op in self.graph.ops if op.outputs and fixed_range(op, 8) is not None}

    def run(self, step: str, number: int) -> Fit:
        """Learn the blocks in file order."""
        checkpoint = self.subject.checkpoint
        start = self.fit.reference, self.fit.tflite, {key: list(value) for key, value in self.fit.ranges.items()}
        costs = np.cumsum([0.0, *(self._cost(block) for block in self.blocks)])
        exact: dict[int, Any] = dict(self.inputs)
        rounded: dict[int, Any] = {index: self._round(index, value) for index, value in self.inputs.items()}
        for done, block in enumerate(self.blocks):
            if not all(index in exact for index in block.inputs):
                break  # the model computes something here that is not lowered
            learner = _Learner(self, block, exact, rounded)
            exact.update(learner.exact_outputs())
            name = part_name("block", number, done, *start)
            if (state := checkpoint.get(name)) is not None:
                learner.restore(state)
            elif block.layers and block.outputs:
                share = min(1.0, (number + costs[done] / max(costs[-1], 1.0)) / self.subject.passes)
                self.subject.progress(step, int(PARTS * share), PARTS)
                checkpoint.put(name, learner.train())
            rounded.update(learner.rounded_outputs())
            needed = {index for other in self.blocks[done + 1 :] for index in other.inputs}
            exact = {index: value for index, value in exact.items() if index in needed}
            rounded = {index: value for index, value in rounded.items() if index in needed}
        tflite = set_constants(self.fit.tflite, self.constants) if self.constants else self.fit.tflite
        return replace(self.fit, tflite=tflite, ranges=self.ranges)

    def _cost(self, block: Block) -> float:
        """Return what a block's training costs: TensorFlow's time follows the number of values, at each op."""
        return float(sum(self.graph.tensors[i].elements for op in block.ops for i in self.graph.ops[op].outputs))

    def bounds(self, index: int) -> Range | None:
        """Return the range of an activation that the integer file quantizes."""
        return self.ranges.get(self.keys[index])

    def learns(self, index: int) -> bool:
        """Return whether the range of an activation may change in this block: inputs and shared scales may not."""
        tied = index in self.group or self.keys[index] in self.fit.tied
        return not tied and index not in self.fixed and index not in self.graph.inputs

    def _round(self, index: int, value: Any) -> Any:
        bounds = self.bounds(index)
        if bounds is None:
            return value
        scale = max((bounds[1] - bounds[0]) / 255.0, 1e-30)
        zero = round(-bounds[0] / scale)
        return ((np.clip(np.rint(value / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


class _Learner:
    """Trains one block."""

    def __init__(
        self, whole: _Reconstruction, block: Block, exact: Mapping[int, Any], rounded: Mapping[int, Any]
    ) -> None:
        from edgepack.quantize.ptq.lowering.lazy import tf

        self.tf, self.whole, self.block = tf, whole, block
        self.exact = {index: exact[index] for index in block.inputs}
        self.rounded = {index: rounded[index] for index in block.inputs}
        self.variables: list[Any] = []
        self.rates: list[float] = []
        self.moves: dict[int, Any] = {}
        self.biases: dict[int, Any] = {}
        self.scales: dict[int, Any] = {}
        self.grids: dict[int, tuple[Layer, Floats, Floats, Floats]] = {}
        graph = whole.graph
        for layer in block.layers:
            weights = constant_values(graph, layer.weights)
            matrix = layer.matrix(weights).astype(np.float64)
            per_tensor = whole.subject.per_tensor(layer)
            scale = np.broadcast_to(weight_scales(layer, matrix, per_tensor=per_tensor), matrix.shape)
            integers = np.rint(matrix / scale)
            # The largest weight of a channel defines its scale and stays where it is.
            free = (np.abs(integers) < MAX_WEIGHT).astype(np.float32)
            parts = [layer.from_rows(part) for part in (integers, scale, free)]
            self.grids[layer.weights] = layer, parts[0], parts[1], parts[2]
            self.moves[layer.weights] = self._variable(np.zeros(layer.shape), LEARNING_RATES["weights"])
            bounds = whole.bounds(layer.result)
            unit = (bounds[1] - bounds[0]) / 255.0 if bounds else 1.0
            change = self._variable(np.zeros(layer.output_channels), LEARNING_RATES["biases"])
            self.biases[layer.bias] = constant_values(graph, layer.bias), unit, change
        for op in block.ops:
            for index in graph.ops[op].outputs:
                if index >= 0 and whole.bounds(index) is not None and whole.learns(index):
                    self.scales[index] = self._variable(np.zeros(()), LEARNING_RATES["ranges"])

    def _variable(self, value: Any, rate: float) -> Any:
        variable = self.tf.Variable(value, dtype=self.tf.float32)
        self.variables.append(variable)
        self.rates.append(rate)
        return variable

    # -- the quantized block -------------------------------------------------------------------------------------------

    def _constants(self) -> dict[int, Any]:
        tf = self.tf
        constants: dict[int, Any] = {}
        for index, (_, integers, scale, free) in self.grids.items():
            move = self.moves[index] * free
            constants[index] = tf.clip_by_value(integers + _straight(tf, move), -MAX_WEIGHT, MAX_WEIGHT) * scale
        for index, (start, unit, change) in self.biases.items():
            constants[index] = start + unit * change
        return constants

    def _quantized(self, index: int, value: Any) -> Any:
        tf, bounds = self.tf, self.whole.bounds(index)
        if bounds is None:
            return value
        scale = max((bounds[1] - bounds[0]) / 255.0, 1e-30)
        zero = float(round(-bounds[0] / scale))
        step = scale * tf.exp(self.scales[index]) if index in self.scales else tf.constant(scale, tf.float32)
        return (tf.clip_by_value(_straight(tf, value / step) + zero, 0.0, 255.0) - zero) * step

    def _forward(self, values: Mapping[int, Any], drop: Any = None) -> dict[int, Any]:
        tf, number = self.tf, [0]

        def transform(index: int, value: Any) -> Any:
            quantized = self._quantized(index, value)
            if drop is None or index in self.block.outputs:
                return quantized
            number[0] += 1
            seed = tf.add(drop, [0, number[0]])
            kept = tf.random.stateless_uniform(tf.shape(value), seed) < DROP
            return tf.where(kept, value, quantized)

        result: dict[int, Any] = self.whole.lowered.run(
            {}, start=values, stop=self.block.outputs, constants=self._constants(), transform=transform
        )
        return result

    # -- training ------------------------------------------------------------------------------------------------------

    def exact_outputs(self) -> dict[int, Any]:
        """Return what the float model computes for the samples."""
        return self._in_batches(
            lambda values: self.whole.reference.run({}, start=values, stop=self.block.outputs), self.exact
        )

    def rounded_outputs(self) -> dict[int, Any]:
        """Return what the quantized block computes, and hand what was learned to the whole."""
        return self._in_batches(self._forward, self.rounded)

    def train(self) -> dict[str, Any]:
        """Learn, keep the best state on the held-out samples, and return it for `restore`."""
        tf = self.tf
        targets = self._in_batches(
            lambda values: self.whole.reference.run({}, start=values, stop=self.block.outputs), self.exact
        )
        # A class or a position has no gradient.
        judged = [index for index in self.block.outputs if self.whole.graph.tensors[index].is_float]
        if not judged:
            return {}
        weights = {index: self._output_weights(index, targets[index]) for index in judged}
        count = self.whole.count
        held = np.arange(count) % 4 == 3 if count >= 8 else np.ones(count, bool)
        fitted = np.flatnonzero(~held) if count >= 8 else np.arange(count)
        first, second = ([tf.Variable(tf.zeros_like(v)) for v in self.variables] for _ in range(2))

        def loss(outputs: Mapping[int, Any], wanted: Mapping[int, Any]) -> Any:
            errors = [tf.square(outputs[i] - wanted[i]) * weights[i] for i in judged]
            return tf.add_n([tf.reduce_mean(error) for error in errors])

        def update(values: Any, wanted: Any, seed: Any, time: Any, share: Any) -> None:
            with tf.GradientTape() as tape:
                error = loss(self._forward(values, seed), wanted)
            for variable, rate, m, v, gradient in zip(
                self.variables, self.rates, first, second, tape.gradient(error, self.variables), strict=True
            ):
                if gradient is None:
                    continue
                m.assign(0.9 * m + 0.1 * gradient)
                v.assign(0.999 * v + 0.001 * tf.square(gradient))
                m_hat, v_hat = m / (1.0 - 0.9**time), v / (1.0 - 0.999**time)
                variable.assign_sub(rate * share * m_hat / (tf.sqrt(v_hat) + 1e-12))

        def judge(values: Any, wanted: Any) -> Any:
            return loss(self._forward(values), wanted)

        update_graph, judge_graph = (tf.function(f, autograph=False, reduce_retracing=True) for f in (update, judge))

        def held_out() -> float:
            positions = np.flatnonzero(held)
            errors = [
                float(judge_graph(_taken(self.rounded, part), _taken(targets, part))) * len(part)
                for part in np.array_split(positions, -(-len(positions) // BATCH))
            ]
            return sum(errors) / len(positions)

        random = np.random.default_rng(self.block.ops[0])
        steps = MOST_STEPS if self.whole.subject.work <= CHEAP_WORK else FEWEST_STEPS
        best, state = held_out(), [variable.numpy() for variable in self.variables]
        for number in range(steps):
            chosen = random.choice(fitted, min(BATCH, len(fitted)), replace=False)
            seed = tf.constant([self.block.ops[0], number], tf.int32)
            share = 0.5 * (1.0 + np.cos(np.pi * number / steps))
            time = tf.constant(number + 1.0)
            values, wanted = _taken(self.rounded, chosen), _taken(targets, chosen)
            update_graph(values, wanted, seed, time, tf.constant(share, tf.float32))
            if (number + 1) % (steps // 4) == 0 and (error := held_out()) < best:
                best, state = error, [variable.numpy() for variable in self.variables]
        for variable, value in zip(self.variables, state, strict=True):
            variable.assign(value)
        return self._hand_over()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take a state that `train` returned."""
        if not state:
            return
        for number, variable in enumerate(self.variables):
            variable.assign(state[str(number)].astype(np.float32))
        self._hand_over()

    def _hand_over(self) -> dict[str, Any]:
        """Give the whole what was learned, and return it."""
        for move in self.moves.values():
            # Weights follow from these integers; the rest of their moves served training only.
            move.assign(self.tf.round(move))
        state = {str(number): variable.numpy() for number, variable in enumerate(self.variables)}
        constants = {index: value.numpy() for index, value in self._constants().items()}
        self.whole.constants.update({index: np.asarray(value, np.float32) for index, value in constants.items()})
        for index, change in self.scales.items():
            low, high = self.whole.ranges[self.whole.keys[index]]
            factor = float(np.exp(change.numpy()))
            self.whole.ranges[self.whole.keys[index]] = low * factor, high * factor
            change.assign(0.0)
        return state

    def _output_weights(self, index: int, target: Any) -> Any:
        gain = self.whole.gains.get(index)
        if gain is None or gain.total.shape != target.shape[-1:] or not gain.total.any():
            return np.float32(1.0 / max(float(np.var(target)), 1e-12))
        return (gain.total * target.shape[-1] / gain.total.sum()).astype(np.float32)

    def _in_batches(self, function: Any, values: Mapping[int, Any]) -> dict[int, Any]:
        """Return the results of a function for all samples as arrays."""
        compute = self.tf.function(function, autograph=False, reduce_retracing=True)
        results: dict[int, list[Any]] = {index: [] for index in self.block.outputs}
        for part in np.array_split(np.arange(self.whole.count), -(-self.whole.count // BATCH)):
            for index, value in compute(_taken(values, part)).items():
                results[index].append(value.numpy())
        return {index: np.concatenate(parts) for index, parts in results.items()}


def _straight(tf: Any, value: Any) -> Any:
    """Return rounded values whose gradient is that of the values (Bengio et al. 2013)."""
    return value + tf.stop_gradient(tf.round(value) - value)


def _taken(values: Mapping[int, Any], positions: Any) -> dict[int, Any]:
    return {index: value[positions] for index, value in values.items()}


class _Reconstruct(Step):
    id = "reconstruct"
    effort = Effort.HIGH
    source = "block reconstruction, Li et al. 2021 (BRECQ) and Wei et al. 2022 (QDrop)"

    def configurations(self, subject: Subject, kept: Mapping[str, Setting]) -> Sequence[Change]:
        if not subject.layers:
            return []
        return [{self.id: "blocks", "rounding": kept.get("rounding", "gptq")}]

    def apply(self, fit: Fit, setting: Setting, view: View, subject: Subject) -> Fit:
        gains = measured_gains(fit.reference, view, subject)
        return reconstruct(fit, evenly_spaced(view.samples, BLOCK_SAMPLES), gains, subject, self.id, view.number)


RECONSTRUCT = _Reconstruct()
