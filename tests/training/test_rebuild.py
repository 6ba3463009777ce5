"""A Keras 3 model rebuilt in tf-keras has equal outputs and a flat graph, or the error names the layer."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.child import Worker
from edgepack.errors import ConversionError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("function", "suffix"),
    [("winding", ".keras"), ("stacked", ".keras"), ("small", ".keras"), ("legacy", ".h5"), ("stacked", ".h5")],
)
def test_outputs_are_equal_and_the_graph_is_flat(
    make: Callable[..., Path], trainer: Worker, function: str, suffix: str
) -> None:
    """Functional, Sequential, branched, nested and shared models are rebuilt with equal outputs, operators included."""
    summary = trainer.call("train_models:summarize", str(make(function, suffix)))
    assert summary["difference"] <= 1e-5
    assert summary["keras"] == "tf_keras"
    assert not summary["nested"]
    assert len(set(summary["layers"])) == len(summary["layers"])
    if function == "winding":
        # The outer model calls it twice; each layer of the block, which is called twice, exists once.
        assert summary["calls"]["twice"] == 2
        assert sum(name.endswith("same") for name in summary["layers"]) == 3


@pytest.mark.parametrize(
    ("function", "named"),
    [
        ("subclassed", "mine"),
        ("only_keras_3", "layer 'root' (RMSNormalization)"),
        ("other_numbers", "layer 'kinked'"),
        ("unknown_operation", "CumSum"),
        ("with_lambda", "layer 'double' (Lambda)"),
    ],
)
def test_what_cannot_cross_is_named(make: Callable[..., Path], trainer: Worker, function: str, named: str) -> None:
    """A model that tf-keras cannot represent is refused with the layer's name and a hint."""
    with pytest.raises(ConversionError) as caught:
        trainer.call("train_models:summarize", str(make(function)))
    assert named.lower() in caught.value.message.lower()
    assert caught.value.hint


def test_a_lambda_crosses_when_it_is_allowed(make: Callable[..., Path], trainer: Worker) -> None:
    """With --allow-code the function of a Lambda layer is copied."""
    assert trainer.call("train_models:summarize", str(make("with_lambda")), True)["difference"] <= 1e-5
