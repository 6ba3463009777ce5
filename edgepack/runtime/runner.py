"""The LiteRT interpreter with NumPy arrays as inputs and outputs.

Quantization parameters are read from the flatbuffer: after allocation the interpreter reports some per-tensor weights
as per-channel ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.errors import EdgepackError, UnfitModelError
from edgepack.graph import NUMPY_DTYPES, Model, Tensor, read_model
from edgepack.graph.custom_ops import compiled_by, custom_codes
from edgepack.runtime.memory import require_memory
from edgepack.runtime.state import FreshInterpreter
from edgepack.text import first_line

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        name: The signature's name, else the tensor's.
        tensor_name: Name of the tensor in the file.
        index: Tensor index in the main graph.
        shape: Static shape, dynamic dimensions as 1.
        shape_signature: Shape with -1 for dynamic dimensions.
        tflite_dtype: `INT8`, `FLOAT32`, ...
        dtype: The same type in NumPy.
        scale: 0.0 for a tensor without quantization.
        zero_point: 0 for a tensor without quantization.
    """

    name: str
    tensor_name: str
    index: int
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    tflite_dtype: str
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    @property
    def quantized(self) -> bool:
        """True when the values are quantized real numbers."""
        return self.scale != 0.0


def tensor_info(name: str, tensor: Tensor) -> TensorInfo:
    """Return the description of a tensor under a name.

    Raises:
        UnfitModelError: NumPy has no such type.
    """
    dtype = NUMPY_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UnfitModelError(
            f"input or output '{name}' has the type {tensor.dtype}, which NumPy does not support",
            hint="give the model inputs and outputs of float, integer or bool type",
        )
    quantization = tensor.quantization
    known = quantization is not None and quantization.scale.size == 1
    return TensorInfo(
        name=name,
        tensor_name=tensor.name,
        index=tensor.index,
        shape=tensor.shape,
        shape_signature=tensor.shape_signature,
        tflite_dtype=tensor.dtype,
        dtype=dtype,
        scale=float(quantization.scale[0]) if quantization is not None and known else 0.0,
        zero_point=int(quantization.zero_point[0]) if quantization is not None and known else 0,
    )


def model_inputs(model: Model) -> list[TensorInfo]:
    """Return the inputs of a model's main graph, in file order."""
    return [tensor_info(n, model.main.tensors[i]) for n, i in zip(model.input_names(), model.main.inputs, strict=True)]


def model_outputs(model: Model) -> list[TensorInfo]:
    """Return the outputs of a model's main graph, in file order."""
    return [
        tensor_info(n, model.main.tensors[i]) for n, i in zip(model.output_names(), model.main.outputs, strict=True)
    ]


