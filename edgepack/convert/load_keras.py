"""Loading of .keras and .h5 files in the child, with Keras 3 or tf-keras, as a callable with named tensors."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgepack.convert.environment import import_tensorflow
from edgepack.convert.keras_code import archive_config, find_code, refuse_code, without_mixed_precision
from edgepack.convert.model import ConvertOptions
from edgepack.convert.original import OpenInput, Original, is_positional, named_leaves, rebuilt, unique
from edgepack.errors import ConversionError, ModelFileError
from edgepack.text import first_line


def read_h5_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the model's configuration in an .h5, and the Keras version that wrote it.

    Raises:
        ModelFileError: The file is broken, or contains only weights.
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
            f"'{path}' contains {what}: expected the attribute 'model_config'",
            hint="save the whole model: model.save('model.keras')",
        )
    try:
        document = json.loads(_text(config))
    except ValueError as error:
        raise ModelFileError(
            f"the configuration in '{path}' cannot be read: {error}", hint="save the model again"
        ) from error
    return document, _text(version)


@dataclass(frozen=True)
class KerasContainer:
    """A file format of Keras.

    Attributes:
        suffix: Suffix without which Keras refuses the file.
        read_config: Returns the model's configuration and the Keras version that wrote the file.
        rewrite: Writes a copy of a file with another configuration.
    """

    suffix: str
    read_config: Callable[[Path], tuple[dict[str, Any], str]]
    rewrite: Callable[[Path, Path, dict[str, Any]], None]


def load_keras(path: Path, options: ConvertOptions, *, container: KerasContainer) -> Original:
    """Load a Keras model without its optimizer; code in it runs only when the options allow it.

    Args:
        path: The file.
        options: The user's options.
        container: Its format.

    Raises:
        ModelFileError: The file is broken.
        ConversionError: It contains code that is not allowed, or neither Keras 3 nor tf-keras loads it.
    """
    config, version = container.read_config(path)
    if not options.allow_code:
        refuse_code(path, config)
    import_tensorflow()
    custom = _custom_objects(config) if options.allow_code else {}
    # The file names the Keras version that wrote it; the other Keras still loads some files that this one refuses.
    order = [_with_tf_keras, _with_keras] if version.startswith("2") else [_with_keras, _with_tf_keras]
    failures = []
    for load in order:
        try:
            with _loadable(path, container, config) as (file, notes):
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
def _loadable(path: Path, container: KerasContainer, config: dict[str, Any]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield a file that Keras loads and TFLite converts, with the suffix Keras requires and without mixed precision.

    The second value is notes for the user on what was changed.
    """
    float32_config, mixed = without_mixed_precision(config)
    if not mixed and path.suffix in {container.suffix, ".hdf5"}:
        yield path, ()
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{path.stem or 'model'}{container.suffix}"
        if not mixed:
            copy.symlink_to(path.resolve())
            yield copy, ()
            return
        container.rewrite(path, copy, float32_config)
        yield copy, (f"the model's mixed precision ({', '.join(sorted(mixed))}) became float32",)


def _rewrite_archive(path: Path, copy: Path, config: dict[str, Any]) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            target.writestr(name, json.dumps(config) if name == "config.json" else source.read(name))


def _rewrite_h5(path: Path, copy: Path, config: dict[str, Any]) -> None:
    import h5py

    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = json.dumps(config)


#: Keras archive: config.json and model.weights.h5 in a zip.
ARCHIVE = KerasContainer(".keras", archive_config, _rewrite_archive)

#: Legacy HDF5 with the configuration in the attribute `model_config`.
H5 = KerasContainer(".h5", read_h5_config, _rewrite_h5)


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


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
