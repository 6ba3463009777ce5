"""Models that a Python program has in memory, saved as files that an importer reads.

The same model gives the same bytes: Keras writes the time and addresses of objects into an archive, TensorFlow its
counters into a SavedModel. None of them reaches the file, so that its digest is a cache key of its content.

TensorFlow and Keras are those of the program. This module imports neither: a model of a library that is not loaded
does not exist.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.convert.canonical_graph import write_canonical
from edgepack.errors import ConversionError, TransformError, UsageError
from edgepack.text import first_line
from edgepack.untrusted.keras_code import find_code

#: Date of every member of an archive, the first that zip can state.
_DATE = (1980, 1, 1, 0, 0, 0)

_SIGNATURE = "serving_default"

#: Name of an input, its shape (None for an unknown dimension) and its dtype.
_Spec = tuple[str, tuple[list[int | None], Any]]


def is_live_model(value: object) -> bool:
    """Return whether a value is a model that `save_live_model` saves."""
    return _keras_of(value) is not None or _is_module(value)


def save_live_model(
    model: Any,
    folder: Path,
    name: str,
    *,
    signature: str = "",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    trainable: bool = False,
) -> Path:
    """Save a Keras model as an archive, one with code of its own and a tf.Module as a SavedModel with one signature.

    A layer that the program defines exists in this process only: its traced graph needs no code to be loaded.

    Args:
        model: A model of Keras 3 or tf-keras, or a tf.Module.
        folder: An existing folder.
        name: Name of the file, without suffix.
        signature: Of a tf.Module, the method or the signature to convert; empty for `serving_default`, else `__call__`.
        input_shapes: Shapes with the batch dimension by parameter, for a function without an input signature.
        trainable: Save a Keras archive or fail: only this can be trained.

    Raises:
        UsageError: The module has no such function, or the shapes of its inputs are unknown.
        TransformError: `trainable`, and the model is no Keras model or contains code of its own.
        ConversionError: The library refuses to save the model.
    """
    library = _keras_of(model)
    if library is None:
        if trainable:
            raise TransformError(
                f"'{name}' is a {type(model).__name__}, and only a Keras model can be trained",
                hint="give a keras.Model",
            )
        return _save_module(model, folder / name, name, signature, input_shapes or {})
    if not getattr(model, "built", True):
        raise UsageError(
            f"the model '{name}' has no weights yet: its inputs are unknown",
            hint="call it on a sample once, or start it with an Input layer",
        )
    archive = folder / f"{name}.keras"
    code = _save_archive(model, archive, name)
    if code is None:
        return archive
    if trainable:
        raise TransformError(
            f"'{name}' contains code of your program, which training cannot load: {code}",
            hint="train a model of Keras's own layers, or train it in your program and build the result",
        )
    return _save_traced(library, model, folder / name, name, input_shapes or {})


def _keras_of(value: object) -> Any:
    """Return the Keras that a model belongs to, None for anything else."""
    for name in ("keras", "tf_keras"):
        library = sys.modules.get(name)
        kind = getattr(library, "Model", None)
        if isinstance(kind, type) and isinstance(value, kind):
            return library
    return None


def _is_module(value: object) -> bool:
    tensorflow = sys.modules.get("tensorflow")
    module = getattr(tensorflow, "Module", None)
    if not isinstance(module, type):
        return False
    # `tf.saved_model.load` returns an object that is no tf.Module.
    return isinstance(value, module) or (hasattr(value, "signatures") and hasattr(value, "graph_debug_info"))


def _save_archive(model: Any, path: Path, name: str) -> str | None:
    """Save a Keras archive; return what in it is code, None when there is none."""
    raw = path.with_suffix(".raw.keras")
    try:
        model.save(raw)
        with zipfile.ZipFile(raw) as source:
            config = json.loads(source.read("config.json"))
            code = next(iter(find_code(config)), None)
            if code is None:
                _write_archive(source, config, path)
    except Exception as error:  # whatever layers raise that cannot be saved
        return f"{type(error).__name__}: {first_line(error, default='')}"
    finally:
        raw.unlink(missing_ok=True)
    return None if code is None else str(code)


def _write_archive(source: zipfile.ZipFile, config: Any, path: Path) -> None:
    """Write an archive without the time of saving and without addresses of objects."""
    metadata = json.loads(source.read("metadata.json"))
    numbers: dict[int, int] = {}
    documents = {
        "config.json": json.dumps(_numbered(config, numbers)),
        "metadata.json": json.dumps({**metadata, "date_saved": ""}),
    }
    with zipfile.ZipFile(path, "w") as target:
        for member in sorted(source.namelist()):
            with target.open(zipfile.ZipInfo(member, _DATE), "w", force_zip64=True) as stream:
                if member in documents:
                    stream.write(documents[member].encode())
                    continue
                with source.open(member) as stored:
                    while block := stored.read(1 << 20):
                        stream.write(block)


def _numbered(value: Any, numbers: dict[int, int]) -> Any:
    """Return a configuration whose shared objects have the numbers 1, 2, 3 in place of their addresses."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(entry, len(numbers) + 1)
            if key == "shared_object_id" and isinstance(entry, int)
            else _numbered(entry, numbers)
            for key, entry in value.items()
        }
    return [_numbered(entry, numbers) for entry in value] if isinstance(value, list) else value