class Runner:
    """One loaded model. Every run of a model with state starts from its initial state, unless the caller keeps it.

    Args:
        tflite: The file's bytes.
        threads: Threads of the interpreter; the results of integer models do not depend on it.
        plain: Use only the built-in kernels, without XNNPACK.
        stream: Whether runs are a user's samples in their order, which some models with state take as a stream
            (`Model.is_stream`).

    Attributes:
        inputs: The main graph's inputs in file order.
        outputs: The main graph's outputs in file order.
        stateful: True when a run leaves a state to the next one.

    Raises:
        ModelFileError: The bytes are no .tflite.
        UnfitModelError: The runtime of this machine cannot load the model, such as one with custom ops.
    """

    def __init__(self, tflite: bytes, *, threads: int = 1, plain: bool = False, stream: bool = False) -> None:
        model = read_model(tflite)
        self.inputs = model_inputs(model)
        self.outputs = model_outputs(model)
        self.stateful = model.is_stateful
        if compiler := compiled_by(model):
            raise UnfitModelError(
                f"the model was compiled by {compiler} and does not run on this machine",
                hint="run the uncompiled host model of the same bundle",
            )
        require_memory(model)
        try:
            self._fresh = FreshInterpreter(model, lambda: load_interpreter(tflite, threads, plain), stream=stream)
        except (RuntimeError, ValueError) as error:
            # The runtime names the op that it lacks; any other failure is not for want of a custom op.
            missing = [code for code in custom_codes(model) if code and code in str(error)]
            raise UnfitModelError(
                f"the runtime of this machine cannot load the model: {first_line(error, default=type(error).__name__)}",
                hint=f"it needs the custom ops {', '.join(missing)}" if missing else "",
                details={"custom_ops": missing} if missing else {},
            ) from error
        self._shapes = [info.shape for info in self.inputs]

    def run(self, arrays: Sequence[Array], *, keep_state: bool = False) -> list[Array]:
        """Run the model once.

        Args:
            arrays: One array per input in file order, in the file's dtype, with the batch dimension.
            keep_state: True to continue from the state that the last run left, as a stream does.

        Returns:
            One array per output, in the file's dtype.

        Raises:
            UnfitModelError: The runtime failed, or the shapes do not match.
        """
        try:
            before = self._fresh.interpreter
            interpreter = before if keep_state else self._fresh.start()
            if interpreter is not before:
                self._shapes = [info.shape for info in self.inputs]
            for position, (info, array) in enumerate(zip(self.inputs, arrays, strict=True)):
                if array.shape != self._shapes[position]:
                    interpreter.resize_tensor_input(info.index, array.shape, strict=True)
                    interpreter.allocate_tensors()
                    self._shapes[position] = array.shape
            for info, array in zip(self.inputs, arrays, strict=True):
                interpreter.set_tensor(info.index, np.asarray(array, order="C"))
            interpreter.invoke()
            return [interpreter.get_tensor(info.index) for info in self.outputs]
        except (RuntimeError, ValueError) as error:
            raise UnfitModelError(f"the model failed while running: {first_line(error)}") from error

    def run_real(self, arrays: Sequence[Array]) -> list[npt.NDArray[np.float64]]:
        """Run the model once on real values: quantizes inputs and dequantizes outputs of a quantized file.

        Args:
            arrays: One array of real values per input.

        Returns:
            One float64 array per output.
        """
        raw = self.run([quantize(info, array) for info, array in zip(self.inputs, arrays, strict=True)])
        return [dequantize(info, array) for info, array in zip(self.outputs, raw, strict=True)]


def needs_custom_ops(error: EdgepackError) -> bool:
    """Return whether a model failed to load only because the runtime here does not register its custom ops."""
    return bool(error.details.get("custom_ops"))


def load_interpreter(tflite: bytes, threads: int = 1, plain: bool = False) -> Any:
    """Return an allocated interpreter, with the built-in kernels where XNNPACK fails.

    XNNPACK fails on some models that the built-in kernels run, such as the uint8 file of DeepLab v3. It is applied by
    default, and its failure makes the whole allocation fail.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def load(**options: Any) -> Any:
        interpreter = Interpreter(model_content=tflite, num_threads=threads, **options)
        interpreter.allocate_tensors()
        return interpreter

    built_in = {"experimental_op_resolver_type": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
    if plain:
        return load(**built_in)
    try:
        return load()
    except (RuntimeError, ValueError):
        return load(**built_in)


def quantize(info: TensorInfo, real: Array) -> Array:
    """Return real values in the tensor's dtype: round(real / scale) + zero_point, saturated.

    Multiplies by the reciprocal in float32 and rounds halves to even, as XNNPACK's QUANTIZE, the runtime's default
    kernel, does (measured with ai-edge-litert 2.3).

    Args:
        info: The tensor.
        real: Real values of any numeric dtype.
    """
    if not info.quantized:
        # Not `ascontiguousarray`, which gives a number a dimension.
        return np.asarray(real, info.dtype, order="C")
    limits = np.iinfo(info.dtype)
    rounded = np.rint(np.asarray(real, np.float32) * (np.float32(1.0) / np.float32(info.scale)))
    quantized: Array = np.clip(rounded + info.zero_point, limits.min, limits.max).astype(info.dtype)
    return quantized


def dequantize(info: TensorInfo, raw: Array) -> npt.NDArray[np.float64]:
    """Return the real values (float64) of a tensor's quantized values: scale * (raw - zero_point)."""
    if not info.quantized:
        return np.asarray(raw, np.float64)
    return (raw.astype(np.float64) - info.zero_point) * info.scale
