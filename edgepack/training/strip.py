"""Remove the quantization wrappers of TFMOT from a tf-keras model, so that it can be trained again."""

from typing import Any

_WRAPPERS = frozenset({"QuantizeWrapper", "QuantizeWrapperV2"})

#: Weights of the layers that TFMOT wraps, in the order in which Keras creates them.
_ORDER = (
    "kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings", "bias", "gamma", "beta",
    "moving_mean", "moving_variance",
)  # fmt: skip


def strip_quantization(model: Any) -> Any:
    """Return the model with plain layers and the trained weights; the same model when nothing is wrapped.

    Learned ranges are left out: training measures and learns them again.
    """
    if not any(type(layer).__name__ in _WRAPPERS for layer in getattr(model, "submodules", ())):
        return model
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer

    weights: dict[str, list[Any]] = {}

    def plain(layer: Any) -> Any:
        if isinstance(layer, QuantizeLayer):
            # Passes its input on, as the rounding did.
            return tf_keras.layers.Activation("linear", name=layer.name)
        if type(layer).__name__ not in _WRAPPERS:
            weights[layer.name] = layer.get_weights()
            return type(layer).from_config(layer.get_config())
        config = layer.layer.get_config()
        for key, value in config.items():
            if isinstance(value, dict) and value.get("class_name") == "QuantizeAwareActivation":
                config[key] = _activation(value["config"]["activation"])
        inner = type(layer.layer).from_config(config)
        weights[inner.name] = _own_weights(layer)
        return inner

    stripped = tf_keras.models.clone_model(model, clone_function=plain)
    for name, arrays in weights.items():
        stripped.get_layer(name).set_weights(arrays)
    return stripped


def _activation(stored: Any) -> Any:
    """Return the activation inside a QuantizeAwareActivation; NoOpActivation stands for one that moved elsewhere."""
    return "linear" if isinstance(stored, dict) and stored.get("class_name") == "NoOpActivation" else stored


def _own_weights(layer: Any) -> list[Any]:
    """Return the weights of a wrapped layer in the order of `set_weights`; the wrapper holds the kernel."""
    names = {variable.name.split("/")[-1].split(":")[0]: variable.numpy() for variable in layer.weights}
    order = [name for name in _ORDER if name in names]
    return [names[name] for name in order]
