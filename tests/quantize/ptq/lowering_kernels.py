"""Graphs of ops, and of uses of ops, that TFLiteConverter does not write, for the tests of lowering."""

from collections.abc import Callable
from typing import Any

import builders
import numpy as np

from edgepack.graph.read import schema

_EXCEPTIONS = {"l2pool2d": "Pool2DOptions", "unidirectionalsequencernn": "SequenceRNNOptions"}
_VERSIONS = {"BROADCAST_TO": 2}
ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "TANH": 4}


class Kernels(builders.Net):
    """A graph with any builtin op; every op's result is an output of the graph."""

    def __init__(self) -> None:
        super().__init__(5)
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def input(self, *shape: int, dtype: str = "FLOAT32") -> int:
        self.inputs.append(self.tensor(f"input_{len(self.inputs)}", shape, dtype=dtype))
        return self.inputs[-1]

    def values(self, *shape: int) -> int:
        return self.constant("", self.random.normal(0, 0.5, shape))

    def ints(self, *values: int) -> int:
        return self.constant("", np.array(values, np.int32), "INT32")

    def variable(self, *shape: int) -> int:
        index = self.tensor("state", shape)
        self._graph.tensors[index].isVariable = True
        return index

    def add(
        self, name: str, inputs: list[int], *shapes: tuple[int, ...], dtype: str = "FLOAT32", **options: Any
    ) -> int:
        outputs = [self.tensor(name, shape, dtype=dtype) for shape in shapes]
        self.op(name, inputs, outputs)
        operator = self._graph.operators[-1]
        plain = name.replace("_", "").lower()
        tables = {key.lower(): key for key in vars(schema().BuiltinOptions)}
        reducer = "ReducerOptions" if plain in {"mean", "sum"} or plain.startswith("reduce") else None
        table = reducer or _EXCEPTIONS.get(plain) or tables.get(f"{plain}options")
        assert table or not options
        if table:
            operator.builtinOptionsType = getattr(schema().BuiltinOptions, table)
            operator.builtinOptions = getattr(schema(), f"{table}T")()
            for key, value in options.items():
                assert hasattr(operator.builtinOptions, key), key
                setattr(operator.builtinOptions, key, value)
        # The first version of the kernel that the runtime still has.
        self._model.operatorCodes[operator.opcodeIndex].version = _VERSIONS.get(name, 1)
        self.outputs += outputs
        return outputs[0]

    def bytes(self) -> bytes:
        names = ([f"in{n}" for n in range(len(self.inputs))], [f"out{n}" for n in range(len(self.outputs))])
        return self.build(self.inputs, self.outputs, names)


def activations(net: Kernels) -> None:
    x, y = net.input(1, 4, 3), net.input(4, 3)
    net.add("GELU", [x], (1, 4, 3), approximate=False)
    net.add("PRELU", [x, net.values(3)], (1, 4, 3))
    net.add("PRELU", [x, net.values(4, 1)], (1, 4, 3))
    net.add("RELU_0_TO_1", [x], (1, 4, 3))
    net.add("FAKE_QUANT", [x], (1, 4, 3), min=-1.0, max=1.5, numBits=8)
    net.add("LEAKY_RELU", [x], (1, 4, 3), alpha=1.7)
    net.add("SOFTMAX", [x], (1, 4, 3), beta=0.3)
    net.add("L2_NORMALIZATION", [x], (1, 4, 3))
    for name, code in ACTIVATIONS.items():
        if name != "TANH":
            net.add("ADD", [x, y], (1, 4, 3), fusedActivationFunction=code)
            net.add("DIV", [y, x], (1, 4, 3), fusedActivationFunction=code)
    net.add("BUCKETIZE", [x], (1, 4, 3), dtype="INT32", boundaries=[-0.5, 0.0, 1.0])
    net.add("ZEROS_LIKE", [x], (1, 4, 3))
    chosen = net.add("GREATER", [y, net.values(3)], (4, 3), dtype="BOOL")
    net.add("SELECT_V2", [chosen, x, y], (1, 4, 3))
    net.add("SELECT", [chosen, y, net.add("NEG", [y], (4, 3))], (4, 3))
    rows = net.add("REDUCE_ANY", [chosen, net.ints(1)], (4,), dtype="BOOL")
    net.add("SELECT", [rows, y, net.add("EXP", [y], (4, 3))], (4, 3))
    net.add("LOGICAL_NOT", [chosen], (4, 3), dtype="BOOL")


