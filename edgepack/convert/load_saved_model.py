"""Loading of a SavedModel's signature in the child, as a callable with named tensors."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack.convert.environment import import_tensorflow
from edgepack.convert.model import ConvertOptions
from edgepack.convert.original import OpenInput, Original
from edgepack.errors import ConversionError, ModelFileError, UsageError
from edgepack.text import first_line
from edgepack.untrusted.saved_model_file import read_saved_model


def choose_signature(path: Path, signatures: Sequence[str], requested: str) -> str:
    """Return the signature to convert: the requested one, else `serving_default`, else the only one.

    Raises:
        UsageError: The requested signature does not exist, or there are several and none was requested.
        ConversionError: The model has no signature.
    """
    if not signatures:
        raise ConversionError(
            f"'{path}' has no signature, which conversion needs",
            hint="export it with one: tf.saved_model.save(model, DIR, signatures=...) or model.export(DIR)",
        )
    if requested:
        if requested not in signatures:
            raise UsageError(
                f"'{path}' has no signature '{requested}'", hint=f"its signatures are: {', '.join(signatures)}"
            )
        return requested
    if "serving_default" in signatures:
        return "serving_default"
    if len(signatures) > 1:
        raise UsageError(
            f"'{path}' has several signatures and none is 'serving_default'",
            hint=f"choose one with --signature: {', '.join(signatures)}",
        )
    return signatures[0]


def load_saved_model(path: Path, options: ConvertOptions) -> Original:
    """Load one signature of a SavedModel, from a private copy of what was examined.

    Args:
        path: The folder.
        options: The user's options.

    Raises:
        ModelFileError: The folder is broken.
        UsageError: See `choose_signature`.
        ConversionError: It contains code that is not allowed, or cannot be loaded.
    """
    tf = import_tensorflow()
    file = read_saved_model(path)
    if not options.allow_code:
        file.refuse_code()
    key = choose_signature(path, file.signatures, options.signature)
    folder = tempfile.TemporaryDirectory(prefix="edgepack-")
    copy = Path(folder.name)
    file.write_copy(copy)
    try:
        loaded = tf.saved_model.load(str(copy), tags=list(file.tags))
    except Exception as error:
        reason = first_line(error, default="")
        # A missing or damaged checkpoint. An op that this TensorFlow lacks raises the same classes.
        if isinstance(error, tf.errors.OpError | OSError | IndexError) and "not registered" not in reason:
            raise ModelFileError(
                f"'{path}' is a broken SavedModel: {reason}", hint="copy or export the whole folder again"
            ) from error
        raise ConversionError(
            f"'{path}' cannot be loaded: {type(error).__name__}: {reason}",
            hint="load it in the environment that saved it and export it again with a newer TensorFlow",
            details={"log": str(error)},
        ) from error
    function = loaded.signatures[key]
    specs = function.structured_input_signature[1]
    inputs = tuple(
        OpenInput(name, None if spec.shape.rank is None else tuple(spec.shape.as_list()), spec.dtype.name)
        for name, spec in specs.items()
    )

    def call(tensors: Sequence[Any]) -> list[tuple[str, Any]]:
        return list(function(**{one.name: tensor for one, tensor in zip(inputs, tensors, strict=True)}).items())

    def documented() -> Any:
        return tf.lite.TFLiteConverter.from_saved_model(str(copy), signature_keys=[key], tags=set(file.tags))

    return Original(inputs, call, documented, signature=key, keep=(loaded, folder))
