"""The loss is the requested one, that of the compiled model or one that fits the output, in this order."""

import numpy as np
import pytest

from edgepack.errors import SamplesError, UsageError
from edgepack.training.losses import Loss, check_labels, choose_loss

LAYERED = {"class_name": "SparseCategoricalCrossentropy", "config": {"name": "x", "from_logits": True}}
FUNCTION = {"class_name": "function", "config": "categorical_crossentropy"}


@pytest.mark.parametrize(
    ("requested", "compile_config", "classes", "activation", "name", "logits"),
    [
        ("", {}, 10, "softmax", "sparse_categorical_crossentropy", False),
        ("", {}, 10, "linear", "sparse_categorical_crossentropy", True),
        ("", {}, 1, "sigmoid", "binary_crossentropy", False),
        ("", {}, 1, "linear", "binary_crossentropy", True),
        ("", {}, 4, "sigmoid", "binary_crossentropy", False),
        ("", {"loss": "categorical_crossentropy"}, 10, "softmax", "categorical_crossentropy", False),
        ("", {"loss": "mse"}, 10, "linear", "mean_squared_error", False),
        ("", {"loss": LAYERED}, 10, "linear", "sparse_categorical_crossentropy", True),
        ("", {"loss": {"digit": FUNCTION}}, 10, "softmax", "categorical_crossentropy", False),
        ("mean_absolute_error", {"loss": LAYERED}, 10, "linear", "mean_absolute_error", False),
        ("categorical_crossentropy", {}, 10, "linear", "categorical_crossentropy", True),
    ],
)
def test_loss(requested: str, compile_config: dict, classes: int, activation: str, name: str, logits: bool) -> None:
    """Names, serialized losses and outputs give the loss that fits them."""
    chosen = choose_loss(requested, compile_config, classes, activation)
    assert (chosen.name, chosen.from_logits) == (name, logits)


def test_a_loss_that_class_labels_do_not_fit_is_refused() -> None:
    """A compiled loss that does not fit class labels is refused with a hint to --loss."""
    with pytest.raises(UsageError, match="triplet") as caught:
        choose_loss("", {"loss": "triplet"}, 10, "softmax")
    assert "--loss" in caught.value.hint


def test_targets_are_what_the_loss_takes() -> None:
    """Class indices are used directly, as one-hot rows, or as one column."""
    labels = np.array([2, 0], np.int64)
    assert Loss("sparse_categorical_crossentropy", False, "").targets(labels, 3).tolist() == [2, 0]
    assert Loss("categorical_crossentropy", False, "").targets(labels, 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert Loss("binary_crossentropy", False, "").targets(labels // 2, 1).tolist() == [[1], [0]]


def test_labels_have_to_be_classes() -> None:
    """A label beyond the outputs is refused with both numbers in the message."""
    check_labels(np.array([0, 9]), 10, "x.npz")
    with pytest.raises(SamplesError, match=r"highest label is 10, but the model has 10 outputs"):
        check_labels(np.array([0, 10]), 10, "x.npz")
