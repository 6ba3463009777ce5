"""The names that a Keras file may use without `--allow-code`, from `keras_objects.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Packages of Keras that earlier versions named otherwise.
_FORMER_AREAS = {"feature_column": "layers", "mixed_precision": "dtype_policies", "policy": "dtype_policies"}

#: The package of Keras 2 that had models and the base classes of layers.
_ENGINE = "engine"

#: Other packages whose classes are known, and their areas.
_PACKAGES = {"tensorflow_model_optimization": "tfmot"}

#: Modules of TensorFlow with the classes of an area; EfficientNetV2 of tf-keras has a `tf.constant_initializer`.
_MODULES = dict.fromkeys(("tensorflow.python.ops.init_ops", "tensorflow.python.ops.init_ops_v2"), "initializers")


@dataclass(frozen=True)
class KerasNames:
    """Names whose code is Keras's or TensorFlow's own and computes on tensors only.

    Attributes:
        classes: Class names by area, the package of Keras below `keras` or `keras.src`; `tfmot` for the wrappers of
            TensorFlow Model Optimization, `feature_columns` for the columns of TensorFlow, which have no module.
        functions: Function names by area.
        code: Classes of Keras that contain code or reach for files, with the reason as a predicate.
        registered: Registered names of Keras's own classes, such as `Custom>CustomScaleLayer`.
        tensorflow: Canonical names of functions, without `tf.`.
        tensorflow_ops: Names of ops.
        tensor_members: Properties and methods of ragged and sparse tensors.
        class_methods: Methods such as `RaggedTensor.from_tensor`.
        all_classes: Class names of all areas.
        all_functions: Function names of all areas.
    """

    classes: Mapping[str, frozenset[str]]
    functions: Mapping[str, frozenset[str]]
    code: Mapping[str, str]
    registered: frozenset[str]
    tensorflow: frozenset[str]
    tensorflow_ops: frozenset[str]
    tensor_members: frozenset[str]
    class_methods: frozenset[str]
    all_classes: frozenset[str]
    all_functions: frozenset[str]

    def is_symbol(self, name: str) -> bool:
        """Return whether a function of TensorFlow, such as `math.add` or `raw_ops.AddV2`, is in the list."""
        plain = name.removeprefix("compat.v1.")
        return name in self.tensorflow or (
            plain.startswith("raw_ops.") and plain.removeprefix("raw_ops.") in self.tensorflow_ops
        )


@cache
def keras_names() -> KerasNames:
    """Return the lists of the installed package."""
    document = tomllib.loads(Path(__file__).with_name("keras_objects.toml").read_text(encoding="utf-8"))
    classes = {area: frozenset(text.split()) for area, text in document["classes"].items()}
    classes[_ENGINE] = classes["models"] | classes["layers"]
    functions = {area: frozenset(text.split()) for area, text in document["functions"].items()}
    lists = {
        key: frozenset(document[key].split())
        for key in ("registered", "tensorflow", "tensorflow_ops", "tensor_members", "class_methods")
    }
    return KerasNames(
        classes=classes,
        functions=functions,
        code=document["code"],
        all_classes=frozenset().union(*classes.values()),
        all_functions=frozenset().union(*functions.values()),
        **lists,
    )


def area_of(module: str) -> str | None:
    """Return the area of a module of Keras: `layers` for `keras.src.layers.core.dense`, empty for `keras` itself.

    TensorFlow Model Optimization is one area, `tfmot`. None for modules whose classes are not known.
    """
    root, *rest = module.split(".")
    if root in _PACKAGES or module in _MODULES:
        return _MODULES.get(module) or _PACKAGES[root]
    if module in {"tensorflow.keras", "tensorflow.python.keras"} or module.startswith(
        ("tensorflow.keras.", "tensorflow.python.keras.")
    ):
        rest = rest[rest.index("keras") + 1 :]
    elif root not in {"keras", "tf_keras"}:
        return None
    if not all(part.isidentifier() for part in rest):
        return None
    if rest[:1] == ["src"]:
        rest = rest[1:]
    return _FORMER_AREAS.get(rest[0], rest[0]) if rest else ""
