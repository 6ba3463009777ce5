"""The door: cheap checks here, TensorFlow in the child, one clear error whatever happens there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgepack.child import ChildCrash, ChildException, ChildTimeout, Worker
from edgepack.convert.detect import detect
from edgepack.convert.keras_code import archive_config, refuse_code
from edgepack.convert.load_saved_model import choose_signature
from edgepack.convert.model import ConvertOptions, FloatModel, SourceFormat
from edgepack.convert.open_shapes import fixed_shapes
from edgepack.convert.saved_model_scan import refuse_unsafe, scan_saved_model
from edgepack.errors import ConversionError
from edgepack.graph import read_model

LOG_NAME = "edgepack-conversion.log"

#: What the child runs for everything but a .tflite.
CHILD_FUNCTION = "edgepack.convert.child:convert"

#: Samples of the user that the check runs, beside the ones it makes up.
_CHECKED_SAMPLES = 4


def convert(
    path: Path,
    *,
    worker: Worker,
    options: ConvertOptions,
    timeout: float = 900,
    log_dir: Path | None = None,
    samples: Sequence[Mapping[str, npt.NDArray[Any]]] = (),
) -> FloatModel:
    """Return a model as a float .tflite with static shapes.

    Keras and SavedModel are traced, frozen and converted in the worker's process, and the result is held against the
    original: the weights are in the file and outputs agree to 1e-4 of each output's largest absolute value. A .tflite
    is taken as it is, without TensorFlow; only dynamic dimensions are fixed.

    Args:
        path: .keras, .h5, SavedModel folder or .tflite.
        worker: The child process to work in; TensorFlow stays loaded in it.
        options: Input shapes, signature and what the model may do.
        timeout: Seconds until the child is killed.
        log_dir: Where the child's log goes when conversion fails; None keeps only its tail, in the error.
        samples: The user's samples, keyed by input name, with the batch dimension; the first few join the check.

    Raises:
        ModelFileError: There is no readable model at `path`.
        UsageError: `options` name an input or a signature that does not exist.
        ConversionError: The model carries code, has open dimensions, cannot be converted, or changed in conversion.
    """
    path = Path(path)
    source = detect(path)
    if source == "tflite":
        return _tflite(path, worker, options, timeout)
    if source == "keras":
        config, _ = archive_config(path)
        if not options.allow_code:
            refuse_code(path, config)
    elif source == "saved_model":
        facts = scan_saved_model(path)
        if not options.allow_code:
            refuse_unsafe(path, facts)
        choose_signature(path, facts.signatures, options.signature)
    few = [dict(sample) for sample in samples[:_CHECKED_SAMPLES]]
    tflite, checked, notes = _call(
        worker, CHILD_FUNCTION, (str(path), source, options, few), path, source, timeout, log_dir
    )
    return FloatModel(tflite, source, quantized=False, checked=checked, notes=tuple(notes))


def _tflite(path: Path, worker: Worker, options: ConvertOptions, timeout: float) -> FloatModel:
    data = path.read_bytes()
    model = read_model(path)
    notes: tuple[str, ...] = ()
    shapes = fixed_shapes(model, options)
    if shapes:
        data = _call(worker, "edgepack.convert.open_shapes:fix_shapes", (data, shapes), path, "tflite", timeout, None)
        told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        notes = (f"dynamic dimensions were fixed: {told}",)
        model = read_model(data)
    return FloatModel(data, "tflite", quantized=not model.is_float, checked=None, notes=notes)


def _call(
    worker: Worker,
    function: str,
    args: tuple[Any, ...],
    path: Path,
    source: SourceFormat,
    timeout: float,
    log_dir: Path | None,
) -> Any:
    known: dict[str, Any] = {}
    try:
        return worker.call(function, *args, timeout=timeout)
    except ChildTimeout as crash:
        message = f"converting '{path}' took longer than {timeout:g} seconds and was stopped"
        hint = "give it more time with --timeout, or convert on a faster machine and bring the .tflite"
        tail = crash.log_tail
    except ChildException as crash:
        message = f"converting '{path}' ({source}) failed: {crash.reason}"
        hint = "try another form of the model (SavedModel, .keras)"
        tail = crash.log_tail
    except ChildCrash as crash:
        message = f"converting '{path}' ({source}) ended the converter's process: {crash.reason}"
        hint = "the converter's own fault on this model; try another form of it (SavedModel, .keras)"
        tail = crash.log_tail
    except ConversionError as error:
        tail = str(error.details.pop("log", ""))
        if not tail:
            raise
        message, hint, known = error.message, error.hint, error.details
    hint, details = _kept(tail, hint, log_dir)
    raise ConversionError(message, hint=hint, details={**known, **details})


def _kept(tail: str, hint: str, log_dir: Path | None) -> tuple[str, dict[str, Any]]:
    """Write the log's tail to a file and return the hint that names it, with the error's details."""
    details: dict[str, Any] = {"log_tail": tail.splitlines()[-40:]}
    if log_dir is None:
        return hint, details
    file = log_dir / LOG_NAME
    try:
        log_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(tail + "\n", encoding="utf-8")
    except OSError:
        return hint, details
    return f"{hint}; the converter's log is in '{file}'", {**details, "log": str(file)}
