"""Write a tf-keras model with the layers that TFMOT quantizes, before quantization-aware training.

TFMOT leaves a layer in float that it has no configuration for, and a float layer in front of a convolution keeps the
convolution in float. Here such layers become others that compute the same values:

- Rescaling, Normalization, and a BatchNormalization that follows no linear convolution or Dense: a scale and an offset
  per channel. They are carried through pools, dropout and reshapes into the kernel and bias of the next layer where
  that is exact; elsewhere they become a 1x1 DepthwiseConv2D. Zero padding makes an offset inexact at the borders.
- one-dimensional layers: two-dimensional ones of height 1, as TFLite runs them anyway.
- an activation inside a layer that TFMOT has no rounding for: an Activation layer of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.training.flat_1d import counterpart_2d
from edgepack.training.rebuild import follow

Values = npt.NDArray[np.float64]

#: Activation functions that TFMOT rounds inside a layer: QuantizeAwareActivation of tensorflow_model_optimization 0.8.
ROUNDED_ACTIVATIONS = frozenset({"linear", "relu", "softmax", "sigmoid", "tanh", "swish", "gelu"})

#: Layers whose result has the scale and offset of their input: linear ones whose weights add up to 1, and copies.
_CARRYING = frozenset({
    "ActivityRegularization", "Dropout", "GlobalAveragePooling1D", "GlobalAveragePooling2D", "SpatialDropout1D",
    "SpatialDropout2D",
})  # fmt: skip

#: Layers on lists of tensors or single ones that work on tensors of height 1 as well as on one-dimensional ones.
_ANY_RANK = frozenset({
    "Activation", "Add", "Average", "BatchNormalization", "Concatenate", "Dropout", "LeakyReLU", "Maximum", "Minimum",
    "Multiply", "ReLU", "Rescaling", "Subtract",
})  # fmt: skip

_FOLLOWED = ("Conv2D", "DepthwiseConv2D", "Dense")


@dataclass
class _Flow:
    """A tensor of the new model, possibly with a scale and an offset that the next layer takes.

    Attributes:
        tensor: The tf-keras tensor.
        name: Name of a layer that the scale and offset become if no layer takes them.
        scale: Scale per channel, None for none.
        offset: Offset per channel.
        high: True for a one-dimensional signal (batch, 1, steps, channels).
    """

    tensor: Any
    name: str = ""
    scale: Values | None = None
    offset: Values = field(default_factory=lambda: np.zeros(1))
    high: bool = False
    done: Any = None


def with_plain_layers(model: Any, *, fold: bool = True) -> Any:
    """Return a flat tf-keras model that computes the same with layers that TFMOT quantizes, where there are such.

    Args:
        model: Flat Functional tf-keras model, built.
        fold: False to leave kernels as they are, because their values have been clustered.
    """
    import tf_keras

    writer = _Writer(fold)
    inputs = [tf_keras.Input(batch_shape=tuple(t.shape), dtype=t.dtype.name, name=_name(t)) for t in model.inputs]
    flows = follow(model, [_Flow(tensor) for tensor in inputs], writer.apply, lambda *_: None)
    outputs = [writer.plain(flow) for flow in flows]
    plain = tf_keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=model.name)
    for name, weights in writer.weights.items():
        plain.get_layer(name).set_weights(weights)
    return plain


def _name(tensor: Any) -> str:
    return str(tensor.name).split(":")[0]


class _Writer:
    """Writes the new model, layer by layer."""

    def __init__(self, fold: bool) -> None:
        self._fold = fold
        self.weights: dict[str, list[Any]] = {}
        self._layers: dict[int, Any] = {}
        self._names: set[str] = set()

    def apply(self, layer: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Return the flow behind a layer."""
        import tensorflow as tf

        flows = [flow for flow in tf.nest.flatten(args) if isinstance(flow, _Flow)]
        single = flows[0] if len(flows) == 1 and not kwargs and len(layer._inbound_nodes) == 1 else None
        if single is not None:
            affine = _affine(layer, single)
            if affine is not None:
                return self._scaled(single, *affine, layer.name)
            if (carried := self._carry(layer, single)) is not None:
                return carried
            if (lifted := self._one_dimensional(layer, single)) is not None:
                return lifted
            if type(layer).__name__ in _FOLLOWED:
                return self._weighted(layer, single)
        high = bool(flows) and all(flow.high for flow in flows) and _any_rank(layer)
        take = self.materialized if high else self.plain
        given, named = tf.nest.map_structure(lambda v: take(v) if isinstance(v, _Flow) else v, (args, dict(kwargs)))
        deeper = high and type(layer).__name__ in {"BatchNormalization", "Concatenate"}
        fresh = self._new(type(layer), layer, axis=3) if deeper else self._copy(layer)
        results = fresh(*given, **named)
        return tf.nest.map_structure(lambda tensor: _Flow(tensor, high=high), results)

    def plain(self, flow: _Flow) -> Any:
        """Return the tensor itself: with its scale and offset, and without a height of 1."""
        tensor = self.materialized(flow)
        return self._reshaped(tensor, (tensor.shape[2], tensor.shape[3])) if flow.high else tensor

    def materialized(self, flow: _Flow) -> Any:
        """Return the tensor with its scale and offset, which a 1x1 DepthwiseConv2D applies."""
        if flow.scale is None:
            return flow.tensor
        if flow.done is None:
            import tf_keras

            shape = tuple(flow.tensor.shape[1:])
            channels = shape[-1]
            layer = tf_keras.layers.DepthwiseConv2D(1, name=self._unique(flow.name))
            source = flow.tensor if len(shape) == 3 else self._reshaped(flow.tensor, _as_image(shape))
            flow.done = layer(source)
            scale, offset = (np.broadcast_to(v, channels).astype(np.float32) for v in (flow.scale, flow.offset))
            self.weights[layer.name] = [scale.reshape(1, 1, channels, 1), offset]
            if len(shape) != 3:
                flow.done = self._reshaped(flow.done, shape)
        return flow.done

    def _scaled(self, flow: _Flow, scale: Values, offset: Values, name: str) -> _Flow:
        before = np.ones(1) if flow.scale is None else flow.scale
        return _Flow(flow.tensor, name, before * scale, flow.offset * scale + offset, flow.high)

    def _carry(self, layer: Any, flow: _Flow) -> _Flow | None:
        """Return the flow behind a layer that leaves scale and offset as they are, None for another layer."""
        kind = type(layer).__name__
        linear = kind == "Activation" and _activation(layer) == "linear"
        if flow.scale is None or flow.high or not (kind in _CARRYING or linear or kind == "Flatten"):
            return None
        scale, offset = flow.scale, flow.offset
        if kind == "Flatten":
            if getattr(layer, "data_format", "channels_last") != "channels_last":
                return None
            copies = int(np.prod(flow.tensor.shape[1:-1]))
            scale, offset = (np.tile(np.broadcast_to(v, flow.tensor.shape[-1]), copies) for v in (scale, offset))
        return _Flow(self._copy(layer)(flow.tensor), flow.name, scale, offset)

    def _one_dimensional(self, layer: Any, flow: _Flow) -> _Flow | None:
        """Return the flow behind the two-dimensional counterpart of a layer, None where there is none."""
        change = counterpart_2d(layer)
        starts = type(layer).__name__ in {"Conv1D", "SeparableConv1D", "DepthwiseConv1D"}
        if change is None or not (flow.high or starts) or None in flow.tensor.shape[1:]:
            return None
        if not flow.high:
            steps, channels = flow.tensor.shape[1:]
            flow = _Flow(self._reshaped(flow.tensor, (1, steps, channels)), flow.name, flow.scale, flow.offset, True)
        if change.pad is not None:
            import tf_keras

            pad = tf_keras.layers.ZeroPadding2D(change.pad, name=self._unique(f"{layer.name}_pad"))
            flow = _Flow(pad(self.materialized(flow)), high=True)
        fresh = change.kind(**{**change.config, "name": self._unique(layer.name)})
        weights = [np.expand_dims(w, 0) if w.ndim == 3 else w for w in layer.get_weights()]
        return self._finish(fresh, weights, flow, high=change.keeps_height)

    def _weighted(self, layer: Any, flow: _Flow) -> _Flow:
        if flow.high:
            flow = _Flow(self.plain(flow))
        config = {**layer.get_config(), "name": self._unique(layer.name)}
        return self._finish(type(layer).from_config(config), layer.get_weights(), flow, high=False)

    def _finish(self, fresh: Any, weights: list[Any], flow: _Flow, *, high: bool) -> _Flow:
        """Call a layer with weights, with the flow's scale and offset in its kernel where that is exact."""
        import tf_keras

        activation = _activation(fresh) if hasattr(fresh, "activation") else "linear"
        separate = activation not in ROUNDED_ACTIVATIONS
        if separate:
            fresh.activation = tf_keras.activations.linear
        folded = None if flow.scale is None or not self._fold else _folded(fresh, weights, flow)
        if folded is not None:
            fresh.use_bias = True
            weights = folded
        result = fresh(self.materialized(flow) if folded is None else flow.tensor)
        self.weights[fresh.name] = weights
        if separate:
            name = self._unique(f"{fresh.name}_{activation}")
            relu6 = activation == "relu6"
            result = (
                tf_keras.layers.ReLU(6.0, name=name) if relu6 else tf_keras.layers.Activation(activation, name=name)
            )(result)
        return _Flow(result, high=high)

    def _copy(self, layer: Any) -> Any:
        known = self._layers.get(id(layer))
        if known is None:
            known = self._layers[id(layer)] = self._new(type(layer), layer)
        return known

    def _new(self, kind: Any, layer: Any, **changes: Any) -> Any:
        fresh = kind.from_config({**layer.get_config(), **changes, "name": self._unique(layer.name)})
        if layer.weights:
            self.weights[fresh.name] = layer.get_weights()
        return fresh

    def _reshaped(self, tensor: Any, shape: tuple[int, ...]) -> Any:
        import tf_keras

        return tf_keras.layers.Reshape(shape, name=self._unique("reshape_plain"))(tensor)

    def _unique(self, name: str) -> str:
        unique, number = name, 0
        while unique in self._names:
            number += 1
            unique = f"{name}_{number}"
        self._names.add(unique)
        return unique


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return (height, width, channels) of as many values."""
    return int(np.prod(shape[:-2] or (1,))), int(shape[-2]) if len(shape) > 1 else 1, int(shape[-1])


def _any_rank(layer: Any) -> bool:
    kind = type(layer).__name__
    if kind == "Concatenate":
        return int(layer.axis) in {-1, 2}
    if kind == "BatchNormalization":
        return _axis(layer) in {-1, 2}
    if kind == "Activation":
        return _activation(layer) != "softmax"
    return kind in _ANY_RANK


def _activation(layer: Any) -> str:
    return str(getattr(layer.activation, "__name__", type(layer.activation).__name__))


def _axis(layer: Any) -> int:
    axis = layer.axis
    return int(axis[0]) if isinstance(axis, list | tuple) and len(axis) == 1 else int(axis)


def _affine(layer: Any, flow: _Flow) -> tuple[Values, Values] | None:
    """Return scale and offset per channel of a layer that has nothing else, None for another layer."""
    shape = tuple(flow.tensor.shape)
    if not flow.tensor.dtype.is_floating or None in shape[1:] or len(shape) < 2:
        return None
    kind = type(layer).__name__
    if kind == "Rescaling":
        values = [np.asarray(value, np.float64) for value in (layer.scale, layer.offset)]
    elif kind == "Normalization":
        if layer.invert:
            return None
        mean, deviation = (np.asarray(value, np.float64) for value in (layer.mean, layer.variance))
        deviation = np.maximum(np.sqrt(deviation), 1e-7)
        values = [1 / deviation, -mean / deviation]
    elif kind == "BatchNormalization" and not follows_linear_layer(layer):
        rank = len(layer.input_shape)
        if _axis(layer) not in {-1, rank - 1}:
            return None
        moving = {v.name.split("/")[-1].split(":")[0]: np.asarray(v.numpy(), np.float64) for v in layer.weights}
        scale = moving.get("gamma", np.ones(1)) / np.sqrt(moving["moving_variance"] + layer.epsilon)
        values = [scale, moving.get("beta", np.zeros(1)) - moving["moving_mean"] * scale]
    else:
        return None
    if any(value.size not in {1, shape[-1]} for value in values) or not np.isfinite(np.concatenate(
        [value.ravel() for value in values])).all():  # fmt: skip
        return None
    return values[0].ravel(), values[1].ravel()


def follows_linear_layer(layer: Any) -> bool:
    """Return whether TFMOT merges a batch normalization into the layer in front of it."""
    if type(layer).__name__ != "BatchNormalization":
        return False
    before = layer._inbound_nodes[0].parent_nodes
    if len(before) != 1:
        return False
    source = before[0].layer
    kinds = {*_FOLLOWED, "Conv1D", "SeparableConv2D", "SeparableConv1D", "DepthwiseConv1D"}
    linear = type(source).__name__ in kinds and _activation(source) == "linear"
    return linear and len(source._outbound_nodes) == 1 and len(source._inbound_nodes) == 1


def _folded(layer: Any, weights: list[Any], flow: _Flow) -> list[Any] | None:
    """Return kernel and bias with the scale and offset of the input, None where that would not be exact."""
    kind = type(layer).__name__
    assert flow.scale is not None
    if kind not in _FOLLOWED or getattr(layer, "groups", 1) != 1:
        return None
    if kind != "Dense" and layer.padding != "valid" and np.any(flow.offset != 0):
        return None
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    channels = int(flow.tensor.shape[-1])
    scale, offset = (np.broadcast_to(value, channels) for value in (flow.scale, flow.offset))
    kernel = np.asarray(weights[0], np.float64)
    depthwise = kind == "DepthwiseConv2D"
    shaped = (channels, 1)
    summed = (kernel * offset.reshape(shaped)).sum(axis=tuple(range(kernel.ndim - (2 if depthwise else 1))))
    bias = (weights[1] if layer.use_bias else 0.0) + summed.reshape(-1)
    return [(kernel * scale.reshape(shaped)).astype(np.float32), np.asarray(bias, np.float32)]


def affine_layers(plain: Any, original: Any) -> set[str]:
    """Return the names of the 1x1 layers that stand for a scale and an offset."""
    kinds = {"BatchNormalization", "Normalization", "Rescaling"}
    names = {layer.name for layer in original.layers if type(layer).__name__ in kinds}
    return {layer.name for layer in plain.layers if type(layer).__name__ == "DepthwiseConv2D" and layer.name in names}
