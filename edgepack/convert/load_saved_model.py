"""Load a SavedModel in the child and say how its signature is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack.convert.model import ConvertOptions
from edgepack.convert.original import OpenInput, Original
from edgepack.convert.saved_model_scan import refuse_unsafe, scan_saved_model
from edgepack.errors import ConversionError, ModelFileError, UsageError


def choose_signature(path: Path, signatures: Sequence[str], asked: str) -> str:
    """Return the signature to convert: the one asked for, else `serving_default`, else the only one.

    Raises:
        UsageError: The one asked for does not exist, or there are several and none is asked for.
        ConversionError: The model has none.
    """
    if not signatures:
        raise ConversionError(
            f"'{path}' has no signature, so it does not say how it is called",
            hint="export it with one: tf.saved_model.save(model, DIR, signatures=...) or model.export(DIR)",
        )
    if asked:
        if asked not in signatures:
            raise UsageError(
                f"'{path}' has no signature '{asked}'", hint=f"its signatures are: {', '.join(signatures)}"
            )
        return asked
    if "serving_default" in signatures:
        return "serving_default"
    if len(signatures) > 1:
        raise UsageError(
            f"'{path}' has several signatures and none is 'serving_default'",
            hint=f"choose one with --signature: {', '.join(signatures)}",
        )
    return signatures[0]


def load_saved_model(path: Path, options: ConvertOptions) -> Original:
    """Load one signature of a SavedModel.

    Args:
        path: The folder.
        options: The user's.

    Raises:
        ModelFileError: The folder is broken.
        UsageError: As `choose_signature`.
        ConversionError: It carries operations that are not allowed, or cannot be loaded.
    """
    facts = scan_saved_model(path)
    if not options.allow_code:
        refuse_unsafe(path, facts)
    key = choose_signature(path, facts.signatures, options.signature)
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path), tags=list(facts.tags))
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        # A missing or damaged checkpoint; but an op this TensorFlow lacks is reported by the same classes.
        if isinstance(error, tf.errors.OpError | OSError | IndexError) and "not registered" not in first:
            raise ModelFileError(
                f"'{path}' is a broken SavedModel: {first}", hint="copy or export the whole folder again"
            ) from error
        raise ConversionError(
            f"'{path}' cannot be loaded: {type(error).__name__}: {first}",
            hint="load it where it was made and export it again with a newer TensorFlow",
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
        return tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[key], tags=set(facts.tags))

    return Original(inputs, call, documented, signature=key, keep=(loaded,))
