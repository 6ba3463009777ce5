"""A model's inputs and outputs as every template sees them, whatever the loader's language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from edgepack.bundle.spec import TensorSpec, element_count
from edgepack.errors import BundleError
from edgepack.graph import NUMPY_DTYPES


@dataclass(frozen=True)
class StepView:
    """A postprocessing step that the loader performs on an output's real values.

    Attributes:
        op: `SOFTMAX` or `ARG_MAX`.
        axis: Axis along which it works, counted from 0.
        beta: Factor on SOFTMAX's logits, a float32 value.
        numpy: NumPy dtype name of the result.
        outer: Product of the sizes before the axis.
        size: Size of the axis.
        inner: Product of the sizes after the axis.
    """

    op: str
    axis: int
    beta: float
    numpy: str
    outer: int
    size: int
    inner: int


@dataclass(frozen=True)
class PublicView:
    """A tensor as the loader's caller sees it.

    Attributes:
        shape: Shape.
        dtype: TFLite type; the file's own for a quantized tensor without postprocessing steps.
        numpy: NumPy dtype name of `dtype`.
        elements: Number of values.
        real: True when the caller sees real numbers and `dtype` is how the file stores them.
    """

    shape: tuple[int, ...]
    dtype: str
    numpy: str
    elements: int
    real: bool


@dataclass(frozen=True)
class TensorView:
    """A tensor as templates see it.

    Attributes:
        index: Position among the inputs or outputs.
        name: The author's name, any text: only through an escaping filter.
        tensor_name: Name in the file, any text.
        shape: Static shape.
        dtype: TFLite type.
        numpy: NumPy dtype name.
        elements: Number of values.
        bytes: Size of the raw tensor.
        quantized: True when values stand for real numbers.
        scale: float32 value.
        zero_point: Integer.
        labels_file: Name of the labels' file in the data folder, empty without labels.
        label_count: Number of labels.
        preprocessing: As in the spec.
        public: The tensor as the loader's caller sees it.
        tail: Postprocessing steps that the loader performs on an output's real values.
    """

    index: int
    name: str
    tensor_name: str
    shape: tuple[int, ...]
    dtype: str
    numpy: str
    elements: int
    bytes: int
    quantized: bool
    scale: float
    zero_point: int
    labels_file: str
    label_count: int
    preprocessing: Mapping[str, Any] | None
    public: PublicView
    tail: tuple[StepView, ...]

    @property
    def ranked(self) -> bool:
        """True for an output whose values rank its labels: only these have a top_k."""
        chosen = bool(self.tail) and self.tail[-1].op == "ARG_MAX"
        return bool(self.labels_file) and not chosen and not self.labels_positions

    @property
    def labels_positions(self) -> bool:
        """True for an output with scores of the labels at many positions: the anchors of a detector, pixels."""
        return bool(self.label_count) and len(self.shape) > 2 and self.elements > self.label_count


def facts_of(view: TensorView) -> dict[str, Any]:
    """Return the fields of a view by name, for a language's own view that adds to them."""
    return {item.name: getattr(view, item.name) for item in fields(TensorView)}


def tensor_views(tensors: Sequence[TensorSpec], kind: str) -> list[TensorView]:
    """Return the views of the inputs or outputs.

    Args:
        tensors: In file order.
        kind: `input` or `output`, for error messages.

    Raises:
        BundleError: A tensor has a type that NumPy does not have.
    """
    views = []
    for index, tensor in enumerate(tensors):
        dtype = NUMPY_DTYPES.get(tensor.dtype)
        if dtype is None:
            raise BundleError(
                f"the {kind} '{tensor.name}' has the type {tensor.dtype}, which no loader supports",
                hint=f"give the model {kind}s of one of {', '.join(sorted(NUMPY_DTYPES))}",
            )
        elements = element_count(tensor.shape)
        views.append(
            TensorView(
                index=index,
                name=tensor.name,
                tensor_name=tensor.tensor_name,
                shape=tensor.shape,
                dtype=tensor.dtype,
                numpy=dtype.name,
                elements=elements,
                bytes=elements * dtype.itemsize,
                quantized=tensor.quantized,
                scale=tensor.scale,
                zero_point=tensor.zero_point,
                labels_file=f"labels_{index}.txt" if tensor.labels else "",
                label_count=len(tensor.labels),
                preprocessing=tensor.preprocessing,
                public=_public(tensor),
                tail=_steps(tensor),
            )
        )
    return views


def _public(tensor: TensorSpec) -> PublicView:
    shape, dtype = tensor.finished_shape, tensor.finished_dtype
    return PublicView(
        shape, dtype, NUMPY_DTYPES[dtype].name, element_count(shape), tensor.quantized and not tensor.tail
    )


def _steps(tensor: TensorSpec) -> tuple[StepView, ...]:
    views = []
    shape = tensor.shape
    for step in tensor.tail:
        views.append(
            StepView(
                op=step.op,
                axis=step.axis,
                beta=float(np.float32(step.beta)),
                numpy=NUMPY_DTYPES[step.dtype].name,
                outer=element_count(shape[: step.axis]),
                size=shape[step.axis],
                inner=element_count(shape[step.axis + 1 :]),
            )
        )
        shape = step.shape
    return tuple(views)


def label_lines(labels: Sequence[str]) -> list[str]:
    """Return labels with one line each: line breaks inside a label become spaces."""
    return [" ".join(label.splitlines()) for label in labels]
