"""Convert a single Keras 3 layer or operation to its tf-keras counterpart."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgepack.errors import ConversionError
from edgepack.text import first_line

#: Configuration that does not change what a trained layer computes, or that tf-keras writes in another form.
_IGNORED = ("dtype", "name", "build_config", "quantization_config")
_IGNORED_ENDS = ("_initializer", "_regularizer", "_constraint")

#: Keras 3 operations on two tensors -> tf-keras merge layer.
_MERGES = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}

#: Activation functions that have another name in tf-keras.
_RENAMED = {"silu": "swish"}

#: Keras 3 operations on one tensor -> tf-keras layer and its arguments.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Relu": ("ReLU", {}),
    "Relu6": ("ReLU", {"max_value": 6.0}),
    "Softmax": ("Softmax", {}),
    "Sigmoid": ("Activation", {"activation": "sigmoid"}),
    "Tanh": ("Activation", {"activation": "tanh"}),
}


def describe(operation: Any) -> str:
    """Return `layer 'stem' (Conv2D)` for messages."""
    return f"layer '{operation.name}' ({type(operation).__name__})"


def convert_layer(layer: Any, name: str, allow_code: bool) -> tuple[Any, list[str]]:
    """Return the tf-keras layer for a layer of either Keras, not yet built, and the settings that it does not support.

    Args:
        layer: The original.
        name: The new layer's name.
        allow_code: Copy the function of a Lambda layer.

    Raises:
        ConversionError: tf-keras has no such layer.
    """
    import tf_keras

    if isinstance(layer, tf_keras.layers.Layer):
        return type(layer).from_config({**layer.get_config(), "name": name}), []
    if type(layer).__name__ == "Lambda":
        return _lambda(layer, name, allow_code), []
    if not type(layer).__module__.startswith("keras."):
        raise ConversionError(
            f"{describe(layer)} is a custom class, but training has to rebuild it in tf-keras",
            hint="replace it with layers of Keras, or train the model in your own code and build the result",
        )
    counterpart = getattr(tf_keras.layers, type(layer).__name__, None)
    if counterpart is None:
        raise ConversionError(
            f"{describe(layer)} exists in Keras 3 only, but training for TFLite needs tf-keras",
            hint="replace it with a layer that both support: https://www.tensorflow.org/api_docs/python/tf/keras/layers",
        )
    parameters = _parameters(counterpart)
    arguments: dict[str, Any] = {}
    dropped = []
    for key, value in layer.get_config().items():
        if key in _IGNORED or key.endswith(_IGNORED_ENDS):
            continue
        if key not in parameters and key != "trainable":
            if value not in (None, False, 1):
                dropped.append(f"'{key}' of {describe(layer)}")
            continue
        relu6 = key == "activation" and has_relu6(layer)
        arguments[key] = "linear" if relu6 else _tf_keras_value(layer, key, value)
    if "layer" in arguments:
        arguments["layer"] = convert_layer(layer.layer, str(layer.layer.name), allow_code)[0]
    try:
        return counterpart(**arguments, name=name), dropped
    except Exception as error:
        raise ConversionError(
            f"{describe(layer)} cannot be created in tf-keras, which training needs: "
            f"{first_line(error, default=type(error).__name__)}",
            hint="replace it with a layer that both Keras versions support",
        ) from error


def has_relu6(layer: Any) -> bool:
    """Return whether a layer of Keras 3 has the activation relu6, which is a layer of its own in tf-keras."""
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", "") == "relu6" and str(activation.__module__).startswith("keras.")


def convert_operation(operation: Any, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return the result of a Keras 3 operation (`x + y`, `keras.ops.relu(x)`) on tf-keras tensors.

    Raises:
        ConversionError: The operation has no counterpart in tf-keras.
    """
    import tf_keras

    kind = type(operation).__name__
    values = [*args, *(value for key, value in kwargs.items() if key in {"x1", "x2", "x"})]
    tensors = [value for value in values if hasattr(value, "_keras_history")]
    if kind in _MERGES and len(tensors) == 2:
        return getattr(tf_keras.layers, _MERGES[kind])(name=name)(tensors)
    if kind in _ACTIVATIONS and len(tensors) == 1 and len(values) == 1:
        layer_class, config = _ACTIVATIONS[kind]
        return getattr(tf_keras.layers, layer_class)(**config, name=name)(tensors[0])
    if kind == "GetItem" and len(values) == 2 and len(tensors) == 1:
        return values[0][values[1]]
    if len(values) == 2 and len(tensors) == 1 and (scaling := _scaling(kind, values)) is not None:
        return tf_keras.layers.Rescaling(*scaling, name=name)(tensors[0])
    scalars: dict[str, Callable[[Any, Any], Any]] = {
        "Add": lambda a, b: a + b,
        "Subtract": lambda a, b: a - b,
        "Multiply": lambda a, b: a * b,
        "Divide": lambda a, b: a / b,
        "TrueDivide": lambda a, b: a / b,
    }
    if kind in scalars and len(values) == 2:
        return scalars[kind](*values)
    raise ConversionError(
        f"the operation '{operation.name}' (keras.ops, {kind}) exists in Keras 3 only, but training needs tf-keras",
        hint="use a layer for it: keras.layers.Add, ReLU, Reshape, GlobalAveragePooling2D and the like",
    )


def _scaling(kind: str, values: list[Any]) -> tuple[Any, Any] | None:
    """Return (scale, offset) of an operation on a tensor and a number, None for another operation."""
    first = hasattr(values[0], "_keras_history")
    number = values[1] if first else values[0]
    if not isinstance(number, int | float):
        return None
    match kind:
        case "Add":
            return 1.0, number
        case "Subtract":
            return (1.0, -number) if first else (-1.0, number)
        case "Multiply":
            return number, 0.0
        case "Divide" | "TrueDivide" if first and number:
            return 1.0 / number, 0.0
    return None


def _lambda(layer: Any, name: str, allow_code: bool) -> Any:
    import tf_keras

    if not allow_code:
        raise ConversionError(
            f"{describe(layer)} contains Python code",
            hint="if you trust the source of the model, allow it with --allow-code; or use layers of Keras",
        )
    return tf_keras.layers.Lambda(layer.function, arguments=dict(layer.arguments or {}), name=name)


def _tf_keras_value(layer: Any, key: str, value: Any) -> Any:
    """Return a configuration value in the form of tf-keras: functions of Keras by name."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        return _function(layer, key, value.get("config"), value.get("module"))
    if (
        isinstance(value, dict)
        and isinstance(value.get("config"), dict)
        and str(value.get("module", "")).endswith("layers")
    ):
        return getattr(layer, key, value)
    if key == "activation" and isinstance(value, str):
        return _function(layer, key, value, "builtins")
    return value


def _function(layer: Any, key: str, name: Any, module: Any) -> str:
    import tf_keras

    name = _RENAMED.get(name, name) if isinstance(name, str) else name
    is_keras = module in (None, "builtins") or str(module).startswith("keras.")
    if not is_keras or not isinstance(name, str) or getattr(tf_keras.activations, name, None) is None:
        raise ConversionError(
            f"{describe(layer)} has the {key} '{name}', which tf-keras does not support",
            hint="use relu, ReLU(6), sigmoid, tanh, softmax, gelu, swish or another that both Keras versions support",
        )
    return name


def _parameters(layer: Any) -> set[str]:
    """Return the names of all constructor arguments of a class and its bases."""
    names: set[str] = set()
    for kind in layer.__mro__[:-1]:
        if "__init__" in kind.__dict__:
            names.update(inspect.signature(kind.__init__).parameters)
    return names - {"self", "args", "kwargs"}
