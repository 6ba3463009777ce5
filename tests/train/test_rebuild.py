"""A Keras 3 model in tf-keras: the same outputs, one flat graph, or an error that names the layer."""

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
    """Functional, Sequential, branched, nested and shared models cross with equal outputs, operators too."""
    done = trainer.call("train_models:look", str(make(function, suffix)))
    assert done["difference"] <= 1e-5
    assert done["keras"] == "tf_keras"
    assert not done["nested"]
    assert len(set(done["layers"])) == len(done["layers"])
    if function == "winding":
        # Two calls by the outer model, and two of each layer of the block that is called twice.
        assert done["calls"]["twice"] == 2
        assert sum(name.endswith("same") for name in done["layers"]) == 3


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
    """A model that tf-keras cannot hold is refused with the layer's name and what to change."""
    with pytest.raises(ConversionError) as caught:
        trainer.call("train_models:look", str(make(function)))
    assert named.lower() in caught.value.message.lower()
    assert caught.value.hint


def test_a_lambda_crosses_when_it_is_allowed(make: Callable[..., Path], trainer: Worker) -> None:
    """--allow-code takes a Lambda layer over as it is."""
    assert trainer.call("train_models:look", str(make("with_lambda")), True)["difference"] <= 1e-5
