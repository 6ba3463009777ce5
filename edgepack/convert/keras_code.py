"""Finds code in a Keras model's configuration: Lambda layers, custom classes and functions. Needs no Keras.

Keras stores each object as `{"module", "class_name", "config", "registered_name"}`. Objects of Keras itself carry a
module under `keras`; anything else names code that loading would import or run.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError, ModelFileError

#: Classes of Keras itself that hold code or load another model's.
_CODE_CLASSES = {
    "Lambda": "holds a Python function",
    "__lambda__": "holds a Python function",
    "TFSMLayer": "loads another SavedModel by its path",
    "TorchModuleWrapper": "holds a pickled PyTorch module",
    "JaxLayer": "holds a Python function",
    "FlaxLayer": "holds a Python function",
}

_HELPERS = {"utils", "saving", "datasets"}

_MIXED = {"mixed_float16", "mixed_bfloat16"}


@dataclass(frozen=True)
class Code:
    """One place where a model carries code.

    Attributes:
        layer: Name of the layer it stands in, empty at the top.
        what: Class or function, as stored.
        why: What makes it code.
        module: Module to import for it, empty when the file does not say.
    """

    layer: str
    what: str
    why: str
    module: str = ""

    def __str__(self) -> str:
        where = f"layer '{self.layer}' " if self.layer else ""
        return f"{where}({self.what}) {self.why}"


def archive_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return a .keras archive's configuration without what only training needs, and the Keras version that wrote it.

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
    """Yield every place of a configuration that carries code, in file order.

    Args:
        config: `config.json` of a .keras archive, or the `model_config` of an .h5.
        layer: Name of the layer `config` stands in.
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
        found = _code_of(name, config, layer)
        if found is not None:
            yield found
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
    # Keras's helpers download, unpack and load files; no layer needs them by name.
    return module == "builtins" or (package in {"keras", "tf_keras"} and not _HELPERS & set(rest))


def without_mixed_precision(config: Any) -> tuple[Any, set[str]]:
    """Return a configuration with mixed precision turned into float32, and the policies that were replaced.

    Mixed precision keeps weights in float32 and computes in half precision, for which TFLite has no kernels.
    """
    if isinstance(config, list):
        parts = [without_mixed_precision(item) for item in config]
        return [part for part, _ in parts], set().union(*(found for _, found in parts))
    if not isinstance(config, dict):
        return config, set()
    name = config["config"].get("name") if isinstance(config.get("config"), dict) else None
    if config.get("class_name") in {"DTypePolicy", "Policy"} and name in _MIXED:
        return {**config, "config": {**config["config"], "name": "float32"}}, {str(name)}
    changed = {key: without_mixed_precision(value) for key, value in config.items()}
    return {key: part for key, (part, _) in changed.items()}, set().union(*(found for _, found in changed.values()))


def refuse_code(path: Path, config: object) -> None:
    """Refuse a configuration that carries code.

    Raises:
        ConversionError: Names the layers and the flag that allows them.
    """
    found = list(dict.fromkeys(find_code(config)))
    if not found:
        return
    shown = "; ".join(str(code) for code in found[:5])
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    raise ConversionError(
        f"'{path}' carries code that would run on this machine: {shown}{more}",
        hint="if you trust where the model comes from, allow it with --allow-code; or build it of Keras layers only",
        details={"code": [str(code) for code in found]},
    )
