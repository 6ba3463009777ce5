"""Read the Keras model to train and its compile configuration; loading runs in the child process."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, TransformError
from edgepack.text import first_line
from edgepack.training.strip import strip_quantization
from edgepack.untrusted.keras_file import is_refusal, open_keras_file
from edgepack.untrusted.tfmot import KERAS_ARCHIVE_HINT, strip_compression, tfmot_scopes, uses_tfmot


@dataclass(frozen=True)
class LoadedModel:
    """A model of Keras 3 or tf-keras.

    Attributes:
        model: The model.
        compile_config: Its compile configuration, empty when it was not compiled.
    """

    model: Any
    compile_config: Mapping[str, Any]


def require_keras_file(path: Path) -> None:
    """Refuse anything but a Keras file.

    Raises:
        TransformError: The path is not a file, or it is a .tflite.
    """
    if not path.is_file() or path.suffix == ".tflite":
        raise TransformError(
            f"'{path}' cannot be trained: only a Keras model contains the layers that training needs",
            hint="give the .keras or .h5 that the model was saved as",
        )


def load(path: Path, *, allow_code: bool) -> LoadedModel:
    """Load a model with the Keras version that wrote it, else with the other one.

    Args:
        path: .keras archive or .h5.
        allow_code: Load Lambda layers and custom classes.

    Raises:
        ModelFileError: The file is not a Keras model, or it is broken.
        ConversionError: It contains code, or neither Keras version loads it.
    """
    with open_keras_file(path, allow_code=allow_code) as file:
        copy = file.write_copy(file.config)
        failures = []
        # Legacy .h5 files of tf-keras contain layers that Keras 3 does not load.
        legacy = file.version.startswith("2") or uses_tfmot(file.config)
        for read in (_with_tf_keras, _with_keras) if legacy else (_with_keras, _with_tf_keras):
            try:
                with tfmot_scopes(file.config):
                    model = strip_quantization(strip_compression(read(copy, not allow_code), file.config))
                return LoadedModel(model, file.compile_config)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {first_line(error, 300, default='')}")
                if is_refusal(error):
                    break
    raise ConversionError(
        f"'{path}' cannot be loaded for training: {failures[0]}",
        hint=KERAS_ARCHIVE_HINT
        if file.format == "keras" and uses_tfmot(file.config)
        else "save it again with the Keras version that created it, with built-in layers of Keras only",
    )


def _with_keras(path: Path, safe: bool) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=safe)


def _with_tf_keras(path: Path, safe: bool) -> Any:
    import tf_keras

    return tf_keras.models.load_model(str(path), compile=False, safe_mode=safe)
