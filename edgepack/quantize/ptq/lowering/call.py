"""What the function that lowers an op receives: operands of one op, with or without the samples' axis.

Files have batch 1 in their shapes and constants: reshape targets, transposes, and sometimes a batch that was folded
into another axis. So the samples do not take the file's axis 0. Every activation gets a further axis before it,
(N, *shape in the file), and each sample keeps the shapes of the file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import NUMPY_DTYPES, Graph, Op, Tensor
from edgepack.graph.op_layout import ACTIVATION_BOUNDS
from edgepack.quantize.ptq.lowering.lazy import tf

#: A TensorFlow tensor.
TfTensor = Any


class NotLoweredError(Exception):
    """An op, or this use of it, has no counterpart in TensorFlow; its results come from the runtime."""


class PerSampleError(NotLoweredError):
    """The op's function handles only one sample at a time here, so it is mapped over the samples."""


@dataclass(frozen=True)
class Value:
    """A tensor during a run.

    Attributes:
        tensor: A NumPy array where the values are known while the graph is traced (constants and shapes computed from
            them), else a TensorFlow tensor.
        batched: True with the samples' axis, for all that depends on the inputs' values.
    """

    tensor: Any
    batched: bool = False

    @property
    def static(self) -> npt.NDArray[Any] | None:
        """The values where they are known while the graph is traced."""
        return self.tensor if isinstance(self.tensor, np.ndarray) else None


@dataclass(frozen=True)
class Call:
    """One op with its operands.

    A function of the table returns one tensor per output with the samples' axis, or a NumPy array without it where the
    result is known while the graph is traced.

    Attributes:
        op: The op.
        operands: One per input; None for an optional input left out.
        inputs: The file's descriptions of the operands.
        outputs: The file's descriptions of the results.
        batch: Number of samples, an integer or a scalar tensor; 1 where no operand has the samples' axis.
        graphs: All subgraphs of the model.
    """

    op: Op
    operands: tuple[Value | None, ...]
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    batch: Any
    graphs: tuple[Graph, ...] = ()

    def has(self, position: int) -> bool:
        """Return whether an optional operand is there."""
        return position < len(self.operands) and self.operands[position] is not None

    def is_batched(self, position: int) -> bool:
        """Return whether an operand has the samples' axis."""
        return self._operand(position).batched

    def batched(self, position: int) -> TfTensor:
        """Return an operand with the samples' axis; one without it is repeated."""
        value = self._operand(position)
        if value.batched:
            return value.tensor
        tensor = tf.convert_to_tensor(value.tensor)[None]
        if isinstance(self.batch, int) and self.batch == 1:
            return tensor
        return tf.broadcast_to(tensor, [self.batch, *tensor.shape[1:]])

    def single(self, position: int) -> TfTensor:
        """Return an operand without the samples' axis.

        Raises:
            PerSampleError: It has one.
        """
        value = self._operand(position)
        if value.batched:
            raise PerSampleError(f"operand {position} of {self.op.label} depends on the sample")
        return tf.convert_to_tensor(value.tensor)

    def static(self, position: int) -> npt.NDArray[Any]:
        """Return the values of an operand that has to be known while the graph is traced, such as axes.

        Raises:
            NotLoweredError: They depend on the inputs.
        """
        values = self._operand(position).static
        if values is None:
            raise NotLoweredError(f"operand {position} of {self.op.label} is not constant")
        return values

    def ints(self, position: int) -> list[int]:
        """Return a static operand as a list of integers."""
        return [int(value) for value in self.static(position).reshape(-1)]

    def shape(self, position: int) -> tuple[int, ...]:
        """Return an operand's shape without the samples' axis.

        Raises:
            NotLoweredError: It depends on the inputs' values.
        """
        value = self._operand(position)
        if value.static is not None:
            return tuple(value.static.shape)
        shape = value.tensor.shape
        if shape.rank is None:
            raise NotLoweredError(f"operand {position} of {self.op.label} has no fixed rank")
        sizes = tuple(shape.as_list())[1 if value.batched else 0 :]
        if None in sizes:
            raise NotLoweredError(f"operand {position} of {self.op.label} has no fixed shape")
        return sizes

    def rank(self, position: int) -> int:
        """Return an operand's rank without the samples' axis."""
        return len(self.shape(position))

    def option(self, name: str, default: Any) -> Any:
        """Return an option of the op, or the schema's default in a file without it."""
        return self.op.options.get(name, default)

    def dtype(self, output: int = 0) -> Any:
        """Return the TensorFlow type of a result."""
        return tf.as_dtype(NUMPY_DTYPES[self.outputs[output].dtype])

    def folded(self, position: int) -> TfTensor:
        """Return an operand with the samples' axis folded into axis 0, for ops on NHWC."""
        shape = self.shape(position)
        if not shape:
            raise NotLoweredError(f"operand {position} of {self.op.label} is a scalar")
        return tf.reshape(self.batched(position), [self.batch * shape[0], *shape[1:]])

    def unfolded(self, result: TfTensor, leading: int) -> TfTensor:
        """Return a result of folded operands with the samples' axis; `leading` is the file's axis 0."""
        return tf.reshape(result, [self.batch, leading, *result.shape[1:]])

    def activated(self, result: TfTensor) -> TfTensor:
        """Return a result after the op's fused activation."""
        return activate(str(self.option("fused_activation", "NONE")), result)

    def aligned(self, *positions: int) -> list[TfTensor]:
        """Return operands that broadcast as the file's shapes do, with the samples' axis in front.

        Operands without the samples' axis keep their rank, unless none has it.
        """
        rank = max(self.rank(position) for position in positions)
        some = any(self.is_batched(position) for position in positions)
        tensors = []
        for number, position in enumerate(positions):
            if not self.is_batched(position) and (some or number):
                tensors.append(self.single(position))
                continue
            tensor, shape = self.batched(position), self.shape(position)
            if len(shape) < rank:
                tensor = tf.reshape(tensor, [self.batch, *[1] * (rank - len(shape)), *shape])
            tensors.append(tensor)
        return tensors

    def _operand(self, position: int) -> Value:
        value = self.operands[position] if position < len(self.operands) else None
        if value is None:
            raise NotLoweredError(f"{self.op.label} has no operand {position}")
        return value


#: Lowers one op: one result, or a list of one per output.
Lowering = Callable[[Call], Any]


def activate(name: str, values: TfTensor) -> TfTensor:
    """Return values after an activation of the schema's `ActivationFunctionType`.

    Raises:
        NotLoweredError: No runtime kernel has the activation.
    """
    if name == "NONE":
        return values
    if name == "RELU":
        return tf.nn.relu(values)
    if name == "RELU6":
        return tf.nn.relu6(values)
    if name == "TANH":
        return tf.tanh(values)
    if name in ACTIVATION_BOUNDS:
        return tf.clip_by_value(values, *ACTIVATION_BOUNDS[name])
    raise NotLoweredError(f"the fused activation {name}")


def axis_from_front(axis: int, rank: int) -> int:
    """Return an axis of a tensor of a rank counted from the front.

    Raises:
        NotLoweredError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise NotLoweredError(f"axis {axis} of a tensor of rank {rank}")
    return axis % rank if rank else 0


def behind_samples(axes: Sequence[int], rank: int) -> list[int]:
    """Return axes in the file as axes of the tensor with the samples' axis in front."""
    return [axis_from_front(axis, rank) + 1 for axis in axes]
