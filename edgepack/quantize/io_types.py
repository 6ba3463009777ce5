"""Give a full integer file the inputs and outputs a target wants: float32 or uint8 instead of the inner type.

ai-edge-quantizer can do this too, but rewires the other readers of an output wrongly (0.10), so it is done here.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.errors import QuantizationError
from edgepack.graph.edit import builtin_code, op_code, pack, unpack
from edgepack.graph.read import schema

#: Inner types and the type QUANTIZE and DEQUANTIZE turn them into at an end.
_ENDS = {("INT8", "FLOAT32"), ("INT16", "FLOAT32"), ("INT8", "UINT8")}


def set_ends(tflite: bytes, inner: str, io: str) -> bytes:
    """Return the file with `io` at every end that has the type `inner`; ends of other types stay.

    An end that only meets DEQUANTIZE (or comes only from QUANTIZE) is joined to what lies behind, so that a float op at
    the end of the graph is not quantized in passing.

    Args:
        tflite: A full integer file.
        inner: `INT8` or `INT16`.
        io: `FLOAT32`, `UINT8`, or `inner` itself, which changes nothing.

    Raises:
        QuantizationError: There is no such combination.
    """
    if io == inner:
        return tflite
    if (inner, io) not in _ENDS:
        raise QuantizationError(f"a model with {inner} inside cannot have {io} inputs and outputs")
    work = _Work(unpack(tflite), getattr(schema().TensorType, inner), getattr(schema().TensorType, io))
    graph = work.model.subgraphs[0]
    graph.inputs = np.array([work.input(int(index)) for index in graph.inputs], np.int32)
    done: dict[int, int] = {}
    for index in (int(i) for i in graph.outputs):
        if index not in done:
            done[index] = work.output(index)
    graph.outputs = np.array([done[int(i)] for i in graph.outputs], np.int32)
    graph.operators = [*work.first, *(op for op in graph.operators if id(op) not in work.dropped), *work.last]
    return pack(work.model)


@dataclass
class _Work:
    """One file under edit; ops to add at the front and at the back, and ops to leave out."""

    model: Any
    inner: int
    io: int
    first: list[Any] = field(default_factory=list)
    last: list[Any] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    @property
    def is_float(self) -> bool:
        return bool(self.io == schema().TensorType.FLOAT32)

    def input(self, index: int) -> int:
        """Return the tensor that becomes the graph's input in place of `index`."""
        if self.graph.tensors[index].type != self.inner:
            return index
        readers = self.readers(index)
        wide = [op for op in readers if self.name(op) == "DEQUANTIZE"]
        outside = index in self.graph.outputs
        if self.is_float and len(wide) == 1:
            # The float value is there already: it becomes the input, and the integer one is made from it if wanted.
            self.dropped.add(id(wide[0]))
            end = int(wide[0].outputs[0])
            if len(readers) > 1 or outside:
                self.first.append(self.op("QUANTIZE", end, index))
            return end
        if not self.is_float and len(wide) == len(readers) and not outside:
            self.shift(self.graph.tensors[index])
            return index
        end = self.tensor(index)
        self.first.append(self.op("QUANTIZE", end, index))
        return end

    def output(self, index: int) -> int:
        """Return the tensor that becomes the graph's output in place of `index`."""
        if self.graph.tensors[index].type != self.inner:
            return index
        made = next((op for op in self.graph.operators if index in op.outputs), None)
        if made is not None and self.name(made) == "QUANTIZE" and not self.readers(index):
            source = int(made.inputs[0])
            if not self.is_float:
                self.shift(self.graph.tensors[index])
                return index
            if self.graph.tensors[source].type == self.io:
                self.dropped.add(id(made))
                return source
        end = self.tensor(index)
        self.last.append(self.op("DEQUANTIZE" if self.is_float else "QUANTIZE", index, end))
        return end

    def readers(self, index: int) -> list[Any]:
        return [op for op in self.graph.operators if index in op.inputs and id(op) not in self.dropped]

    def name(self, op: Any) -> str:
        code = self.model.operatorCodes[op.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return next((n for n in ("QUANTIZE", "DEQUANTIZE") if builtin_code(n) == number), "")

    def tensor(self, like: int) -> int:
        inner = self.graph.tensors[like]
        end = schema().TensorT()
        end.name = (inner.name or b"") + b"_end"
        end.shape, end.shapeSignature, end.hasRank = inner.shape, inner.shapeSignature, inner.hasRank
        end.type = inner.type
        if self.is_float:
            end.type = self.io
        else:
            end.quantization = inner.quantization
            self.shift(end)
        self.graph.tensors.append(end)
        return len(self.graph.tensors) - 1

    def shift(self, tensor: Any) -> None:
        """Make an int8 tensor uint8: the same scale, everything 128 higher."""
        old = tensor.quantization
        tensor.type = self.io
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale = np.array(old.scale, np.float32)
        tensor.quantization.zeroPoint = np.array(old.zeroPoint, np.int64) + 128

    def op(self, name: str, source: int, result: int) -> Any:
        op = schema().OperatorT()
        op.opcodeIndex = op_code(self.model, name)
        op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
        return op
