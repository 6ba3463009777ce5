"""The training loop of one stage: batches, compilation, and events and a saved state after each epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.child import emit
from edgepack.samples import SampleSet
from edgepack.training.losses import Loss
from edgepack.training.model import EPOCHS, LEARNING_RATES, TrainOptions

#: Number of batches for the initial activation ranges.
RANGE_BATCHES = 8

#: Final learning rate of the cosine decay, as a share of the initial one.
_FINAL_RATE = 0.02


@dataclass(frozen=True)
class Data:
    """Labelled samples as batches.

    Attributes:
        samples: The samples, read batch by batch.
        names: Input names in the model's order.
        targets: Target of the output for each sample.
        batch: Samples per step; the last, smaller batch of an epoch is left out when there is a full one.
        shapes: Shape of each input of one sample, without the batch dimension.
        seed: Random seed of the order.
    """

    samples: SampleSet
    names: tuple[str, ...]
    targets: npt.NDArray[Any]
    batch: int
    shapes: tuple[tuple[int, ...], ...]
    seed: int

    @property
    def steps(self) -> int:
        """Number of batches of an epoch."""
        return max(1, len(self.samples) // self.batch)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the samples in an epoch: determined by the seed, and different in each epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))

    def inputs(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> Any:
        """Return the inputs of the model for one batch: an array, or a list of arrays."""
        samples = [self.samples.sample(int(i)) for i in positions]
        stacked = [np.concatenate([sample[name] for sample in samples]) for name in self.names]
        shaped = [array.reshape(len(positions), *shape) for array, shape in zip(stacked, self.shapes, strict=True)]
        return shaped[0] if len(shaped) == 1 else shaped

    def batches(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the sample positions of each step of an epoch."""
        order = self.order(epoch)
        for step in range(self.steps):
            yield order[step * self.batch : (step + 1) * self.batch]


def compile_model(model: Any, loss: Loss, rate: float, steps: int) -> None:
    """Compile with Adam, a cosine decay from `rate` over `steps`, and accuracy as the metric."""
    import tf_keras

    losses = tf_keras.losses
    loss_function = {
        "sparse_categorical_crossentropy": lambda: losses.SparseCategoricalCrossentropy(from_logits=loss.from_logits),
        "categorical_crossentropy": lambda: losses.CategoricalCrossentropy(from_logits=loss.from_logits),
        "binary_crossentropy": lambda: losses.BinaryCrossentropy(from_logits=loss.from_logits),
        "mean_squared_error": losses.MeanSquaredError,
        "mean_absolute_error": losses.MeanAbsoluteError,
    }[loss.name]()
    classes = int(model.outputs[0].shape[-1])
    accuracy: Any = "accuracy"
    if classes == 1:
        accuracy = tf_keras.metrics.BinaryAccuracy("accuracy", threshold=0.0 if loss.from_logits else 0.5)
    elif loss.name != "sparse_categorical_crossentropy":
        accuracy = tf_keras.metrics.CategoricalAccuracy("accuracy")
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, max(1, steps), alpha=_FINAL_RATE)
    model.compile(optimizer=tf_keras.optimizers.Adam(schedule), loss=loss_function, metrics=[accuracy])


def optimizer_variables(model: Any) -> list[Any]:
    """Return the optimizer's variables, in a fixed order."""
    model.optimizer.build(model.trainable_variables)
    variables = model.optimizer.variables
    return list(variables() if callable(variables) else variables)


def fit(
    model: Any,
    data: Data,
    validation: Data | None,
    *,
    callbacks: Sequence[Any],
    stage: str,
    first_epoch: int,
    epochs: int,
    later_epochs: int,
    on_epoch_end: Callable[[int, dict[str, Any]], None],
) -> None:
    """Train from epoch `first_epoch` to `epochs`.

    Args:
        model: Compiled model.
        data: Training samples.
        validation: Samples to measure on after each epoch, None for none.
        callbacks: Callbacks of TFMOT.
        stage: Name of the stage, for events.
        first_epoch: Number of epochs that are already finished.
        epochs: Epochs of the stage.
        later_epochs: Epochs of the later stages, for the estimate of the remaining time.
        on_epoch_end: Called with the finished epochs and the figures after each epoch.
    """
    import tf_keras

    class _Batches(tf_keras.utils.Sequence):  # type: ignore[misc]
        """Batches of one data set, read when Keras requests them."""

        def __init__(self, source: Data, epoch: int, fixed: bool) -> None:
            self._source, self._epoch, self._fixed = source, epoch, fixed
            self._batches = list(source.batches(epoch))
            if fixed:
                positions = np.arange(len(source.samples))
                self._batches = [positions[i : i + source.batch] for i in range(0, len(positions), source.batch)]

        def __len__(self) -> int:
            return len(self._batches)

        def __getitem__(self, step: int) -> tuple[Any, Any]:
            positions = self._batches[step]
            return self._source.inputs(positions), self._source.targets[positions]

        def on_epoch_end(self) -> None:
            self._epoch += 1
            if not self._fixed:
                self._batches = list(self._source.batches(self._epoch))

    class _Report(tf_keras.callbacks.Callback):  # type: ignore[misc]
        """Emits the figures of each epoch to the parent process and saves the state."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            figures = {key: round(float(value), 6) for key, value in (logs or {}).items()}
            seconds = time.monotonic() - self.started
            event = {"stage": stage, "epoch": epoch + 1, "epochs": epochs, **figures}
            on_epoch_end(epoch + 1, event)
            emit({**event, "seconds_left": round(seconds * (epochs - epoch - 1 + later_epochs), 1)})

    model.fit(
        _Batches(data, first_epoch, False),
        validation_data=None if validation is None else _Batches(validation, 0, True),
        initial_epoch=first_epoch,
        epochs=epochs,
        # UpdatePruningStep applies the masks again at the end of an epoch, so it has to run before the state is saved.
        callbacks=[*callbacks, _Report()],
        shuffle=False,
        verbose=0,
    )


def rate_of(stage: str, options: TrainOptions) -> float:
    """Return the initial learning rate of a stage."""
    return options.learning_rate or LEARNING_RATES[stage]


def epochs_of(stage: str, options: TrainOptions) -> int:
    """Return the number of epochs of a stage."""
    return options.epochs or EPOCHS[stage]
