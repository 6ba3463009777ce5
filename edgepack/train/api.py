"""The door: cheap checks here, training in the child, one clear error whatever happens there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepack.child import ChildCrash, ChildException, ChildTimeout, Worker
from edgepack.errors import SamplesError, TransformError
from edgepack.graph import read_model
from edgepack.graph.op_layout import float_ops
from edgepack.profiles.model import SchemeRule
from edgepack.samples import SampleSet
from edgepack.train.model import Trained, TrainOptions
from edgepack.train.report import read_report

#: What the child runs.
CHILD_FUNCTION = "edgepack.train.child:run"

#: Classes need a few samples each before a step of training means anything.
_LEAST_SAMPLES = 10


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
    timeout: float | None = None,
) -> Trained:
    """Train a Keras model with labelled data.

    A run that was killed leaves its state in `checkpoint_dir` after every epoch; the same call goes on from there.

    Args:
        path: .keras or .h5.
        worker: The child process to work in.
        reference: Float .tflite of the same model (`edgepack.convert`); the result gets its names and signature.
        data: Labelled samples, matched to the reference's inputs.
        recipe: One of `RECIPES`.
        options: Epochs, sparsity, clusters and the like.
        checkpoint_dir: Folder for the state, one per training.
        validation: Labelled samples to measure on after each epoch.
        rule: What an int8 file has to look like: its type of inputs and outputs. Weights of FULLY_CONNECTED are always
            per tensor, as TFMOT trains them; both wishes take that.
        on_event: Told `{"step": text}` and, per epoch, `{"stage", "epoch", "epochs", "loss", "accuracy",
            "seconds_left"}`.
        timeout: Seconds until the child is killed, None for no limit.

    Raises:
        UsageError: Recipe or options make no sense.
        SamplesError: The data has no labels, too few samples, or labels that are no classes of the model.
        TransformError: The model cannot be rebuilt, trained or converted.
    """
    options.require_valid(recipe)
    for samples in (data, validation):
        if samples is not None and samples.labels is None:
            raise SamplesError(
                f"samples '{samples.source}' have no labels, and training needs one per sample",
                hint="put them into the .npz as y, one class index per sample; or give a folder with one sub-folder of"
                " images per class",
            )
    if len(data) < _LEAST_SAMPLES:
        raise SamplesError(f"only {len(data)} samples in '{data.source}': training needs at least {_LEAST_SAMPLES}")
    if not path.is_file() or path.suffix == ".tflite":
        raise TransformError(
            f"'{path}' cannot be trained: only a Keras model carries what training needs",
            hint="give the .keras or .h5 that the model was saved as",
        )
    try:
        done = worker.call(
            CHILD_FUNCTION,
            str(path),
            reference,
            data,
            validation,
            recipe,
            options,
            rule,
            str(checkpoint_dir),
            timeout=timeout,
            on_event=on_event,
        )
    except ChildTimeout as crash:
        raise TransformError(
            f"training '{path.name}' took longer than {timeout:g} seconds and was stopped",
            hint="run the same command again with more --timeout: it goes on after the last epoch",
            details={"log_tail": crash.log_tail},
        ) from crash
    except ChildException as crash:
        raise TransformError(
            f"training '{path.name}' failed: {crash.reason}",
            hint="try `--recipe prune` or fewer kinds of layers to find the one that TFMOT cannot take",
            details={"log_tail": crash.log_tail},
        ) from crash
    except ChildCrash as crash:
        raise TransformError(
            f"training '{path.name}' ended its process: {crash.reason}",
            hint="run the same command again: it goes on after the last epoch; give it a smaller --batch when memory"
            " ran out",
            details={"log_tail": crash.log_tail},
        ) from crash
    trained = Trained(**done, report=read_report(done["tflite"]))
    left = _float_ops(trained.tflite) if trained.quantized else ()
    if left:
        note = f"in float in the int8 file: {', '.join(left)}"
        trained = Trained(**{**done, "notes": (*trained.notes, note)}, report=trained.report)
    return trained


def _float_ops(tflite: bytes) -> tuple[str, ...]:
    """Return the kinds of ops that compute in float in a file, QUANTIZE and DEQUANTIZE left out."""
    return tuple(sorted({op.label for op in float_ops(read_model(tflite).main)}))
