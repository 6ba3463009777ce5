"""Start quantization-aware training from measured activation ranges.

TFMOT initializes every activation range with [-6, 6] and updates it with a moving average that moves by one thousandth
per step, so that it does not converge in a short training. Here each range is initialized from a few batches of the
training data.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def measure_ranges(model: Any, batches: Iterable[Any]) -> None:
    """Set the activation ranges of a model wrapped by `quantize_apply`; other variables do not change.

    Args:
        model: The wrapped model.
        batches: Inputs of the model for a few steps.
    """
    others = [(variable, variable.numpy()) for variable in model.variables if not _is_range(variable)]
    for position, batch in enumerate(batches):
        # The first batch sets the range, the following ones are averaged with it.
        with _decay(position / (position + 1)):
            model(batch, training=True)
    for variable, value in others:
        variable.assign(value)


def _is_range(variable: Any) -> bool:
    name = str(variable.name).split("/")[-1].split(":")[0]
    return name.endswith(("_min", "_max"))


@contextmanager
def _decay(share: float) -> Iterator[None]:
    """Set the decay of TFMOT's moving averages to `share` instead of 0.999."""
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    original = quant_ops.MovingAvgQuantize

    def with_decay(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **{**kwargs, "ema_decay": share})

    quant_ops.MovingAvgQuantize = with_decay
    try:
        yield
    finally:
        quant_ops.MovingAvgQuantize = original
