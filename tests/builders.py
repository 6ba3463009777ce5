"""Small float .tflite files written without TensorFlow, for tests that need a graph of their own."""

from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.edit import builtin_code, pack
from edgepack.graph.read import schema

#: Options class of the ops used here; the others need none.
_OPTIONS = {
    "ADD": "AddOptions",
    "ARG_MAX": "ArgMaxOptions",
    "ARG_MIN": "ArgMinOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FAKE_QUANT": "FakeQuantOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "MUL": "MulOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SHAPE": "ShapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "PACK": "PackOptions",
    "RFFT2D": "Rfft2dOptions",
    "SPLIT": "SplitOptions",
    "SPLIT_V": "SplitVOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
    "UNPACK": "UnpackOptions",
}


class Net:
    """A graph under construction; methods return tensor indices."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self._model = schema().ModelT()
        self._model.version = 3
        self._model.description = b"MLIR Converted."
        self._model.buffers = [schema().BufferT()]
        self._model.operatorCodes = []
        self._graph = schema().SubGraphT()
        self._graph.name = b"main"
        self._graph.tensors, self._graph.operators = [], []
        self._codes: dict[str, int] = {}

    def tensor(
        self, name: str, shape: tuple[int, ...], data: npt.NDArray[Any] | None = None, dtype: str = "FLOAT32"
    ) -> int:
        tensor = schema().TensorT()
        tensor.name = name.encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(schema().TensorType, dtype)
        tensor.hasRank = True
        if data is not None:
            buffer = schema().BufferT()
            buffer.data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, name: str, values: Any, dtype: str = "FLOAT32") -> int:
        array = np.asarray(values, np.float32 if dtype == "FLOAT32" else dtype.lower())
        return self.tensor(name, array.shape, array, dtype)

    def weights(self, name: str, *shape: int) -> int:
        scale = 1.0 / np.sqrt(np.prod(shape) / shape[0])
        return self.constant(name, self.random.normal(0, scale, shape))

    def op(self, name: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        if name not in self._codes:
            self._codes[name] = len(self._model.operatorCodes)
            code = schema().OperatorCodeT()
            code.builtinCode = builtin_code(name)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = 1
            self._model.operatorCodes.append(code)
        op = schema().OperatorT()
        op.opcodeIndex = self._codes[name]
        op.inputs, op.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if name in _OPTIONS:
            op.builtinOptionsType = getattr(schema().BuiltinOptions, _OPTIONS[name])
            op.builtinOptions = getattr(schema(), f"{_OPTIONS[name]}T")()
            for field, value in options.items():
                assert hasattr(op.builtinOptions, field)
                setattr(op.builtinOptions, field, value)
        self._graph.operators.append(op)

    def conv(self, source: int, name: str, shape: tuple[int, ...], channels: int, activation: str = "RELU") -> int:
        """A 3x3 convolution with stride 1 and SAME padding; `shape` is the input's."""
        kernel = self.weights(f"{name}/kernel", channels, 3, 3, shape[3])
        bias = self.weights(f"{name}/bias", channels)
        out = self.tensor(name, (*shape[:3], channels))
        fused = getattr(schema().ActivationFunctionType, activation)
        self.op("CONV_2D", [source, kernel, bias], [out], strideW=1, strideH=1, fusedActivationFunction=fused)
        return out

    def build(
        self, inputs: list[int], outputs: list[int], signature: tuple[list[str], list[str]] | None = None
    ) -> bytes:
        self._graph.inputs, self._graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self._model.subgraphs = [self._graph]
        if signature is not None:
            entry = schema().SignatureDefT()
            entry.signatureKey = b"serving_default"
            entry.inputs = [self._named(n, i) for n, i in zip(signature[0], inputs, strict=True)]
            entry.outputs = [self._named(n, i) for n, i in zip(signature[1], outputs, strict=True)]
            self._model.signatureDefs = [entry]
        return pack(self._model)

    def _named(self, name: str, index: int) -> Any:
        entry = schema().TensorMapT()
        entry.name = name.encode()
        entry.tensorIndex = index
        return entry


