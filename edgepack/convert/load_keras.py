"""Loading of .keras and .h5 files in the child, with Keras 3 or tf-keras, as a callable with named tensors."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from edgepack.convert.environment import import_tensorflow
from edgepack.convert.mixed_precision import without_mixed_precision
from edgepack.convert.model import ConvertOptions
from edgepack.convert.original import OpenInput, Original, is_positional, named_leaves, rebuilt, unique
from edgepack.errors import ConversionError
from edgepack.text import first_line
from edgepack.untrusted.keras_code import find_code
from edgepack.untrusted.keras_file import is_refusal, open_keras_file
from edgepack.untrusted.tfmot import KERAS_ARCHIVE_HINT, strip_compression, tfmot_scopes, uses_tfmot


def load_keras(path: Path, options: ConvertOptions) -> Original:
    """Load a Keras model without its optimizer; code in it runs only when the options allow it.

    Args:
        path: A .keras archive or an .h5.
        options: The user's options.

    Raises:
        ModelFileError: The file is broken.
        ConversionError: It contains code that is not allowed, or neither Keras 3 nor tf-keras loads it.
    """
    with open_keras_file(path, allow_code=options.allow_code) as file:
        config, mixed = without_mixed_precision(file.config)
        copy = file.write_copy(config)
        import_tensorflow()
        custom = _custom_objects(config) if options.allow_code else {}
        notes = (f"the model's mixed precision ({', '.join(sorted(mixed))}) became float32",) if mixed else ()
        # The file names the Keras version that wrote it; the other Keras still loads some files that this one refuses.
        legacy = file.version.startswith("2") or uses_tfmot(config)
        order = [_with_tf_keras, _with_keras] if legacy else [_with_keras, _with_tf_keras]
        failures = []
        for load in order:
            try:
                with tfmot_scopes(config):
                    library, model = load(copy, custom, not options.allow_code)
                    model = strip_compression(model, config)
                return _original(library, model, options, notes)
            except ConversionError:
                raise
            except Exception as error:
                failures.append(f"{type(error).__name__}: {first_line(error, default='')}")
                if is_refusal(error):
                    break
    raise ConversionError(
        f"'{path}' (written by Keras {file.version or 'of unknown version'}) cannot be loaded: {failures[0]}",
        hint=KERAS_ARCHIVE_HINT if file.format == "keras" and uses_tfmot(config) else _hint(failures, options),
        details={"log": "\n\n".join(failures)},
    )


def _with_keras(path: Path, custom: dict[str, Any], safe: bool) -> tuple[Any, Any]:
    import keras

    keras.backend.clear_session()
    return keras, keras.saving.load_model(path, custom_objects=custom, compile=False, safe_mode=safe)


def _with_tf_keras(path: Path, custom: dict[str, Any], safe: bool) -> tuple[Any, Any]:
    import tf_keras

    tf_keras.backend.clear_session()
    return tf_keras, tf_keras.models.load_model(str(path), custom_objects=custom, compile=False, safe_mode=safe)


def _original(library: Any, model: Any, options: ConvertOptions, notes: tuple[str, ...]) -> Original:
    inputs, pack = _inputs(model, options)
    # Keras 3's Sequential has no output_names.
    output_names = list(getattr(model, "output_names", None) or [layer.name for layer in model.layers[-1:]])

    def call(tensors: Sequence[Any]) -> list[tuple[str, Any]]:
        leaves = named_leaves(model(pack(tensors), training=False))
        flat = output_names if len(output_names) == len(leaves) else [f"output_{i}" for i in range(len(leaves))]
        names = [flat[i] if is_positional(name) else name for i, (name, _) in enumerate(leaves)]
        return list(zip(unique(names), (leaf for _, leaf in leaves), strict=True))

    def documented() -> Any:
        import tensorflow as tf

        return tf.lite.TFLiteConverter.from_keras_model(model)

    return Original(inputs, call, documented, notes=notes, keep=(library, model))


def _inputs(model: Any, options: ConvertOptions) -> tuple[tuple[OpenInput, ...], Callable[[Sequence[Any]], Any]]:
    """Return the model's inputs, and a function that packs flat tensors into the structure the model is called with."""
    try:
        structure = model.input
    except (AttributeError, ValueError):
        # Keras 3's Sequential has `inputs` only.
        flat = list(getattr(model, "inputs", None) or [])
        structure = flat[0] if len(flat) == 1 else flat or None
    if structure is None:
        # A subclassed model learns its inputs when it is called.
        if not options.input_shapes:
            raise ConversionError(
                f"the model '{model.name}' does not declare its inputs",
                hint="give the full shape of each input, batch dimension first: --input-shape x=1,224,224,3",
            )
        declared = tuple(OpenInput(name, tuple(shape), "float32") for name, shape in options.input_shapes.items())
        names = list(options.input_shapes)
        return declared, lambda tensors: tensors[0] if len(names) == 1 else dict(zip(names, tensors, strict=True))
    leaves = named_leaves(structure)
    names = unique([leaf.name.split(":")[0] if is_positional(name) else name for name, leaf in leaves])
    inputs = tuple(
        OpenInput(name, _shape(leaf.shape), getattr(leaf.dtype, "name", str(leaf.dtype)))
        for name, (_, leaf) in zip(names, leaves, strict=True)
    )
    return inputs, lambda tensors: rebuilt(structure, tensors)


def _shape(shape: Any) -> tuple[int | None, ...] | None:
    if hasattr(shape, "rank"):  # tf-keras: TensorShape
        return None if shape.rank is None else tuple(shape.as_list())
    return tuple(shape)


def _custom_objects(config: dict[str, Any]) -> dict[str, Any]:
    """Import the objects outside Keras that the configuration names; Keras reports those that cannot be imported."""
    objects: dict[str, Any] = {}
    for code in find_code(config):
        if code.module:
            label = code.what.removeprefix(f"{code.module}.")
            try:
                objects[label] = getattr(import_module(code.module), label)
            except (ImportError, AttributeError):
                continue
    return objects


def _hint(failures: list[str], options: ConvertOptions) -> str:
    if any("custom_object" in text or "Could not locate" in text or "Unknown layer" in text for text in failures):
        if options.allow_code:
            return "put the module with the custom classes on PYTHONPATH, or export a SavedModel: model.export(DIR)"
        return "it uses custom classes: export a SavedModel with model.export(DIR), or allow its code with --allow-code"
    return "load it in the environment that saved it and export a SavedModel: model.export(DIR)"