def dense(net: Kernels) -> None:
    x = net.input(2, 3, 4)
    weights, bias = net.values(5, 4), net.values(5)
    for name, code in ACTIVATIONS.items():
        if name != "TANH":
            options = {"fusedActivationFunction": code}
            net.add("FULLY_CONNECTED", [x, weights, bias], (2, 3, 5), keepNumDims=True, **options)
            net.add("FULLY_CONNECTED", [x, weights, -1], (6, 5), **options)
    net.add("FULLY_CONNECTED", [x, net.values(5, 12), bias], (2, 5))
    made = net.add("MUL", [weights, net.values(1)], (5, 4))
    net.add("FULLY_CONNECTED", [x, made, bias], (6, 5))
    moved = net.add("SLICE", [x, net.ints(0, 1, 0), net.ints(1, 2, 4)], (1, 2, 4))
    square = net.add("RESHAPE", [moved, net.ints(2, 4)], (2, 4))
    net.add("FULLY_CONNECTED", [x, square, -1], (6, 2))
    net.add("BATCH_MATMUL", [x, x], (2, 4, 4), adjX=True)
    net.add("BATCH_MATMUL", [x, net.values(1, 4, 6)], (2, 3, 6))
    net.add("BATCH_MATMUL", [net.values(2, 4, 3), x], (2, 4, 4))
    net.add("BATCH_MATMUL", [net.values(5, 1, 6, 4), x], (5, 2, 6, 3), adjY=True)
    image = net.add("RESHAPE", [x, net.ints(1, 2, 3, 4)], (1, 2, 3, 4))
    net.add("L2_POOL_2D", [image], (1, 1, 3, 4), filterHeight=2, filterWidth=1, strideH=1, strideW=1, padding=1)
    kernel = net.add("RESHAPE", [net.add("EXP", [x], (2, 3, 4)), net.ints(3, 1, 2, 4)], (3, 1, 2, 4))
    net.add("CONV_2D", [image, kernel, net.values(3)], (1, 2, 3, 3), strideW=1, strideH=1)


def shapes(net: Kernels) -> None:
    x = net.input(1, 4, 3)
    size = net.add("SHAPE", [x], (3,), dtype="INT32", outType=2)
    net.add("RANK", [x], (), dtype="INT32")
    flat = net.add("REDUCE_PROD", [size, net.ints(0)], (1,), dtype="INT32", keepDims=True)
    net.add("RESHAPE", [x, flat], (12,))
    net.add("RESHAPE", [x], (2, 6), newShape=[-1, 6])
    wide = net.add("BROADCAST_ARGS", [size, net.ints(5, 1, 1, 1)], (4,), dtype="INT32")
    net.add("BROADCAST_TO", [x, wide], (5, 1, 4, 3))
    height = net.add(
        "STRIDED_SLICE", [size, net.ints(1), net.ints(2), net.ints(1)], (), dtype="INT32", shrinkAxisMask=1
    )
    zero, one = (net.constant("", np.array(v, np.int32), "INT32") for v in (0, 1))
    steps = net.add("RANGE", [zero, height, one], (4,), dtype="INT32")
    net.add("GATHER", [x, steps], (1, 4, 3), axis=1)
    net.add("FILL", [flat, net.values()], (12,))
    net.add("SQUEEZE", [x], (4, 3), squeezeDims=[0])
    net.add("SQUEEZE", [x], (4, 3))
    net.add("SQUEEZE", [x], (4, 3), squeezeDims=[-3])
    net.add("EXPAND_DIMS", [x, net.ints(-2)], (1, 4, 1, 3))
    net.add("PACK", [x, x], (1, 4, 3, 2), valuesCount=2, axis=-1)
    net.add("UNPACK", [x], *[(1, 4)] * 3, num=3, axis=-1)
    net.add("SPLIT", [net.ints(-1), x], *[(1, 4, 1)] * 3, numSplits=3)
    net.add("SPLIT_V", [x, net.ints(1, -1), net.ints(1)], (1, 1, 3), (1, 3, 3), numSplits=2)
    net.add("SPLIT_V", [x, net.ints(1, 3), net.ints(-2)], (1, 1, 3), (1, 3, 3), numSplits=2)
    net.add("CONCATENATION", [x, x], (1, 4, 6), axis=-1)
    net.add("PADV2", [x, net.constant("", [[1, 0], [0, 2], [0, 0]], "INT32"), net.values()], (2, 6, 3))
    net.add("MEAN", [x, net.ints(-1, 1)], (1,))
    net.add("SUM", [x, net.ints(0, 1, 2)], ())
    net.add("ONE_HOT", [net.add("ARG_MAX", [x, net.ints(-1)], (1, 4), dtype="INT32", outputType=2),
                        net.constant("", np.array(5, np.int32), "INT32"), net.values(), net.values()],
            (1, 5, 4), axis=1)  # fmt: skip
    net.add("TRANSPOSE", [x, net.ints(1, 2, 0)], (4, 3, 1))
    net.add("CUMSUM", [x, net.constant("", np.array(-2, np.int32), "INT32")], (1, 4, 3), reverse=True)