def _save_traced(library: Any, model: Any, folder: Path, name: str, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Save the traced graph of a Keras model with the names of its inputs."""
    backend = getattr(getattr(library, "backend", None), "backend", lambda: "tensorflow")()
    if backend != "tensorflow":
        raise ConversionError(
            f"the model '{name}' contains code of your program and runs on Keras's backend {backend}",
            hint="load it with KERAS_BACKEND=tensorflow",
        )
    structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    specs = list(_keras_specs(model, shapes, name))

    def serve(*tensors: Any) -> Any:
        if structure is None or not isinstance(structure, dict | list | tuple):
            values: Any = (
                tensors[0] if len(tensors) == 1 else dict(zip([key for key, _ in specs], tensors, strict=True))
            )
        elif isinstance(structure, dict):
            values = dict(zip(sorted(structure), tensors, strict=True))
        else:
            values = list(tensors)
        return model(values, training=False)

    return _save_function(serve, model, folder, name, specs)


def _keras_specs(model: Any, shapes: Mapping[str, Sequence[int]], name: str) -> Iterator[_Spec]:
    structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    if structure is not None:
        named = sorted(structure.items()) if isinstance(structure, dict) else [
            (str(one.name).split(":")[0], one) for one in model.inputs
        ]  # fmt: skip
        for key, tensor in named:
            shape = [None if size is None else int(size) for size in tensor.shape]
            yield key, (list(shapes.get(key, shape)), tensor.dtype)
        return
    if not shapes:
        raise UsageError(
            f"the model '{name}' does not declare its inputs",
            hint="give their shapes with the batch dimension: input_shape={'x': (1, 224, 224, 3)}",
        )
    for key, wanted in shapes.items():
        yield key, (list(wanted), "float32")


def _save_module(module: Any, folder: Path, name: str, signature: str, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Save a tf.Module, or what `tf.saved_model.load` returned, with one signature."""
    known = dict(getattr(module, "signatures", None) or {})
    if known and (not signature or signature in known):
        chosen = signature or (_SIGNATURE if _SIGNATURE in known else "")
        if not chosen and len(known) > 1:
            raise UsageError(
                f"'{name}' has several signatures and none is '{_SIGNATURE}'",
                hint=f"choose one with signature=: {', '.join(sorted(known))}",
            )
        return _save(module, folder, name, known[chosen or next(iter(known))])
    attribute = signature or (_SIGNATURE if hasattr(module, _SIGNATURE) else "__call__")
    function = getattr(module, attribute, None)
    if not callable(function):
        raise UsageError(
            f"'{name}' has no function '{attribute}'",
            hint="define __call__ with @tf.function(input_signature=[...]), or name another function with signature=",
        )
    if getattr(function, "input_signature", None) is not None:
        return _save(module, folder, name, function.get_concrete_function())
    if not shapes:
        raise UsageError(
            f"the inputs of '{name}.{attribute}' are unknown: it has no input signature",
            hint="decorate it with @tf.function(input_signature=[tf.TensorSpec(shape, dtype, name='x')]), or give the "
            "shapes: input_shape={'x': (1, 224, 224, 3)}",
        )
    specs: list[_Spec] = [(key, (list(shape), "float32")) for key, shape in shapes.items()]

    def serve(*tensors: Any) -> Any:
        return function(**dict(zip(shapes, tensors, strict=True)))

    return _save_function(serve, module, folder, name, specs)


def _save_function(function: Any, owner: Any, folder: Path, name: str, specs: Sequence[_Spec]) -> Path:
    """Trace a function of flat tensors and save it with the object whose variables it reads."""
    tensorflow = sys.modules["tensorflow"]
    traced = tensorflow.function(function, autograph=False)
    signature = [tensorflow.TensorSpec(shape, dtype, name=_parameter(key)) for key, (shape, dtype) in specs]
    try:
        concrete = traced.get_concrete_function(*signature)
    except Exception as error:  # whatever the model's own code raises
        raise _refused(name, error) from error
    holder = tensorflow.Module()
    holder.model = owner
    return _save(holder, folder, name, concrete)


def _save(module: Any, folder: Path, name: str, function: Any) -> Path:
    tensorflow = sys.modules["tensorflow"]
    try:
        tensorflow.saved_model.save(module, str(folder), signatures={_SIGNATURE: function})
    except Exception as error:  # untracked resources, outputs that are no tensors
        raise _refused(name, error) from error
    write_canonical(folder)
    return folder


def _refused(name: str, error: Exception) -> ConversionError:
    return ConversionError(
        f"'{name}' cannot be saved: {type(error).__name__}: {first_line(error, default='')}",
        hint="a model computes on tensors, and its variables are attributes of it",
    )


def _parameter(name: str) -> str:
    """Return a name that TensorFlow accepts for a tensor."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)
