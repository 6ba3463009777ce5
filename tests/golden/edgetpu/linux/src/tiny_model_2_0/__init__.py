"""Tiny Model 2.0: typed access to one model.

Made by edgepack; scales and zero points below are the model's own. Values go in and come out as real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from os.path import abspath
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
# What runs on the Edge TPU.
_COMPILED: tuple[str, ...] = ("tiny_edgetpu.tflite",)


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
        accelerator: `auto` takes the Edge TPU when it is there, `require` fails without it, `never` stays on the CPU.
        device: Which Edge TPU: empty for any, `:0`, `usb`, `usb:0`, `pci` or `pci:0`.
        compiled_file: Another file compiled for the Edge TPU in place of the package's own, such as one that was
            co-compiled with another model.

    Raises:
        ImportError: No TFLite runtime is installed, or one that does not go with the NumPy there is.
        RuntimeError: `accelerator="require"` and there is none; the message lists what was tried.
    """

    def __init__(
        self,
        *,
        threads: int = 1,
        accelerator: str = "auto",
        device: str = "",
        compiled_file: str | PathLike[str] = "",
    ) -> None:
        super().__init__(
            INPUTS,
            OUTPUTS,
            host="tiny.tflite",
            compiled=[abspath(compiled_file)] if compiled_file else _COMPILED,
            runtime_version=14,
            threads=threads,
            accelerator=accelerator,
            device=device,
        )

    def run(self, my_image: ArrayLike, class_: ArrayLike) -> TinyModel20Result:
        """Run the model on real values.

        Args:
            my_image: Shape [1, 2, 2, 3] or [2, 2, 3].
            class_: Shape [1, 4] or [4].

        Raises:
            ValueError: A shape or type that the model does not take.
        """
        return TinyModel20Result(*self.run_real([my_image, class_]))