def positions(net: Kernels) -> None:
    x, numbers = net.input(6, 2), net.input(3, dtype="INT32")
    at = net.add("FLOOR_MOD", [numbers, net.ints(4)], (3,), dtype="INT32")
    net.add("EMBEDDING_LOOKUP", [at, x], (3, 2))
    net.add("EMBEDDING_LOOKUP", [at, net.values(5, 2)], (3, 2))
    net.add("DYNAMIC_UPDATE_SLICE", [x, net.values(2, 1), net.ints(3, 1)], (6, 2))
    net.add("DYNAMIC_UPDATE_SLICE", [net.values(9, 2), x, net.ints(7, 0)], (9, 2))
    begin = net.add("SLICE", [at, net.ints(0), net.ints(2)], (2,), dtype="INT32")
    net.add("DYNAMIC_UPDATE_SLICE", [x, net.values(2, 2), begin], (6, 2))
    net.add("SLICE", [x, net.add("MINIMUM", [begin, net.ints(4, 0)], (2,), dtype="INT32"), net.ints(2, 2)], (2, 2))
    for name in ("SUM", "MAX", "MIN", "PROD"):
        segments = net.constant("", np.array(4, np.int32), "INT32")
        rows = net.add("GATHER", [x, at], (3, 2))
        net.add(f"UNSORTED_SEGMENT_{name}", [rows, net.ints(2, 0, 2), segments], (4, 2))
        net.add(f"UNSORTED_SEGMENT_{name}", [rows, at, segments], (4, 2))
    net.add("SEGMENT_SUM", [x, net.ints(0, 0, 1, 1, 1, 2)], (3, 2))
    zero = net.constant("", np.array(0.5))
    line = net.add("GATHER", [x, net.constant("", np.array(0, np.int32), "INT32")], (2,))
    net.add("SPARSE_TO_DENSE", [net.constant("", [[1, 0], [2, 3]], "INT32"), net.ints(4, 5), line, zero], (4, 5))
    stack = net.add("RESHAPE", [at, net.ints(3, 1)], (3, 1), dtype="INT32")
    net.add("SCATTER_ND", [stack, net.add("GATHER", [x, at], (3, 2)), net.ints(5, 2)], (5, 2))
    net.add("GATHER_ND", [x, stack], (3, 2))
    net.add("REVERSE_SEQUENCE", [net.add("GATHER", [x, at], (3, 2)), net.add("MINIMUM", [at, net.ints(2)], (3,),
            dtype="INT32")], (3, 2), seqDim=1, batchDim=0)  # fmt: skip
    for begin_mask, end_mask, shrink, new in ((1, 2, 0, 0), (0, 1, 2, 0), (2, 0, 1, 0), (3, 3, 0, 4), (0, 0, 0, 1)):
        begin, end, strides = [1, 1, 0], [5, 2, 1], [2, 1, 1]
        count = 3 if new else 2
        full = np.zeros((6, 2))[tuple(
            np.newaxis if new >> a & 1 else
            begin[a] if shrink >> a & 1 else
            slice(None if begin_mask >> a & 1 else begin[a], None if end_mask >> a & 1 else end[a], strides[a])
            for a in range(count))]  # fmt: skip
        net.add(
            "STRIDED_SLICE", [x, *(net.ints(*v[:count]) for v in (begin, end, strides))], full.shape,
            beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=shrink, newAxisMask=new,
        )  # fmt: skip


