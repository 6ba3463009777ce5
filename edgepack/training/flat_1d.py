"""Two-dimensional counterparts of one-dimensional tf-keras layers, on signals of height 1."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counterpart:
    """A layer on (batch, 1, steps, channels).

    Attributes:
        kind: Class of tf-keras.
        config: Its configuration.
        pad: ((top, bottom), (left, right)) of zeros in front of it, None for none.
        keeps_height: False when its result is no signal: (batch, channels).
    """

    kind: Any
    config: dict[str, Any]
    pad: tuple[tuple[int, int], tuple[int, int]] | None = None
    keeps_height: bool = True


#: One-dimensional class -> two-dimensional class, and the settings of which the step dimension is one of two.
_WINDOWS = {
    "Conv1D": ("Conv2D", ("kernel_size", "strides", "dilation_rate")),
    "DepthwiseConv1D": ("DepthwiseConv2D", ("kernel_size", "strides", "dilation_rate")),
    "SeparableConv1D": ("SeparableConv2D", ("kernel_size", "strides", "dilation_rate")),
    "MaxPooling1D": ("MaxPooling2D", ("pool_size", "strides")),
    "AveragePooling1D": ("AveragePooling2D", ("pool_size", "strides")),
    "UpSampling1D": ("UpSampling2D", ("size",)),
    "ZeroPadding1D": ("ZeroPadding2D", ()),
    "SpatialDropout1D": ("SpatialDropout2D", ()),
    "GlobalAveragePooling1D": ("GlobalAveragePooling2D", ()),
    "GlobalMaxPooling1D": ("GlobalMaxPooling2D", ()),
}


def counterpart_2d(layer: Any) -> Counterpart | None:
    """Return the counterpart of a layer, None for a layer without one."""
    import tf_keras

    name = type(layer).__name__
    if name not in _WINDOWS or getattr(layer, "data_format", "channels_last") not in {"channels_last", None}:
        return None
    kind, windows = _WINDOWS[name]
    config = layer.get_config()
    for key in windows:
        value = config[key]
        config[key] = (1, int(value[0] if isinstance(value, list | tuple) else value))
    pad = None
    if config.get("padding") == "causal":
        config["padding"] = "valid"
        pad = ((0, 0), ((config["kernel_size"][1] - 1) * config["dilation_rate"][1], 0))
    if name == "ZeroPadding1D":
        config["padding"] = ((0, 0), tuple(config["padding"]))
    if config.get("keepdims"):
        return None
    # A stride of SeparableConv2D and DepthwiseConv2D is one number for both dimensions.
    if name in {"SeparableConv1D", "DepthwiseConv1D"}:
        if config["strides"][1] != 1 and config["strides"][0] != config["strides"][1]:
            config["strides"] = (config["strides"][1], config["strides"][1])
        config["dilation_rate"] = (config["dilation_rate"][1], config["dilation_rate"][1])
    if "data_format" in config:
        config["data_format"] = "channels_last"
    for unknown in set(config) - _parameters(getattr(tf_keras.layers, kind)):
        del config[unknown]
    return Counterpart(getattr(tf_keras.layers, kind), config, pad, not name.startswith("Global"))


def _parameters(kind: Any) -> set[str]:
    import inspect

    names = {"trainable", "dtype"}
    for base in kind.__mro__[:-1]:
        if "__init__" in base.__dict__:
            names.update(inspect.signature(base.__init__).parameters)
    return names - {"self", "args", "kwargs"}
