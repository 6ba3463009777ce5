"""One Keras 3 layer or operation as its tf-keras counterpart."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from edgepack.errors import ConversionError

#: Configuration that does not change what a trained layer computes, or that tf-keras writes in another form.
_LEFT_OUT = ("dtype", "name", "build_config", "quantization_config")
_LEFT_OUT_ENDS = ("_initializer", "_regularizer", "_constraint")

#: Keras 3 operations on two tensors -> tf-keras merge layer.
_MERGES = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}

#: Keras 3 operations on one tensor -> tf-keras layer and its arguments.
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Relu": ("ReLU", {}),
    "Relu6": ("ReLU", {"max_value": 6.0}),
    "Softmax": ("Softmax", {}),
    "Sigmoid": ("Activation", {"activation": "sigmoid"}),
    "Tanh": ("Activation", {"activation": "tanh"}),
}


def place(operation: Any) -> str:
    """Return `layer 'stem' (Conv2D)` for messages."""
    return f"layer '{operation.name}' ({type(operation).__name__})"


def cross_layer(layer: Any, name: str, allow_code: bool) -> tuple[Any, list[str]]:
    """Return the tf-keras layer for a layer of either Keras, not yet built, and what of it was left behind.

    Args:
        layer: The original.
        name: The new layer's name.
        allow_code: Take a Lambda layer's function over.

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
            f"{place(layer)} is a class of your own, and training has to rebuild it in tf-keras",
            hint="replace it with layers of Keras, or train the model in your own code and build the result",
        )
    counterpart = getattr(tf_keras.layers, type(layer).__name__, None)
    if counterpart is None:
        raise ConversionError(
            f"{place(layer)} exists in Keras 3 only; quantization-aware training, pruning and clustering need tf-keras",
            hint="replace it with a layer that both have: https://www.tensorflow.org/api_docs/python/tf/keras/layers",
        )
    known = _parameters(counterpart)
    kept: dict[str, Any] = {}
    dropped = []
    for key, value in layer.get_config().items():
        if key in _LEFT_OUT or key.endswith(_LEFT_OUT_ENDS):
            continue
        if key not in known and key != "trainable":
            if value not in (None, False, 1):
                dropped.append(f"'{key}' of {place(layer)}")
            continue
        kept[key] = _plain(layer, key, value)
    if "layer" in kept:
        kept["layer"] = cross_layer(layer.layer, str(layer.layer.name), allow_code)[0]
    try:
        return counterpart(**kept, name=name), dropped
    except Exception as error:
        text = str(error).strip().splitlines()
        raise ConversionError(
            f"{place(layer)} cannot be made in tf-keras, which training needs: {text[0] if text else type(error)}",
            hint="replace it with a layer that both Keras versions have",
        ) from error


def cross_operation(operation: Any, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Return a Keras 3 operation (`x + y`, `keras.ops.relu(x)`) done on tf-keras tensors.

    Raises:
        ConversionError: The operation has no counterpart here.
    """
    import tf_keras

    kind = type(operation).__name__
    values = [*args, *(value for key, value in kwargs.items() if key in {"x1", "x2", "x"})]
    tensors = [value for value in values if hasattr(value, "_keras_history")]
    if kind in _MERGES and len(tensors) == 2:
        return getattr(tf_keras.layers, _MERGES[kind])(name=name)(tensors)
    if kind in _ACTIVATIONS and len(tensors) == 1 and len(values) == 1:
        made, config = _ACTIVATIONS[kind]
        return getattr(tf_keras.layers, made)(**config, name=name)(tensors[0])
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
        f"the operation '{operation.name}' (keras.ops, {kind}) exists in Keras 3 only, and training needs tf-keras",
        hint="use a layer for it: keras.layers.Add, ReLU, Reshape, GlobalAveragePooling2D and the like",
    )


def _lambda(layer: Any, name: str, allow_code: bool) -> Any:
    import tf_keras

    if not allow_code:
        raise ConversionError(
            f"{place(layer)} carries Python code",
            hint="if you trust where the model comes from, allow it with --allow-code; or use layers of Keras",
        )
    return tf_keras.layers.Lambda(layer.function, arguments=dict(layer.arguments or {}), name=name)


def _plain(layer: Any, key: str, value: Any) -> Any:
    """Return a configuration value as tf-keras reads it: functions of Keras by name."""
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

    ours = module in (None, "builtins") or str(module).startswith("keras.")
    if not ours or not isinstance(name, str) or getattr(tf_keras.activations, name, None) is None:
        raise ConversionError(
            f"{place(layer)} has the {key} '{name}', which tf-keras does not have",
            hint="use relu, ReLU(6), sigmoid, tanh, softmax, gelu, swish or another that both Keras versions have",
        )
    return name


def _parameters(layer: Any) -> set[str]:
    """Return the names of all constructor arguments of a class and its bases."""
    found: set[str] = set()
    for kind in layer.__mro__[:-1]:
        if "__init__" in kind.__dict__:
            found.update(inspect.signature(kind.__init__).parameters)
    return found - {"self", "args", "kwargs"}