def recurrent(net: Kernels) -> None:
    x = net.input(2, 5, 3)
    tanh = ACTIVATIONS["TANH"]

    def cell(units: int, size: int, *, coupled: bool, peephole: bool, outputs: int) -> list[int]:
        gates = [-1 if coupled and gate == 0 else net.values(units, size) for gate in range(4)]
        again = [-1 if coupled and gate == 0 else net.values(units, outputs) for gate in range(4)]
        holes = [net.values(units) if peephole and not (coupled and g == 0) else -1 for g in range(3)]
        biases = [-1 if coupled and gate == 0 else net.values(units) for gate in range(4)]
        projection = [net.values(outputs, units), net.values(outputs)] if outputs != units else [-1, -1]
        return [*gates, *again, *holes, *biases, *projection]

    for coupled, peephole, outputs, norm, major in (
        (False, False, 4, False, False), (True, True, 4, False, True), (False, True, 3, True, False),
        (True, False, 2, False, False),
    ):  # fmt: skip
        rows, time = (5, 2) if major else (2, 5)
        state = [net.variable(rows, outputs), net.variable(rows, 4)]
        norms = [net.values(4) for _ in range(4)] if norm else [-1] * 4
        net.add(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            [x, *cell(4, 3, coupled=coupled, peephole=peephole, outputs=outputs), *state, *norms],
            (time, rows, outputs) if major else (rows, time, outputs),
            fusedActivationFunction=tanh, timeMajor=major, cellClip=0.8 if coupled else 0.0, projClip=0.3,
        )  # fmt: skip
    parts = [cell(4, 3, coupled=False, peephole=False, outputs=4) for _ in range(2)]
    # With merged outputs the kernel is right for one row only (ai-edge-litert 2.3).
    row = net.add("SLICE", [x, net.ints(0, 0, 0), net.ints(1, 5, 3)], (1, 5, 3))
    for merge, source, results in ((True, row, [(1, 5, 8)]), (False, x, [(2, 5, 4)] * 2)):
        states = [net.variable(1 if merge else 2, 4) for _ in range(4)]
        net.add("BIDIRECTIONAL_SEQUENCE_LSTM", [source, *parts[0], *parts[1], *states, *[-1] * 9], *results,
                fusedActivationFunction=tanh, mergeOutputs=merge, timeMajor=False)  # fmt: skip
    for major, shape in ((False, (2, 5, 4)), (True, (2, 5, 4))):
        weights = [net.values(4, 3), net.values(4, 4), net.values(4)]
        net.add("UNIDIRECTIONAL_SEQUENCE_RNN", [x, *weights, net.variable(5 if major else 2, 4)], shape,
                fusedActivationFunction=tanh, timeMajor=major)  # fmt: skip
    both = [[net.values(4, 3), net.values(4, 4), net.values(4), net.variable(2, 4)] for _ in range(2)]
    net.add("BIDIRECTIONAL_SEQUENCE_RNN", [x, *both[0], *both[1], *[-1] * 3], (2, 5, 8), timeMajor=False,
            mergeOutputs=True, fusedActivationFunction=ACTIVATIONS["RELU6"])  # fmt: skip
    first = net.add("RESHAPE", [net.add("SLICE", [x, net.ints(0, 0, 0), net.ints(2, 1, 3)], (2, 1, 3)),
                                net.ints(2, 3)], (2, 3))  # fmt: skip
    net.add("RNN", [first, net.values(4, 3), net.values(4, 4), net.values(4), net.variable(2, 4)], (2, 4),
            fusedActivationFunction=tanh)  # fmt: skip
    net.add("SVDF", [first, net.values(6, 3), net.values(6, 4), net.values(3), net.variable(2, 24)], (2, 3), rank=2,
            fusedActivationFunction=ACTIVATIONS["RELU"])  # fmt: skip
    # The kernel writes the new state over its inputs, so they are none of the results that are compared.
    state = [net.tensor("", (2, 4)) for _ in range(2)]
    for index in state:
        net.op("FULLY_CONNECTED", [first, net.values(4, 3), net.values(4)], [index])
    net.add("LSTM", [first, state[0], net.values(16, 7), net.values(16), state[1]],
            (2, 4), (2, 4), (2, 7), (2, 16), kernelType=1, fusedActivationFunction=tanh)  # fmt: skip


KERNELS: dict[str, Callable[[Kernels], None]] = {
    function.__name__: function for function in (activations, dense, shapes, positions, recurrent)
}


def kernels(name: str) -> bytes:
    """Return the .tflite of a group."""
    net = Kernels()
    KERNELS[name](net)
    return net.bytes()
