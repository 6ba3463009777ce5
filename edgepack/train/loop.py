"""One stage of training: fit, tell, remember."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.child import emit
from edgepack.samples import SampleSet
from edgepack.train.losses import Loss
from edgepack.train.model import TrainOptions

#: Batches that the activation ranges start from.
RANGE_BATCHES = 8

#: The learning rate falls along a cosine to this share of where it began.
_LAST_RATE = 0.02


@dataclass(frozen=True)
class Data:
    """Labelled samples as batches.

    Attributes:
        samples: Where they come from, read batch by batch.
        names: Input names in the model's order.
        targets: What the output is held against, by sample.
        batch: Samples per step; the last, smaller batch of an epoch is left out when there is a full one.
        shapes: Shape of each input of one sample, without the batch.
        seed: Of the order.
    """

    samples: SampleSet
    names: tuple[str, ...]
    targets: npt.NDArray[Any]
    batch: int
    shapes: tuple[tuple[int, ...], ...]
    seed: int

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return max(1, len(self.samples) // self.batch)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the order of the samples in an epoch: the same for the same seed, another in each epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))

    def inputs(self, positions: Sequence[int] | npt.NDArray[np.int64]) -> Any:
        """Return one batch as the model takes it: an array, or a list of arrays."""
        if self.samples.images:
            read = [self.samples.sample(int(i)) for i in positions]
            stacked = [np.concatenate([one[name] for one in read]) for name in self.names]
        else:
            stacked = [
                np.ascontiguousarray(self.samples.arrays[name][positions], dtype=self.samples.dtypes[name])
                for name in self.names
            ]
        shaped = [array.reshape(len(positions), *shape) for array, shape in zip(stacked, self.shapes, strict=True)]
        return shaped[0] if len(shaped) == 1 else shaped

    def batches(self, epoch: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the sample positions of each step of an epoch."""
        order = self.order(epoch)
        for step in range(self.steps):
            yield order[step * self.batch : (step + 1) * self.batch]


def compile_model(model: Any, loss: Loss, rate: float, steps: int) -> None:
    """Compile with Adam, a cosine from `rate` over `steps`, and accuracy."""
    import tf_keras

    losses = tf_keras.losses
    made = {
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
    schedule = tf_keras.optimizers.schedules.CosineDecay(rate, max(1, steps), alpha=_LAST_RATE)
    model.compile(optimizer=tf_keras.optimizers.Adam(schedule), loss=made, metrics=[accuracy])


def optimizer_variables(model: Any) -> list[Any]:
    """Return the optimizer's variables, in an order that does not change."""
    model.optimizer.build(model.trainable_variables)
    found = model.optimizer.variables
    return list(found() if callable(found) else found)


def fit(
    model: Any,
    data: Data,
    validation: Data | None,
    *,
    callbacks: Sequence[Any],
    stage: str,
    first: int,
    epochs: int,
    later_epochs: int,
    done: Callable[[int, dict[str, Any]], None],
) -> None:
    """Train from epoch `first` to `epochs`, and call `done(epochs so far, figures)` after each.

    Args:
        model: Compiled.
        data: Training samples.
        validation: Samples to measure on after each epoch, None for none.
        callbacks: TFMOT's.
        stage: Name, for events.
        first: Epochs that were done before.
        epochs: Epochs of the stage.
        later_epochs: Epochs of the stages after this one, for the time left.
        done: Remembers the state.
    """
    import tf_keras

    class _Batches(tf_keras.utils.Sequence):  # type: ignore[misc]
        """Batches of one data set; reads what Keras asks for."""

        def __init__(self, source: Data, epoch: int, fixed: bool) -> None:
            self._source, self._epoch, self._fixed = source, epoch, fixed
            self._plan = list(source.batches(epoch))
            if fixed:
                every = np.arange(len(source.samples))
                self._plan = [every[i : i + source.batch] for i in range(0, len(every), source.batch)]

        def __len__(self) -> int:
            return len(self._plan)

        def __getitem__(self, step: int) -> tuple[Any, Any]:
            positions = self._plan[step]
            return self._source.inputs(positions), self._source.targets[positions]

        def on_epoch_end(self) -> None:
            self._epoch += 1
            if not self._fixed:
                self._plan = list(self._source.batches(self._epoch))

    class _Tell(tf_keras.callbacks.Callback):  # type: ignore[misc]
        """Hands each epoch's figures to the parent and to `done`."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            figures = {key: round(float(value), 6) for key, value in (logs or {}).items()}
            took = time.monotonic() - self.started
            told = {"stage": stage, "epoch": epoch + 1, "epochs": epochs, **figures}
            done(epoch + 1, told)
            emit({**told, "seconds_left": round(took * (epochs - epoch - 1 + later_epochs), 1)})

    model.fit(
        _Batches(data, first, False),
        validation_data=None if validation is None else _Batches(validation, 0, True),
        initial_epoch=first,
        epochs=epochs,
        # UpdatePruningStep puts the zeros back at the end of an epoch, so it has to come before the state is kept.
        callbacks=[*callbacks, _Tell()],
        shuffle=False,
        verbose=0,
    )


def rate_of(stage: str, options: TrainOptions) -> float:
    """Return the learning rate that a stage starts with."""
    from edgepack.train.model import LEARNING_RATES

    return options.learning_rate or LEARNING_RATES[stage]


def epochs_of(stage: str, options: TrainOptions) -> int:
    """Return the epochs of a stage."""
    from edgepack.train.model import EPOCHS

    return options.epochs or EPOCHS[stage]
