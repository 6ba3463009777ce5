"""Entry point of training: validate the input, train in a child process, and report every failure as one error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepack.child import ChildCrash, ChildException, ChildMemory, ChildTimeout, Job, Worker
from edgepack.errors import SamplesError, TransformError
from edgepack.limits import TRAINING_SECONDS
from edgepack.profiles.model import SchemeRule
from edgepack.samples import SampleSet
from edgepack.training.child import run_training
from edgepack.training.load import require_keras_file
from edgepack.training.model import Trained, TrainingRequest, TrainOptions

#: Trains in the child process, where TensorFlow is loaded.
TRAINING = Job(run_training, TransformError, purpose="training")

#: Every class needs a few samples before a training step is meaningful.
_MIN_SAMPLES = 10


def train(
    path: Path,
    *,
    worker: Worker,
    reference: bytes,
    data: SampleSet,
    recipe: str,
    options: TrainOptions,
    checkpoint_dir: Path,
    validation: SampleSet | None = None,
    rule: SchemeRule | None = None,
    on_event: Callable[[Any], None] | None = None,
    timeout: float = TRAINING_SECONDS,
) -> Trained:
    """Train a Keras model with labelled data.

    The state is saved to `checkpoint_dir` after every epoch; the same call resumes an interrupted run from there.

    Args:
        path: .keras or .h5.
        worker: The child process to train in.
        reference: Float .tflite of the same model (`edgepack.convert`); the result gets its names and signature.
        data: Labelled samples, matched to the reference's inputs.
        recipe: One of `RECIPES`.
        options: Epochs, sparsity, clusters and the like.
        checkpoint_dir: Folder for the state, one per training.
        validation: Labelled samples to measure on after each epoch.
        rule: Constraints on an int8 file: the type of its inputs and outputs. Weights of FULLY_CONNECTED are always
            per tensor, as TFMOT trains them, whether the rule requires that or allows per channel.
        on_event: Called with `{"step": text}` and, per epoch, with `{"stage", "epoch", "epochs", "loss", "accuracy",
            "seconds_left"}`.
        timeout: Seconds until the child is killed.

    Raises:
        UsageError: The recipe or an option is not valid.
        SamplesError: The data has no labels, too few samples, or labels that are not classes of the model.
        TransformError: The model cannot be rebuilt, trained or converted.
    """
    options.require_valid(recipe)
    for samples in (data, validation):
        if samples is not None:
            require_labels(samples)
    if len(data) < _MIN_SAMPLES:
        raise SamplesError(f"only {len(data)} samples in '{data.source}': training needs at least {_MIN_SAMPLES}")
    require_keras_file(path)
    request = TrainingRequest(path, reference, data, validation, recipe, options, rule, checkpoint_dir)
    try:
        return worker.run(TRAINING.call(request), timeout=timeout, on_event=on_event)
    except TransformError as error:
        if isinstance(error.__cause__, ChildCrash):
            raise _training_error(path, error.__cause__, timeout) from error.__cause__
        raise


def require_labels(samples: SampleSet) -> None:
    """Refuse samples without labels.

    Raises:
        SamplesError: The samples have no labels.
    """
    if samples.labels is None:
        raise SamplesError(
            f"samples '{samples.source}' have no labels, and training needs one per sample",
            hint="put them into the .npz as y, one class index per sample; or give a folder with one sub-folder of"
            " images per class",
        )


def _training_error(path: Path, crash: ChildCrash, timeout: float) -> TransformError:
    """Return the error for a child that failed: what happened, and what to do about it."""
    if isinstance(crash, ChildTimeout):
        message = f"training '{path.name}' took longer than {timeout:g} seconds and was stopped"
        hint = "run the same command again with a longer --timeout: it resumes after the last epoch"
    elif isinstance(crash, ChildMemory):
        message = f"training '{path.name}' was stopped: {crash.reason}"
        hint = "use a smaller --batch or fewer samples, or raise the limit with --memory-limit"
    elif isinstance(crash, ChildException):
        message = f"training '{path.name}' failed: {crash.reason}"
        hint = "try `--recipe prune` or fewer kinds of layers to find the layer that TFMOT does not support"
    else:
        message = f"the process that trained '{path.name}' ended: {crash.reason}"
        hint = (
            "run the same command again: it resumes after the last epoch; use a smaller --batch if it ran out of memory"
        )
    return TransformError(message, hint=hint, details={"log_tail": crash.log_tail})
