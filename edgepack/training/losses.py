"""Choose the loss: the requested one, else that of the compiled model, else one that fits the output."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import SamplesError, UsageError
from edgepack.training.model import LOSSES

#: Class name in a compile configuration -> name in `LOSSES`.
_CLASSES = {"".join(part.title() for part in name.split("_")): name for name in LOSSES}
_SHORT = {"mse": "mean_squared_error", "mae": "mean_absolute_error"}


@dataclass(frozen=True)
class Loss:
    """A loss on class labels.

    Attributes:
        name: One of `LOSSES`.
        from_logits: True when the model does not end in softmax or sigmoid.
        origin: Why this loss was chosen, for people.
    """

    name: str
    from_logits: bool
    origin: str

    def targets(self, labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[Any]:
        """Return the targets of the model's output.

        Args:
            labels: Class indices, shape (samples,).
            classes: Size of the output.
        """
        if self.name == "sparse_categorical_crossentropy":
            return labels
        if classes == 1:
            return labels.astype(np.float32)[:, np.newaxis]
        return np.eye(classes, dtype=np.float32)[labels]


def choose_loss(requested: str, compile_config: Mapping[str, Any], classes: int, activation: str) -> Loss:
    """Return the loss to train with.

    Args:
        requested: Name from the command line, empty for none.
        compile_config: The model's compile configuration, empty for none.
        classes: Size of the output.
        activation: Activation of the last layer, `linear` for none.

    Raises:
        UsageError: The loss of the compiled model is not one of `LOSSES`.
    """
    output_is_logits = activation not in {"softmax", "sigmoid"}
    if requested:
        return Loss(requested, output_is_logits and "crossentropy" in requested, "requested")
    compiled_loss = compile_config.get("loss")
    if compiled_loss:
        name, config = _parse_loss(compiled_loss)
        if name not in LOSSES:
            raise UsageError(
                f"the model was compiled with the loss '{name}', which does not fit class labels",
                hint=f"choose one with --loss: {', '.join(LOSSES)}",
            )
        # With a name alone Keras assumes from_logits=False, which is wrong for an output without activation function.
        logits = bool(config.get("from_logits", output_is_logits)) and "crossentropy" in name
        return Loss(name, logits, "the compiled model's")
    if classes == 1:
        return Loss("binary_crossentropy", output_is_logits, "fits the output of one value")
    if activation == "sigmoid":
        return Loss("binary_crossentropy", False, "fits the sigmoid output")
    return Loss("sparse_categorical_crossentropy", output_is_logits, f"fits the output of {classes} classes")


def _parse_loss(loss: Any) -> tuple[str, Mapping[str, Any]]:
    """Return (name, configuration) of a loss as compile configurations store it."""
    if isinstance(loss, dict) and "class_name" in loss:
        config = loss.get("config")
        if loss["class_name"] == "function" and isinstance(config, str):
            return _SHORT.get(config, config), {}
        name = str(loss["class_name"])
        return _CLASSES.get(name, name), config if isinstance(config, dict) else {}
    if isinstance(loss, list | dict) and len(loss) == 1:
        return _parse_loss(loss[0] if isinstance(loss, list) else next(iter(loss.values())))
    if isinstance(loss, str):
        return _SHORT.get(loss, _CLASSES.get(loss, loss)), {}
    return str(loss), {}


def check_labels(labels: npt.NDArray[np.int64], classes: int, source: str) -> None:
    """Check that every label is a class of the output.

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
