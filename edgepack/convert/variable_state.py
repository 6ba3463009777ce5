"""Variables that a model assigns when it runs: its state, which each run of a comparison starts with anew."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

#: Ops of TensorFlow that write a resource variable, or a part of one.
_WRITES = ("Assign", "ResourceScatter", "ResourceStridedSliceAssign")


@dataclass(frozen=True)
class KeptState:
    """The variables of a traced model that a run may write.

    Attributes:
        values: (variable, value before the first run); empty for a model that writes none.
    """

    values: tuple[tuple[Any, npt.NDArray[Any]], ...] = field(default=(), repr=False)

    def restore(self) -> None:
        """Give each variable the value that it had before the first run."""
        for variable, value in self.values:
            variable.assign(value)


def kept_state(function: Any) -> KeptState:
    """Return the state of a traced model; it must not have been run yet.

    Which variables an inner function writes cannot be seen from its ops, so all are kept once any op writes one.

    Args:
        function: A concrete function.
    """
    if not any(name.startswith(_WRITES) for name in _op_names(function.graph.as_graph_def())):
        return KeptState()
    return KeptState(tuple((variable, variable.numpy()) for variable in function.graph.variables))


def _op_names(definition: Any) -> Iterator[str]:
    for nodes in (definition.node, *(inner.node_def for inner in definition.library.function)):
        for node in nodes:
            yield node.op


@contextmanager
def stateful_converter(function: Any, inputs: Sequence[str]) -> Iterator[Any]:
    """Yield a TFLiteConverter of a function that writes variables, which are initialized to their present values.

    Only a SavedModel carries the values: `from_concrete_functions` and Keras's own export lose those of the state.

    Args:
        function: A concrete function with static shapes.
        inputs: Names of its inputs, in order.
    """
    import tensorflow as tf

    class Owner(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.held = list(function.graph.variables)

    # Outputs of a signature are in the order of their names.
    def named(*tensors: Any) -> dict[str, Any]:
        return {f"output_{number:04}": tensor for number, tensor in enumerate(function(*tensors))}

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{number:04}")
        for number, tensor in enumerate(function.inputs[: len(inputs)])
    ]
    owner = Owner()
    call = tf.function(named, input_signature=specs, autograph=False).get_concrete_function()
    with tempfile.TemporaryDirectory(prefix="edgepack-") as folder:
        tf.saved_model.save(owner, folder, signatures=call)
        yield tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
