"""Results of ops that are not lowered, from the LiteRT runtime."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import UnfitModelError
from edgepack.graph import Model
from edgepack.runtime.memory import require_memory
from edgepack.runtime.state import FreshInterpreter
from edgepack.text import first_line


class BoundaryRuntime:
    """Runs a model sample by sample and returns activations from inside.

    Args:
        tflite: The file.
        model: What it contains.
    """

    def __init__(self, tflite: bytes, model: Model) -> None:
        self._tflite = tflite
        self._model = model
        self._fresh: FreshInterpreter | None = None

    def run(self, inputs: Sequence[npt.NDArray[Any]], indices: Sequence[int]) -> list[npt.NDArray[Any]]:
        """Return the values of activations, samples stacked along a new first axis.

        Args:
            inputs: One array per graph input in file order, (samples, *shape in the file).
            indices: Tensor indices.

        Raises:
            UnfitModelError: The runtime cannot run the model, or an activation's shape depends on the sample.
        """
        graph = self._model.main
        columns: list[list[npt.NDArray[Any]]] = [[] for _ in indices]
        try:
            fresh = self._fresh = self._fresh or self._load()
            for number in range(len(inputs[0])):
                interpreter = fresh.start()
                for index, array in zip(graph.inputs, inputs, strict=True):
                    interpreter.set_tensor(index, np.ascontiguousarray(array[number]))
                interpreter.invoke()
                for column, index in zip(columns, indices, strict=True):
                    column.append(interpreter.get_tensor(index))
            return [np.stack(column) for column in columns]
        except (RuntimeError, ValueError) as error:
            raise UnfitModelError(f"the model failed while running: {first_line(error)}") from error

    def _load(self) -> FreshInterpreter:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        require_memory(self._model, keeps_all=True)

        def load() -> Any:
            interpreter = Interpreter(
                model_content=self._tflite,
                num_threads=1,
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            interpreter.allocate_tensors()
            return interpreter

        return FreshInterpreter(self._model, load)
