"""Load .keras and .h5 in the child, with Keras 3 or tf-keras, and say how the model is called."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from edgepack.convert.keras_code import archive_config, find_code, refuse_code, without_mixed_precision
from edgepack.convert.model import ConvertOptions
from edgepack.convert.original import OpenInput, Original, is_positional, named_leaves, rebuilt, unique
from edgepack.errors import ConversionError, ModelFileError
from edgepack.text import first_line


def read_h5_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the model's configuration in an .h5 and the Keras version that wrote it.

    Raises:
        ModelFileError: The file is broken, or holds weights only.
    """
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(path, "r") as file:
            config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "")
            names = sorted(file)
    except OSError as error:
        raise ModelFileError(
            f"'{path}' is a broken HDF5 file: {error}", hint="copy or export the file again and compare its size"
        ) from error
    if config is None:
        what = "weights without a model" if "model_weights" in names or "layers" in names else "no Keras model"
        raise ModelFileError(
            f"'{path}' holds {what}: expected the attribute 'model_config'",
            hint="save the whole model: model.save('model.keras')",
        )
    try:
        document = json.loads(_text(config))
    except ValueError as error:
        raise ModelFileError(
            f"the configuration in '{path}' cannot be read: {error}", hint="save the model again"
        ) from error
    return document, _text(version)


def load_keras(path: Path, source: str, options: ConvertOptions) -> Original:
    """Load a Keras file, without its optimizer and without running code it carries unless that is allowed.

    Args:
        path: .keras archive or .h5.
        source: `keras` or `h5`.
        options: The user's.

    Raises:
        ModelFileError: The file is broken.
        ConversionError: It carries code that is not allowed, or no Keras loads it.
    """
    config, version = archive_config(path) if source == "keras" else read_h5_config(path)
    if not options.allow_code:
        refuse_code(path, config)
    custom = _custom_objects(config) if options.allow_code else {}
    # The file says which Keras wrote it; the other one still loads some of the files its own one refuses.
    order = [_with_tf_keras, _with_keras] if version.startswith("2") else [_with_keras, _with_tf_keras]
    failures = []
    for load in order:
        try:
            with _loadable(path, source, config) as (file, notes):
                library, model = load(file, custom, not options.allow_code)
            return _original(library, model, options, notes)
        except ConversionError:
            raise
        except Exception as error:
            failures.append(f"{type(error).__name__}: {first_line(error, default='')}")
    raise ConversionError(
        f"'{path}' (written by Keras {version or 'of unknown version'}) cannot be loaded: {failures[0]}",
        hint=_hint(failures, options),
        details={"log": "\n\n".join(failures)},
    )


@contextmanager
def _loadable(path: Path, source: str, config: dict[str, Any]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Give the file as Keras can load and TFLite convert it: right suffix, no mixed precision; and notes on it."""
    suffix = ".keras" if source == "keras" else ".h5"
    plain, mixed = without_mixed_precision(config)
    if not mixed and path.suffix in {suffix, ".hdf5"}:
        yield path, ()
        return
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / f"{path.stem or 'model'}{suffix}"
        if not mixed:
            other.symlink_to(path.resolve())
        elif source == "keras":
            _rewrite_archive(path, other, plain)
        else:
            _rewrite_h5(path, other, plain)
        changes = (f"the model's mixed precision ({', '.join(sorted(mixed))}) became float32",) if mixed else ()
        yield other, changes


def _rewrite_archive(path: Path, other: Path, config: dict[str, Any]) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, json.dumps(config) if name == "config.json" else source.read(name))


def _rewrite_h5(path: Path, other: Path, config: dict[str, Any]) -> None:
    import h5py

    shutil.copyfile(path, other)
    with h5py.File(other, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)


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
    told = list(getattr(model, "output_names", None) or [layer.name for layer in model.layers[-1:]])

    def call(tensors: Sequence[Any]) -> list[tuple[str, Any]]:
        leaves = named_leaves(model(pack(tensors), training=False))
        flat = told if len(told) == len(leaves) else [f"output_{i}" for i in range(len(leaves))]
        names = [flat[i] if is_positional(name) else name for i, (name, _) in enumerate(leaves)]
        return list(zip(unique(names), (leaf for _, leaf in leaves), strict=True))

    def documented() -> Any:
        import tensorflow as tf

        return tf.lite.TFLiteConverter.from_keras_model(model)

    return Original(inputs, call, documented, notes=notes, keep=(library, model))


def _inputs(model: Any, options: ConvertOptions) -> tuple[tuple[OpenInput, ...], Callable[[Sequence[Any]], Any]]:
    """Return the model's inputs and what packs flat tensors into the structure it is called with."""
    try:
        structure = model.input
    except (AttributeError, ValueError):
        # Keras 3's Sequential has `inputs` only.
        flat = list(getattr(model, "inputs", None) or [])
        structure = flat[0] if len(flat) == 1 else flat or None
    if structure is None:
        # A subclassed model knows its inputs only when it is called.
        if not options.input_shapes:
            raise ConversionError(
                f"the model '{model.name}' does not say what its inputs are",
                hint="give each input's whole shape, the batch first: --input-shape x=1,224,224,3",
            )
        asked = tuple(OpenInput(name, tuple(shape), "float32") for name, shape in options.input_shapes.items())
        names = [one.name for one in asked]
        return asked, lambda tensors: tensors[0] if len(names) == 1 else dict(zip(names, tensors, strict=True))
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
    """Import what the configuration names outside Keras; what cannot be imported is left for Keras to report."""
    found: dict[str, Any] = {}
    for code in find_code(config):
        if code.module:
            label = code.what.removeprefix(f"{code.module}.")
            try:
                found[label] = getattr(import_module(code.module), label)
            except (ImportError, AttributeError):
                continue
    return found


def _hint(failures: list[str], options: ConvertOptions) -> str:
    if any("custom_object" in text or "Could not locate" in text or "Unknown layer" in text for text in failures):
        if options.allow_code:
            return "put the module with the custom classes on PYTHONPATH, or export a SavedModel: model.export(DIR)"
        return "it uses custom classes: export a SavedModel with model.export(DIR), or allow its code with --allow-code"
    return "load it where it was made and export a SavedModel: model.export(DIR)"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
