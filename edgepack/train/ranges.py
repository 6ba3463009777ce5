"""Start quantization-aware training from measured activation ranges.

TFMOT starts every activation at [-6, 6] and lets the range follow the data by one thousandth per step: in a short
training it never arrives. Here each range is first set to what a few batches of the training data reach.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def measure_ranges(model: Any, batches: Iterable[Any]) -> None:
    """Set the activation ranges of a model made by `quantize_apply`; nothing else of it changes.

    Args:
        model: The wrapped model.
        batches: Inputs of a few steps, as the model takes them.
    """
    kept = [(variable, variable.numpy()) for variable in model.variables if not _is_range(variable)]
    for position, batch in enumerate(batches):
        # The first batch sets the range, the following ones average into it.
        with _decay(position / (position + 1)):
            model(batch, training=True)
    for variable, value in kept:
        variable.assign(value)


def _is_range(variable: Any) -> bool:
    name = str(variable.name).split("/")[-1].split(":")[0]
    return name.endswith(("_min", "_max"))


@contextmanager
def _decay(share: float) -> Iterator[None]:
    """Let TFMOT's moving averages keep `share` of what they were, instead of 0.999."""
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    original = quant_ops.MovingAvgQuantize

    def quick(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "ema_decay": share})

    quant_ops.MovingAvgQuantize = quick
    try:
        yield
    finally:
        quant_ops.MovingAvgQuantize = original
