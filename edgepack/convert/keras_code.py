"""Detection of code in a Keras model's configuration: Lambda layers, custom classes and functions. Needs no Keras.

Keras stores each object as `{"module", "class_name", "config", "registered_name"}`. Objects of Keras itself have a
module below `keras`; any other module is code that loading would import or run.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, ModelFileError
from edgepack.text import first_few

#: Classes of Keras that contain code or load the code of another model.
_CODE_CLASSES = {
    "Lambda": "contains a Python function",
    "__lambda__": "contains a Python function",
    "TFSMLayer": "loads another SavedModel by its path",
    "TorchModuleWrapper": "contains a pickled PyTorch module",
    "JaxLayer": "contains a Python function",
    "FlaxLayer": "contains a Python function",
}

_HELPERS = {"utils", "saving", "datasets"}

_MIXED = {"mixed_float16", "mixed_bfloat16"}


@dataclass(frozen=True)
class Code:
    """One place in a configuration that contains code.

    Attributes:
        layer: Name of the enclosing layer, empty at the top level.
        what: Class or function, as stored.
        why: Why it is code, as a predicate: `contains a Python function`.
        module: Module that defines it, empty when the file does not name one.
    """

    layer: str
    what: str
    why: str
    module: str = ""

    def __str__(self) -> str:
        where = f"layer '{self.layer}' " if self.layer else ""
        return f"{where}({self.what}) {self.why}"


def archive_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the configuration in a .keras archive without its compile settings, and the Keras version that wrote it.

    Raises:
        ModelFileError: The archive's JSON cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
        if not isinstance(config, dict) or not isinstance(metadata, dict):
            raise ValueError("expected a JSON object")
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError) as error:
        raise ModelFileError(
            f"the configuration in '{path}' cannot be read: {error}", hint="export the model again"
        ) from error
    config.pop("compile_config", None)
    return config, str(metadata.get("keras_version", ""))


def find_code(config: object, layer: str = "") -> Iterator[Code]:
    """Yield every place in a configuration that contains code, in file order.

    Args:
        config: `config.json` of a .keras archive, or the `model_config` of an .h5.
        layer: Name of the layer that encloses `config`.
    """
    if isinstance(config, list):
        for item in config:
            yield from find_code(item, layer)
        return
    if not isinstance(config, dict):
        return
    inner = config.get("config")
    name = config.get("class_name")
    if isinstance(name, str):
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            layer = inner["name"]
        code = _code_of(name, config, layer)
        if code is not None:
            yield code
    for key in config:
        yield from find_code(config[key], layer)


def _code_of(name: str, config: dict[str, Any], layer: str) -> Code | None:
    if name in _CODE_CLASSES:
        return Code(layer, name, _CODE_CLASSES[name])
    module = config.get("module")
    registered = config.get("registered_name")
    label = inner if name == "function" and isinstance(inner := config.get("config"), str) else name
    if isinstance(module, str) and not _is_keras(module):
        return Code(layer, f"{module}.{label}", "is not part of Keras", module)
    if any(isinstance(text, str) and ">" in text for text in (name, registered)):
        return Code(layer, str(registered or name), "is not part of Keras")
    return None


def _is_keras(module: str) -> bool:
    package, *rest = module.split(".")
    # Helpers of Keras download, unpack and load files; no layer refers to them.
    return module == "builtins" or (package in {"keras", "tf_keras"} and not _HELPERS & set(rest))


def without_mixed_precision(config: Any) -> tuple[Any, set[str]]:
    """Return a configuration with float32 in place of mixed precision, and the policies that were replaced.

    Mixed precision stores weights in float32 and computes in half precision, for which TFLite has no kernels.
    """
    if isinstance(config, list):
        parts = [without_mixed_precision(item) for item in config]
        return [part for part, _ in parts], set().union(*(policies for _, policies in parts))
    if not isinstance(config, dict):
        return config, set()
    name = config["config"].get("name") if isinstance(config.get("config"), dict) else None
    if config.get("class_name") in {"DTypePolicy", "Policy"} and name in _MIXED:
        return {**config, "config": {**config["config"], "name": "float32"}}, {str(name)}
    changed = {key: without_mixed_precision(value) for key, value in config.items()}
    return {key: part for key, (part, _) in changed.items()}, set().union(
        *(policies for _, policies in changed.values())
    )


def refuse_code(path: Path, config: object) -> None:
    """Refuse a configuration that contains code.

    Raises:
        ConversionError: Names the layers and the flag that allows them.
    """
    codes = [str(code) for code in dict.fromkeys(find_code(config))]
    if codes:
        raise ConversionError(
            f"'{path}' contains code that would run on this machine: {first_few(codes)}",
            hint="if you trust the source of the model, allow its code with --allow-code; or use only layers of Keras",
            details={"code": codes},
        )