def classifier() -> bytes:
    """Convolution, depthwise convolution, average pool, dense, softmax: (1, 8, 8, 3) to (1, 10), with a signature."""
    net = Net()
    x = net.tensor("x", (1, 8, 8, 3))
    a = net.conv(x, "conv", (1, 8, 8, 3), 16)
    kernel, bias = net.weights("dw/kernel", 1, 3, 3, 16), net.weights("dw/bias", 16)
    b = net.tensor("dw", (1, 8, 8, 16))
    relu = schema().ActivationFunctionType.RELU
    net.op(
        "DEPTHWISE_CONV_2D",
        [a, kernel, bias],
        [b],
        strideW=1,
        strideH=1,
        depthMultiplier=1,
        fusedActivationFunction=relu,
    )
    c = net.tensor("pool", (1, 1, 1, 16))
    net.op("AVERAGE_POOL_2D", [b], [c], strideW=8, strideH=8, filterWidth=8, filterHeight=8)
    d = net.tensor("dense", (1, 10))
    net.op("FULLY_CONNECTED", [c, net.weights("fc/kernel", 10, 16), net.weights("fc/bias", 10)], [d])
    e = net.tensor("probabilities", (1, 10))
    net.op("SOFTMAX", [d], [e], beta=1.0)
    return net.build([x], [e], (["image"], ["classes"]))


def two_in_two_out() -> bytes:
    """Two inputs added after a convolution each and concatenated: tensor names repeat, one is empty."""
    net = Net(1)
    shape = (1, 4, 4, 4)
    x, y = net.tensor("in", shape), net.tensor("in", shape)
    a, b = net.conv(x, "same", shape, 4), net.conv(y, "same", shape, 4, "NONE")
    total = net.tensor("", shape)
    net.op("ADD", [a, b], [total])
    joined = net.tensor("joined", (1, 4, 4, 8))
    net.op("CONCATENATION", [total, a], [joined], axis=3)
    return net.build([x, y], [joined, total], (["left", "right"], ["joined", "total"]))


def one_op(name: str, shape: tuple[int, ...] = (1, 4, 4, 4), **options: Any) -> bytes:
    """One op with one input and one output of the same shape."""
    net = Net()
    x, y = net.tensor("x", shape), net.tensor("y", shape)
    net.op(name, [x], [y], **options)
    return net.build([x], [y])


def standing_alone() -> bytes:
    """RELU6, LEAKY_RELU and PRELU as separate ops, which ai-edge-quantizer leaves in float."""
    net = Net(2)
    shape = (1, 4, 4, 4)
    x = net.tensor("x", shape)
    a, b, c = (net.tensor(name, shape) for name in ("relu6", "leaky", "prelu"))
    net.op("RELU6", [x], [a])
    net.op("LEAKY_RELU", [net.conv(a, "conv", shape, 4, "NONE")], [b], alpha=0.1)
    net.op("PRELU", [b, net.constant("alpha", np.full((1, 1, 4), 0.25))], [c])
    return net.build([x], [c], (["x"], ["y"]))


def samples(tflite: bytes, count: int, seed: int = 0) -> list[dict[str, npt.NDArray[Any]]]:
    """Random samples for a model's inputs."""
    from edgepack.graph import read_model

    model = read_model(tflite)
    random = np.random.default_rng(seed)
    return [
        {
            name: random.normal(0, 1, model.main.tensors[index].shape).astype(np.float32)
            for name, index in zip(model.input_names(), model.main.inputs, strict=True)
        }
        for _ in range(count)
    ]


def run(tflite: bytes, sample: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
    """Run a model on real values and return its outputs as real values."""
    from ai_edge_litert.interpreter import Interpreter

    from edgepack.graph import read_model

    runtime = Interpreter(model_content=tflite, num_threads=1)
    runtime.allocate_tensors()
    for name, detail in zip(read_model(tflite).input_names(), runtime.get_input_details(), strict=True):
        runtime.set_tensor(detail["index"], _raw(detail, sample[name]))
    runtime.invoke()
    return [_real(detail, runtime.get_tensor(detail["index"])) for detail in runtime.get_output_details()]


def snr(reference: list[npt.NDArray[Any]], measured: list[npt.NDArray[Any]]) -> float:
    """Signal to noise in dB over all outputs."""
    signal = sum(float((r.astype(np.float64) ** 2).sum()) for r in reference)
    noise = sum(float(((r.astype(np.float64) - m) ** 2).sum()) for r, m in zip(reference, measured, strict=True))
    return 10 * float(np.log10(signal / max(noise, 1e-30)))


def _raw(detail: dict[str, Any], real: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if detail["dtype"] == np.float32:
        return real
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(real / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _real(detail: dict[str, Any], raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    scale, zero_point = detail["quantization"]
    return raw if raw.dtype == np.float32 else ((raw.astype(np.float32) - zero_point) * scale).astype(np.float32)
