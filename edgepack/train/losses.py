"""Which loss a model is trained with: the flag's, else the compiled model's, else the one its output asks for. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError, UsageError
from edgepack.train.model import LOSSES

#: Class names in a compile configuration -> names of `LOSSES`.
_CLASSES = {"".join(part.title() for part in name.split("_")): name for name in LOSSES}
_SHORT = {"mse": "mean_squared_error", "mae": "mean_absolute_error"}


@dataclass(frozen=True)
class Loss:
    """A loss on class labels.

    Attributes:
        name: One of `LOSSES`.
        from_logits: True when the model's output has not been through softmax or sigmoid.
        why: Where it comes from, for people.
    """

    name: str
    from_logits: bool
    why: str

    def targets(self, labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[Any]:
        """Return what the model's output is held against.

        Args:
            labels: Class indices, shape (samples,).
            classes: Size of the output.
        """
        if self.name == "sparse_categorical_crossentropy":
            return labels
        if classes == 1:
            return labels.astype(np.float32)[:, np.newaxis]
        return np.eye(classes, dtype=np.float32)[labels]


def choose_loss(asked: str, compiled: Mapping[str, Any], classes: int, activation: str) -> Loss:
    """Return the loss to train with.

    Args:
        asked: Name from the command line, empty for none.
        compiled: The model's compile configuration, empty for none.
        classes: Size of the output.
        activation: Activation of the last layer, `linear` for none.

    Raises:
        UsageError: The compiled loss is none of `LOSSES`.
    """
    by_output = activation not in {"softmax", "sigmoid"}
    if asked:
        return Loss(asked, by_output and "crossentropy" in asked, "asked for")
    told = compiled.get("loss")
    if told:
        name, config = _named(told)
        if name not in LOSSES:
            raise UsageError(
                f"the model was compiled with the loss '{name}', which does not fit class labels",
                hint=f"give one with --loss: {', '.join(LOSSES)}",
            )
        # A name alone means Keras's default, from_logits=False; an output without activation says otherwise.
        logits = bool(config.get("from_logits", by_output)) and "crossentropy" in name
        return Loss(name, logits, "the compiled model's")
    if classes == 1:
        return Loss("binary_crossentropy", by_output, "fits the output of one value")
    if activation == "sigmoid":
        return Loss("binary_crossentropy", False, "fits the sigmoid output")
    return Loss("sparse_categorical_crossentropy", by_output, f"fits the output of {classes} classes")


def _named(told: Any) -> tuple[str, Mapping[str, Any]]:
    """Return (name, configuration) of a loss as compile configurations store it."""
    if isinstance(told, dict) and "class_name" in told:
        config = told.get("config")
        if told["class_name"] == "function" and isinstance(config, str):
            return _SHORT.get(config, config), {}
        name = str(told["class_name"])
        return _CLASSES.get(name, name), config if isinstance(config, dict) else {}
    if isinstance(told, list | dict) and len(told) == 1:
        return _named(told[0] if isinstance(told, list) else next(iter(told.values())))
    if isinstance(told, str):
        return _SHORT.get(told, _CLASSES.get(told, told)), {}
    return str(told), {}


def check_labels(labels: npt.NDArray[np.int64], classes: int, source: str) -> None:
    """Hold labels against the output.

    Raises:
        SamplesError: A label is not a class of the output.
    """
    highest = int(labels.max())
    if highest >= max(classes, 2):
        raise SamplesError(
            f"samples '{source}': the highest label is {highest}, but the model has {classes} outputs (classes 0 to "
            f"{max(classes, 2) - 1})",
            hint="labels are class indices that start at 0",
        )
