"""Tiny Model 2.0: typed access to one model.

Made by edgepack; scales and zero points below are the model's own. Values go in and come out as real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike, NDArray

from ._engine import Engine, Status, Tensor, rank

__all__ = ["INPUTS", "OUTPUTS", "TinyModel20", "TinyModel20Result", "Status", "Tensor"]

INPUTS = (
    Tensor(
        name="My image",
        field="my_image",
        shape=(1, 2, 2, 3),
        dtype="int8",
        scale=0.0078125,
        zero_point=-1,
    ),
    Tensor(
        name="class",
        field="class_",
        shape=(1, 4),
        dtype="float32",
        scale=0.0,
        zero_point=0,
    ),
)
OUTPUTS = (
    Tensor(
        name="scores",
        field="scores",
        shape=(1, 3),
        dtype="uint8",
        scale=0.00390625,
        zero_point=0,
        labels_file="labels_0.txt",
    ),
    Tensor(
        name="2nd-output",
        field="output_2nd_output",
        shape=(1, 2),
        dtype="float32",
        scale=0.0,
        zero_point=0,
    ),
    Tensor(
        name="scores",
        field="scores2",
        shape=(),
        dtype="int64",
        scale=0.0,
        zero_point=0,
    ),
)


@dataclass(frozen=True, eq=False)
class TinyModel20Result:
    """Outputs of one run.

    Attributes:
        scores: real values, float32, shape [1, 3].
        output_2nd_output: float32, shape [1, 2].
        scores2: int64, shape [].
    """

    scores: NDArray[Any]
    output_2nd_output: NDArray[Any]
    scores2: NDArray[Any]

    def top_k(self, k: int = 5, output: str = "scores") -> list[tuple[str, float]]:
        """Return the `k` labels with the highest values, best first.

        Args:
            k: How many.
            output: Which output, one of scores.
        """
        return rank(OUTPUTS, output, getattr(self, output, None), k)


class TinyModel20(Engine):
    """The model, loaded.

    Args:
        threads: Threads of the CPU kernels.

    Raises:
        ImportError: No TFLite runtime is installed, or one that does not go with the NumPy there is.
    """

    def __init__(self, *, threads: int = 1) -> None:
        super().__init__(INPUTS, OUTPUTS, host="tiny.tflite", threads=threads)

    def run(self, my_image: ArrayLike, class_: ArrayLike) -> TinyModel20Result:
        """Run the model on real values.

        Args:
            my_image: Shape [1, 2, 2, 3] or [2, 2, 3].
            class_: Shape [1, 4] or [4].

        Raises:
            ValueError: A shape or type that the model does not take.
        """
        return TinyModel20Result(*self.run_real([my_image, class_]))
