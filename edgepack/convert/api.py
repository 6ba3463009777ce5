"""The conversion as one function: find the importer, refuse early what needs no TensorFlow, convert in the child."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.child import Worker
from edgepack.convert.importers.base import Conversion
from edgepack.convert.importers.registry import importer_for, require_modules
from edgepack.convert.model import ConvertOptions, FloatModel

if TYPE_CHECKING:
    import numpy.typing as npt


def convert(
    path: Path,
    *,
    worker: Worker,
    options: ConvertOptions,
    timeout: float = 900,
    log_dir: Path | None = None,
    samples: "Sequence[Mapping[str, npt.NDArray[Any]]]" = (),
) -> FloatModel:
    """Return a model as a float .tflite with static shapes.

    Keras models and SavedModels are traced, frozen and converted in the worker's process, and the result is compared
    with the original: it has the original's weights, and outputs agree to 1e-4 of each output's largest absolute
    value. A .tflite is used as it is, without TensorFlow; float16 weights become float32, dynamic dimensions static.

    Args:
        path: Model file or folder in a format that an installed importer reads.
        worker: The child process to work in; TensorFlow stays loaded in it.
        options: Input shapes, signature, and whether code in the model may run.
        timeout: Seconds until the child is killed.
        log_dir: Folder for the child's log when the conversion fails; None to report only its end, in the error.
        samples: The user's samples by input name, with the batch dimension; the first few join the comparison.

    Raises:
        ModelFileError: There is no readable model at `path`.
        UsageError: `options` name an input or a signature that does not exist.
        ConversionError: The model contains code, has dynamic dimensions without a requested shape, cannot be converted,
            or its outputs changed.
    """
    path = Path(path)
    importer = importer_for(path)
    require_modules(importer)
    return importer.convert(Conversion(path, importer.id, worker, options, timeout, log_dir, samples))
