"""Ops that TFLite lacks: the converter's pages about them as one error that names the model's own parts."""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from edgepack.convert.environment import import_tensorflow
from edgepack.errors import ConversionError

_MARKS = ("neither a custom op nor a flex op", "NEEDS_FLEX_OPS", "NEEDS_CUSTOM_OPS")


def raise_if_ops_are_missing(error: Exception, kept: Sequence[Any]) -> None:
    """Raise one error that names the ops and where they come from, when that is why a conversion failed.

    Args:
        error: The converter's error.
        kept: Objects of the loaded model; a Keras model among them tells which `keras.ops` need a missing op.

    Raises:
        ConversionError: TFLite lacks ops that the model uses, or kernels for float64.
    """
    text = str(error)
    if not any(mark in text for mark in _MARKS):
        return
    listed = re.findall(r"^\s*(?:Flex|Custom) ops: (.+)$", text, re.MULTILINE)
    ops = sorted({op.strip().removeprefix("Flex") for line in listed for op in line.split(",")})
    ops = ops or sorted(set(re.findall(r"'tf\.(\w+)' op is neither", text)))
    places = sorted(_places(error))
    where = f" (in {', '.join(places[:5])})" if places else ""
    calls = re.findall(r"^\s*tf\.\w+\((.*)\) -> \(.*$", text, re.MULTILINE)
    if calls and all("xf64" in call or "<f64" in call for call in calls):
        raise ConversionError(
            f"the model computes in float64, for which TFLite has no kernels: {', '.join(ops)}{where}",
            hint="save the model in float32: cast its inputs, and build its layers with dtype float32, which keeps "
            "seven digits of the weights",
            details={"ops": ops, "log": text},
        )
    functions = _keras_functions(kept, ops)
    written = f"; the model calls them through {', '.join(functions)}" if functions else ""
    own_hint = ""
    if any(name in {"keras.ops.argmax", "keras.ops.argmin"} for name in functions):
        own_hint = "end the model before the class choice, which the app does on its scores; otherwise "
    raise ConversionError(
        f"the model uses operations that TFLite does not have: {', '.join(ops)}{where}{written}",
        hint=f"{own_hint}replace them with ones from "
        "https://ai.google.dev/edge/litert/conversion/tensorflow/op_compatibility, "
        "or move that part into the app; TensorFlow's own kernels (Select TF ops) run on no accelerator",
        details={"ops": ops, "functions": functions, "log": text},
    )


def _places(error: Exception) -> set[str]:
    """Return the graph names in the converter's structured errors, without the outermost one."""
    places = set()
    for entry in getattr(error, "errors", None) or []:
        for call in entry.location.call:
            name = re.split(r"[@;]", call.name)[0]
            if "/" in name:
                places.add(name)
    return places


def _keras_functions(kept: Sequence[Any], ops: Collection[str]) -> list[str]:
    """Return the functions of `keras.ops` in a functional Keras model that use one of the TensorFlow ops.

    A function leaves no name in the graph, so each one is traced by itself with the shapes that it has in the model.
    """
    found = []
    for model in kept:
        for operation in _operations(model):
            kind = type(operation)
            if not kind.__module__.startswith("keras.src.ops."):
                continue
            name = "keras.ops." + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
            if name not in found and _traced_ops(operation) & set(ops):
                found.append(name)
    return found


def _operations(model: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the operations of a functional Keras model and of the models in it."""
    for operation in getattr(model, "operations", None) or ():
        yield operation
        if depth < 8:
            yield from _operations(operation, depth + 1)


def _traced_ops(operation: Any) -> set[str]:
    """Return the types of the TensorFlow ops that a Keras operation consists of, empty when it cannot be traced."""
    tf = import_tensorflow()
    try:
        arguments = operation._inbound_nodes[0].arguments
        graph = tf.Graph()
        with graph.as_default():
            tensors = {
                id(tensor): tf.compat.v1.placeholder(tensor.dtype, [size or 1 for size in tensor.shape])
                for tensor in arguments.keras_tensors
            }
            given, named = arguments.fill_in(tensors)
            operation.call(*given, **named)
    except Exception:  # a private structure of Keras: without it the error has one sentence less
        return set()
    return {op.type for op in graph.get_operations()}
