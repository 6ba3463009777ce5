"""Add tensors and ops to the schema's mutable `ModelT`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.edit import add_buffer, op_code
from edgepack.graph.options import full_options, packed_options
from edgepack.graph.read import schema


def new_tensor(
    model: Any, graph: Any, name: str, shape: Sequence[int], values: npt.NDArray[Any] | None = None, dtype: str = ""
) -> int:
    """Add a tensor to a graph of a model, and return its index.

    Args:
        model: The `ModelT`.
        graph: The `SubGraphT`.
        name: Name in the file.
        shape: Static shape.
        values: Values of a constant, float32 or int32; None for an activation.
        dtype: TFLite type; that of the values, or FLOAT32, unless given.
    """
    tensor = schema().TensorT()
    tensor.name, tensor.shape, tensor.hasRank = name.encode(), np.array(shape, np.int32), True
    integer = values is not None and values.dtype == np.int32
    tensor.type = getattr(schema().TensorType, dtype or ("INT32" if integer else "FLOAT32"))
    tensor.buffer = 0 if values is None else add_buffer(model, values)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def new_operator(model: Any, name: str, inputs: Iterable[int], outputs: Iterable[int], **options: Any) -> Any:
    """Return the `OperatorT` of a builtin op; options have the names of `Op.options`, the others their defaults.

    Args:
        model: The `ModelT`, which gets the op's code where it has none.
        name: TFLite name.
        inputs: Tensor indices.
        outputs: Tensor indices.
        options: Options of the op.
    """
    op = schema().OperatorT()
    op.opcodeIndex = op_code(model, name)
    op.inputs, op.outputs = np.array(list(inputs), np.int32), np.array(list(outputs), np.int32)
    op.builtinOptionsType, op.builtinOptions = packed_options(name, full_options(name, options))
    return op
