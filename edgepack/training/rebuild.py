"""Rebuild a Keras 3 model (or a nested tf-keras one) as one flat tf-keras model, the only kind that TFMOT supports.

The graph is followed node by node, so that branches, layers that are called twice and nested models are preserved; each
layer is created again from its configuration and gets its weights. The outputs of both models are compared before
anything is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.errors import ConversionError
from edgepack.text import first_line
from edgepack.training.keras3_to_tf_keras import convert_layer, convert_operation, describe, has_relu6

#: Largest difference of an output, relative to its largest absolute value, that counts as equal.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Rebuilt:
    """A model in tf-keras.

    Attributes:
        model: Flat Functional tf-keras model; inputs are a list in the original's order.
        inputs: Names of its inputs, in order.
        difference: Largest relative difference of any output from the original's.
        dropped: Settings that tf-keras does not support and that do not affect the outputs.
    """

    model: Any
    inputs: tuple[str, ...]
    difference: float
    dropped: tuple[str, ...]


def rebuild(model: Any, *, allow_code: bool) -> Rebuilt:
    """Return a Keras 3 or tf-keras model as a flat tf-keras model with equal outputs.

    Args:
        model: Functional or Sequential model of either Keras, built.
        allow_code: Copy the functions of Lambda layers.

    Raises:
        ConversionError: A layer cannot be rebuilt; the message names it.
    """
    import tf_keras

    _require_graph(model)
    builder = _Builder(allow_code)
    sources = list(model.inputs)
    names = _input_names(model)
    inputs = [
        tf_keras.Input(batch_shape=tuple(source.shape), dtype=_dtype(source), name=name)
        for source, name in zip(sources, names, strict=True)
    ]
    builder.names.update(names)
    outputs = builder.run(model, inputs, "")
    rebuilt = tf_keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=str(model.name))
    difference = _difference(model, rebuilt)
    if not difference <= TOLERANCE:
        raise ConversionError(
            f"the model has different outputs in tf-keras, which training needs (relative difference {difference:.1e})"
            f"{builder.first_difference(model)}",
            hint="replace that layer or activation with one that both Keras versions compute in the same way",
        )
    return Rebuilt(rebuilt, tuple(names), difference, tuple(dict.fromkeys(builder.dropped)))


class _Builder:
    """Follows a model's graph and calls the counterpart of each layer."""

    def __init__(self, allow_code: bool) -> None:
        self.allow_code = allow_code
        self.names: set[str] = set()
        self.dropped: list[str] = []
        self._layers: dict[int, Any] = {}
        self._tensors: list[tuple[Any, Any, str]] = []

    def run(self, model: Any, inputs: Sequence[Any], prefix: str) -> list[Any]:
        """Return the outputs of `model` on tf-keras tensors, with every layer created again."""
        import tensorflow as tf

        def apply(operation: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
            if is_model(operation):
                _require_graph(operation)
                outputs = self.run(operation, tf.nest.flatten(args), f"{prefix}{operation.name}_")
                return outputs[0] if len(outputs) == 1 else outputs
            return self._apply(operation, args, kwargs, prefix)

        return follow(model, inputs, apply, self._remember)

    def _apply(self, operation: Any, args: Any, kwargs: Mapping[str, Any], prefix: str) -> Any:
        if not hasattr(operation, "get_weights"):
            return convert_operation(operation, self._unique_name(str(operation.name), prefix), args, kwargs)
        layer = self._layers.get(id(operation))
        arguments = {key: value for key, value in kwargs.items() if value is not None and key != "training"}
        if layer is None:
            layer, dropped = convert_layer(operation, self._unique_name(str(operation.name), prefix), self.allow_code)
            self.dropped += dropped
            self._layers[id(operation)] = layer
            outputs = self._call(operation, layer, args, arguments)
            self._copy_weights(operation, layer)
        else:
            outputs = self._call(operation, layer, args, arguments)
        if not has_relu6(operation):
            return outputs
        import tf_keras

        return tf_keras.layers.ReLU(6.0, name=self._unique_name(f"{layer.name}_relu6", prefix))(outputs)

    @staticmethod
    def _call(operation: Any, layer: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        try:
            return layer(*args, **kwargs)
        except Exception as error:
            raise ConversionError(
                f"{describe(operation)} does not run in tf-keras, which training needs: {_summary(error)}",
                hint="replace it with a layer that both Keras versions have",
            ) from error

    @staticmethod
    def _copy_weights(operation: Any, layer: Any) -> None:
        weights = operation.get_weights()
        try:
            layer.set_weights(weights)
        except ValueError as error:
            raise ConversionError(
                f"the weights of {describe(operation)} do not fit tf-keras's layer: {_summary(error)}",
                hint="replace it with a layer that both Keras versions have",
            ) from error

    def _unique_name(self, name: str, prefix: str) -> str:
        """Return the layer's name if it is not used yet, else with the names of the enclosing models as a prefix."""
        base, number = name if name not in self.names else prefix + name, 0
        unique = base
        while unique in self.names:
            number += 1
            unique = f"{base}_{number}"
        self.names.add(unique)
        return unique

    def _remember(self, reference: Any, tensor: Any, name: str) -> None:
        self._tensors.append((reference, tensor, name))

    def first_difference(self, model: Any) -> str:
        """Return the first layer with different outputs as the end of a sentence, empty when it is not known."""
        import tf_keras

        arrays = _probe(model)
        inputs = set(map(id, model.inputs))
        for reference, tensor, name in self._tensors:
            if id(reference) in inputs:
                continue
            try:
                before = [np.asarray(type_of(model)(model.inputs, reference)(_as_input(arrays)))]
                after = [np.asarray(tf_keras.Model(self._inputs_of(tensor), tensor)(_as_input(arrays)))]
            except Exception:  # a tensor inside a nested model is not reachable from the outer inputs
                continue
            if not relative_difference(before, after) <= TOLERANCE:
                return f"; the first difference is at layer '{name}'"
        return ""

    def _inputs_of(self, tensor: Any) -> list[Any]:
        from tf_keras.src.utils import layer_utils

        return list(layer_utils.get_source_inputs(tensor))


def follow(
    model: Any,
    inputs: Sequence[Any],
    apply: Callable[[Any, Any, Mapping[str, Any]], Any],
    remember: Callable[[Any, Any, str], None],
) -> list[Any]:
    """Run a model's graph on other tensors, one `apply(operation, args, kwargs)` per node; return its outputs."""
    import tensorflow as tf

    graph = getattr(model, "_functional", None) or model
    if not getattr(graph, "_nodes_by_depth", None):
        # tf-keras's Sequential, when it was built without a graph.
        tensor = inputs[0]
        for layer in model.layers:
            tensor = apply(layer, (tensor,), {})
        return [tensor]
    known: dict[Any, Any] = {}
    flat = list(tf.nest.flatten(graph.inputs))
    for reference, tensor in zip(flat, inputs, strict=True):
        known[id(reference)] = tensor
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            if hasattr(node, "operation"):
                operation, references = node.operation, node.outputs
                args, kwargs = node.arguments.fill_in(known)
            else:
                operation, references = node.layer, tf.nest.flatten(node.outputs)
                args, kwargs = node.map_arguments({str(key): _Reusable(value) for key, value in known.items()})
            outputs = tf.nest.flatten(apply(operation, args, kwargs))
            for reference, tensor in zip(references, outputs, strict=True):
                known[id(reference)] = tensor
                remember(reference, tensor, str(operation.name))
    return [known[id(reference)] for reference in tf.nest.flatten(graph.outputs)]


class _Reusable:
    """A tensor that can be popped any number of times; tf-keras pops each argument once per use."""

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def pop(self) -> Any:
        return self._tensor


def is_model(operation: Any) -> bool:
    """True for a model of either Keras."""
    import keras
    import tf_keras

    return isinstance(operation, keras.Model | tf_keras.Model)


def is_nested(model: Any) -> bool:
    """True when a model contains another one."""
    return any(is_model(layer) for layer in model.layers)


def type_of(model: Any) -> Any:
    """Return the Functional model class of the Keras that `model` belongs to."""
    import keras
    import tf_keras

    return keras.Model if isinstance(model, keras.Model) else tf_keras.Model


def _require_graph(model: Any) -> None:
    """Refuse a subclassed model, which has no graph of layers."""
    graph = getattr(model, "_functional", None) or model
    known = bool(getattr(graph, "_nodes_by_depth", None)) or (
        type(model).__name__ == "Sequential" and bool(getattr(model, "inputs", None))
    )
    plain = type(model).__name__ in {"Functional", "Sequential", "Model"}
    if not known or not plain:
        raise ConversionError(
            f"the model '{model.name}' ({type(model).__name__}) is subclassed, but training needs a graph of layers",
            hint="build it with the Functional API: keras.Model(inputs, outputs); for a Sequential model, put"
            " keras.Input first",
        )


def _input_names(model: Any) -> list[str]:
    structure = getattr(model, "_inputs_struct", None)
    if isinstance(structure, dict) and len(structure) == len(model.inputs):
        by_id = {id(tensor): str(key) for key, tensor in structure.items()}
        if all(id(tensor) in by_id for tensor in model.inputs):
            return [by_id[id(tensor)] for tensor in model.inputs]
    return [str(tensor.name).split(":")[0] for tensor in model.inputs]


def _dtype(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _probe(model: Any, *, batch: int = 2, dynamic_size: int = 32) -> list[Any]:
    """Return pseudo-random inputs: floats in [0, 1), integers 0 or 1; dynamic dimensions become `dynamic_size`."""
    random = np.random.default_rng(7)
    arrays = []
    for tensor in model.inputs:
        shape = [
            batch if i == 0 else dynamic_size if size is None else int(size) for i, size in enumerate(tensor.shape)
        ]
        if tensor.shape[0] is not None:
            shape[0] = int(tensor.shape[0])
        dtype = np.dtype(_dtype(tensor))
        values = random.random(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        arrays.append(values.astype(dtype))
    return arrays


def _difference(model: Any, rebuilt: Any) -> float:
    import tensorflow as tf

    arrays = _probe(model)
    structure = getattr(model, "_inputs_struct", None)
    inputs: Any = _as_input(arrays)
    if isinstance(structure, dict):
        inputs = dict(zip(_input_names(model), arrays, strict=True))
    before = [np.asarray(t) for t in tf.nest.flatten(_ordered(model(inputs, training=False), model))]
    after = [np.asarray(t) for t in tf.nest.flatten(rebuilt(_as_input(arrays), training=False))]
    return relative_difference(before, after)


def _ordered(outputs: Any, model: Any) -> Any:
    """Return the outputs of a dict in the model's order; tf.nest would sort its keys."""
    if isinstance(outputs, dict):
        import keras

        return keras.tree.flatten(outputs)
    return outputs


def _as_input(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else arrays


def relative_difference(before: Sequence[Any], after: Sequence[Any]) -> float:
    """Return the largest difference of any output, divided by that output's largest absolute value."""
    if len(before) != len(after):
        return float("inf")
    worst = 0.0
    for one, other in zip(before, after, strict=True):
        if one.shape != other.shape or not np.isfinite(other).all():
            return float("inf")
        scale = float(np.abs(one).max()) or 1.0
        worst = max(worst, float(np.abs(one.astype(np.float64) - other).max()) / scale)
    return worst


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, 300, default='')}"
