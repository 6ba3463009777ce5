"""Detection of code in a Keras model's configuration, by a list of what is known to be harmless. Needs no Keras.

Keras stores each object as `{"module", "class_name", "config", "registered_name"}`, older versions as `{"class_name",
"config"}` and functions by their name. An object passes when its name and its module are Keras's own and the object
only computes on tensors; layers that call TensorFlow functions by name pass when that function is in the list. All
else is code, whether it is known to be harmful or not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.errors import ConversionError
from edgepack.text import first_few
from edgepack.untrusted.keras_names import area_of, keras_names
from edgepack.untrusted.tfmot import is_tfmot

#: Values in a configuration: tensors, shapes, slices.
_VALUES = {
    "__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__tuple__", "TensorShape",
    "TypeSpec", "CompositeTensor",
}  # fmt: skip

#: Specifications of tensors, and the modules of TensorFlow that define them.
_SPECS = {"TensorSpec", "RaggedTensorSpec", "SparseTensorSpec", "IndexedSlicesSpec"}
_SPEC_MODULE = re.compile(r"tensorflow\.python\.(framework|ops\.ragged)\.[a-z_]+")

#: The last word of settings that name a function or a class: `recurrent_activation`, `kernel_initializer`.
_REFERENCES = {"activation", "initializer", "regularizer", "constraint"}

#: Settings that name a file when they are text; inline vocabularies are lists.
_FILES = {"vocabulary", "vocabulary_file", "filepath", "file_path", "filename", "ckpt_to_load_from"}

#: Settings that contain or name a Python function, or the module that it is looked up in: those of cell wrappers
#: (`residual_fn`, `residual_fn_type`, `residual_fn_module`) and of feature columns (`normalizer_fn`).
_FUNCTIONS = re.compile(r"_fn(_type|_module)?$|function_type$")

_FOREIGN = "is not part of Keras"
_NO_TENSORS = "is not in the list of functions that compute on tensors only"


@dataclass(frozen=True)
class Code:
    """One place in a configuration that contains code.

    Attributes:
        layer: Names of the enclosing layers below the model, outermost first, joined with `/`; empty for the model.
        what: Class or function, as stored.
        why: Why it is code, as a predicate: `contains a Python function`.
        module: Module that defines it, empty when the file does not name one.
    """

    layer: str
    what: str
    why: str
    module: str = ""

    def __str__(self) -> str:
        where = f"layer '{self.layer}'" if self.layer else "the model"
        return f"{where} ({self.what}) {self.why}"


def find_code(config: object) -> Iterator[Code]:
    """Yield every place in a configuration that contains code, in file order.

    Args:
        config: `config.json` of a .keras archive, or the `model_config` of an .h5.
    """
    # An explicit stack, because a file may nest deeper than Python recurses.
    pending: list[tuple[object, tuple[str, ...]]] = [(config, ())]
    while pending:
        part, path = pending.pop()
        inside = path
        children: list[tuple[object, tuple[str, ...]]]
        if isinstance(part, dict):
            if "class_name" in part:
                inner = part.get("config")
                name = inner.get("name") if isinstance(inner, dict) else None
                if isinstance(name, str) and part["class_name"] not in keras_names().classes["dtype_policies"]:
                    inside = (*path, name)
                yield from _codes_of(part, "/".join(inside[1:]))
            yield from _settings(part, "/".join(inside[1:]))
            children = [(value, inside) for value in part.values()]
        elif isinstance(part, list):
            children = [(value, inside) for value in part]
        else:
            continue
        pending.extend(reversed(children))


def _codes_of(node: dict[str, Any], layer: str) -> Iterator[Code]:
    """Yield the reason why one object is code."""
    name, module, registered = node["class_name"], node.get("module"), node.get("registered_name")
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        yield Code(layer, str(name)[:80], "has no valid name")
    elif is_tfmot(node):
        return
    elif name in keras_names().code:
        yield Code(layer, name, keras_names().code[name])
    elif name == "__typespec__":
        spec = str(node.get("spec_name"))
        if spec not in _SPECS or registered is not None or not _SPEC_MODULE.fullmatch(module or ""):
            yield Code(layer, f"{module}.{spec}", _FOREIGN)
    elif name == "function":
        yield from _function(node, layer)
    elif name not in _VALUES:
        yield from _class(name, node, layer)


def _function(node: dict[str, Any], layer: str) -> Iterator[Code]:
    known = keras_names()
    name, module, registered = node.get("config"), node.get("module"), node.get("registered_name")
    area = None if module is None else "" if module == "builtins" else area_of(module)
    names = known.all_functions if area == "" else known.functions.get(area or "", frozenset())
    if not isinstance(name, str) or name not in names or registered not in {None, "function", name}:
        yield Code(layer, f"{module}.{name}" if module else str(name), _FOREIGN, module or "")


def _class(name: str, node: dict[str, Any], layer: str) -> Iterator[Code]:
    known = keras_names()
    module, registered = node.get("module"), node.get("registered_name")
    plain = name.rpartition(">")[2] if name in known.registered else name
    area = "" if module is None else area_of(module)
    names = known.all_classes if area == "" else known.classes.get(area or "", frozenset())
    own = registered in {None, name} or registered in known.registered
    if area is None or plain not in names or not own:
        label = f"{module}.{name}" if module else str(registered or name)
        yield Code(layer, label, _FOREIGN, module or "")
        return
    config = node.get("config")
    refused = _tensorflow_call(plain, config if isinstance(config, dict) else {})
    if refused is not None:
        yield Code(layer, f"{plain} of {refused}", _NO_TENSORS)


def _tensorflow_call(name: str, config: dict[str, Any]) -> str | None:
    """Return what a layer calls in TensorFlow when that is not in the lists; None when it is, or for other layers."""
    known = keras_names()
    match name:
        case "TFOpLambda" | "SlicingOpLambda":
            function = str(config.get("function"))
            return None if known.is_symbol(function) else f"tf.{function}"
        case "ClassMethod":
            method = f"{config.get('cls_symbol')}.{config.get('method_name')}"
            return None if method in known.class_methods else f"tf.{method}"
        case "InstanceMethod" | "InstanceProperty":
            member = str(config.get("attr_name"))
            return None if member in known.tensor_members else f"Tensor.{member}"
        case "TensorFlowOpLayer":
            node = config.get("node_def")
            op = node.get("op") if isinstance(node, dict) else None
            return None if isinstance(op, str) and op in known.tensorflow_ops else f"the op {op or 'in binary form'}"
    return None


def _settings(node: dict[str, Any], layer: str) -> Iterator[Code]:
    """Yield settings that name a function outside Keras, or a file."""
    known = keras_names()
    for key, value in node.items():
        if _FUNCTIONS.search(key) and value is not None:
            yield Code(layer, f"{key} '{str(value)[:80]}'", "contains a Python function")
        if not isinstance(value, str):
            continue
        if key.rpartition("_")[2] in _REFERENCES and value not in known.all_functions | known.all_classes:
            yield Code(layer, f"{key} '{value}'", _FOREIGN)
        elif key in _FILES and value:
            yield Code(layer, f"{key} '{value}'", "reads a file")


def refuse_code(path: Path, config: object) -> None:
    """Refuse a configuration that contains code.

    Raises:
        ConversionError: Names the layers, how to export the model without them, and the flag that allows them.
    """
    codes = list(dict.fromkeys(find_code(config)))
    if not codes:
        return
    texts = [str(code) for code in codes]
    if all(code.why == "reads a file" for code in codes):
        remedy = "save the model with its vocabulary in it: layer.set_vocabulary([...]) with a list of words"
    else:
        remedy = (
            "replace what is named with layers of Keras, or export the model without Python code as a SavedModel:"
            " model.export(DIR)"
        )
    raise ConversionError(
        f"'{path}' contains code that would run on this machine: {first_few(texts)}",
        hint=f"{remedy}; if you trust the source of the model, allow its code with --allow-code",
        details={"code": texts},
    )
