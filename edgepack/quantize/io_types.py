"""Change the data type of a full integer file's inputs and outputs: float32 or uint8 instead of the inner type.

ai-edge-quantizer can do this too, but 0.10 reconnects the other consumers of an output wrongly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.errors import QuantizationError
from edgepack.graph.edit import builtin_code, code_number, op_code, pack, unpack
from edgepack.graph.op_layout import TYPE_CONVERSIONS
from edgepack.graph.read import schema
from edgepack.quantize.ranges import Range

#: Supported (inner type, type of inputs and outputs).
_CONVERSIONS = {("INT8", "FLOAT32"), ("INT16", "FLOAT32"), ("INT8", "UINT8")}


def set_io_types(tflite: bytes, inner: str, io: str) -> bytes:
    """Return the file with inputs and outputs of type `io` in place of `inner`; those of other types stay.

    An input that is only read by DEQUANTIZE, or an output that QUANTIZE writes, is connected to the float tensor on the
    other side, so that the result of a float op at the border of the graph is not rounded to integers.

    Args:
        tflite: A full integer file.
        inner: `INT8` or `INT16`.
        io: `FLOAT32`, `UINT8`, or `inner` itself, which changes nothing.

    Raises:
        QuantizationError: The combination is not supported.
    """
    if io == inner:
        return tflite
    if (inner, io) not in _CONVERSIONS:
        raise QuantizationError(f"a model with {inner} activations cannot have {io} inputs and outputs")
    editor = _Editor(unpack(tflite), getattr(schema().TensorType, inner), getattr(schema().TensorType, io))
    graph = editor.model.subgraphs[0]
    graph.inputs = np.array([editor.input(int(index)) for index in graph.inputs], np.int32)
    outputs: dict[int, int] = {}
    for index in (int(i) for i in graph.outputs):
        if index not in outputs:
            outputs[index] = editor.output(index)
    graph.outputs = np.array([outputs[int(i)] for i in graph.outputs], np.int32)
    graph.operators = [*editor.first, *(op for op in graph.operators if id(op) not in editor.dropped), *editor.last]
    return pack(editor.model)


def quantize_ends(tflite: bytes, inputs: Sequence[Range | None], outputs: Sequence[Range | None], io: str) -> bytes:
    """Return the file with integers at the inputs and outputs that a quantizer left in float.

    Where a float tensor at an end is only a conversion of an integer one, that tensor becomes the end; else QUANTIZE or
    DEQUANTIZE with the scale of the range is added.

    Args:
        tflite: A file of a quantizer.
        inputs: (minimum, maximum) of each input; None leaves it as it is.
        outputs: The same for the outputs.
        io: `INT8`, `UINT8` or `INT16`.
    """
    model = unpack(tflite)
    editor = _Editor(model, schema().TensorType.FLOAT32, getattr(schema().TensorType, io))
    graph = model.subgraphs[0]
    ends = [int(index) for index in (*graph.inputs, *graph.outputs)]
    if not any(
        bounds is not None and editor.is_float_end(index)
        for index, bounds in zip(ends, (*inputs, *outputs), strict=True)
    ):
        return tflite
    new_inputs = [
        index if bounds is None else editor.integer_input(index, bounds)
        for index, bounds in zip(ends[: len(inputs)], inputs, strict=True)
    ]
    new_outputs = [
        index if bounds is None else editor.integer_output(index, bounds)
        for index, bounds in zip(ends[len(inputs) :], outputs, strict=True)
    ]
    graph.inputs, graph.outputs = np.array(new_inputs, np.int32), np.array(new_outputs, np.int32)
    operators = [*editor.first, *(op for op in graph.operators if id(op) not in editor.dropped), *editor.last]
    graph.operators = operators
    return pack(model)


@dataclass
class _Editor:
    """A file with the ops to add at its beginning and end, and those to leave out."""

    model: Any
    inner: int
    io: int
    first: list[Any] = field(default_factory=list)
    last: list[Any] = field(default_factory=list)
    dropped: set[int] = field(default_factory=set)
    ends: dict[int, int] = field(default_factory=dict)

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    @property
    def is_float(self) -> bool:
        return bool(self.io == schema().TensorType.FLOAT32)

    def input(self, index: int) -> int:
        """Return the tensor to use as the graph's input in place of `index`."""
        if self.graph.tensors[index].type != self.inner:
            return index
        consumers = self.consumers(index)
        dequantize = [op for op in consumers if self.name(op) == "DEQUANTIZE"]
        is_output = index in self.graph.outputs
        if self.is_float and len(dequantize) == 1:
            # The graph has a float copy already: it becomes the input, and the integer tensor is computed from it where
            # something else reads it.
            self.dropped.add(id(dequantize[0]))
            outer = int(dequantize[0].outputs[0])
            if len(consumers) > 1 or is_output:
                self.first.append(self.op("QUANTIZE", outer, index))
            return outer
        if not self.is_float and len(dequantize) == len(consumers) and not is_output:
            self.shift(self.graph.tensors[index])
            return index
        outer = self.tensor(index)
        self.first.append(self.op("QUANTIZE", outer, index))
        return outer

    def output(self, index: int) -> int:
        """Return the tensor to use as the graph's output in place of `index`."""
        if self.graph.tensors[index].type != self.inner:
            return index
        producer = next((op for op in self.graph.operators if index in op.outputs), None)
        if producer is not None and self.name(producer) == "QUANTIZE" and not self.consumers(index):
            source = int(producer.inputs[0])
            if not self.is_float:
                self.shift(self.graph.tensors[index])
                return index
            if self.graph.tensors[source].type == self.io:
                self.dropped.add(id(producer))
                return source
        outer = self.tensor(index)
        self.last.append(self.op("DEQUANTIZE" if self.is_float else "QUANTIZE", index, outer))
        return outer

    def is_float_end(self, index: int) -> bool:
        """Return whether an end is float32."""
        return bool(self.graph.tensors[index].type == schema().TensorType.FLOAT32)

    def integer_input(self, index: int, bounds: Range) -> int:
        """Return the integer tensor to use as the graph's input in place of a float one."""
        if not self.is_float_end(index):
            return index
        consumers = self.consumers(index)
        results = {int(op.outputs[0]) for op in consumers if self.name(op) == "QUANTIZE"}
        if len(results) == 1 == len(consumers) and index not in self.graph.outputs:
            result = results.pop()
            if self.graph.tensors[result].type == self.io:
                self.dropped.add(id(consumers[0]))
                return result
        outer = self.quantized_tensor(index, bounds)
        self.first.append(self.op("DEQUANTIZE", outer, index))
        return outer

    def integer_output(self, index: int, bounds: Range) -> int:
        """Return the integer tensor to use as the graph's output in place of a float one."""
        if not self.is_float_end(index):
            return index
        producer = next((op for op in (*self.first, *self.graph.operators) if index in op.outputs), None)
        if producer is not None and self.name(producer) == "DEQUANTIZE":
            source = int(producer.inputs[0])
            if self.graph.tensors[source].type == self.io:
                if not self.consumers(index):
                    self.dropped.add(id(producer))
                return source
        if index not in self.ends:
            self.ends[index] = self.quantized_tensor(index, bounds)
            self.last.append(self.op("QUANTIZE", index, self.ends[index]))
        return self.ends[index]

    def quantized_tensor(self, like: int, bounds: Range) -> int:
        """Add an integer tensor for a range."""
        types = schema().TensorType
        low, high = bounds
        bottom, top = {types.INT8: (-128, 127), types.UINT8: (0, 255), types.INT16: (-32767, 32767)}[self.io]
        if self.io == types.INT16:
            low, high = -max(-low, high), max(-low, high)
        scale = (high - low) / (top - bottom) or 1.0
        outer = self.tensor(like)
        tensor = self.graph.tensors[outer]
        tensor.type = self.io
        tensor.quantization = schema().QuantizationParametersT()
        tensor.quantization.scale = np.array([scale], np.float32)
        tensor.quantization.zeroPoint = np.array([np.clip(round(bottom - low / scale), bottom, top)], np.int64)
        return outer

    def consumers(self, index: int) -> list[Any]:
        return [op for op in self.graph.operators if index in op.inputs and id(op) not in self.dropped]

    def name(self, op: Any) -> str:
        number = code_number(self.model.operatorCodes[op.opcodeIndex])
        return next((name for name in TYPE_CONVERSIONS if builtin_code(name) == number), "")

    def tensor(self, like: int) -> int:
        inner = self.graph.tensors[like]
        outer = schema().TensorT()
        outer.name = (inner.name or b"") + b"_end"
        outer.shape, outer.shapeSignature, outer.hasRank = inner.shape, inner.shapeSignature, inner.hasRank
        outer.type = inner.type
        if self.is_float:
            outer.type = self.io
        elif inner.quantization is not None and inner.type != schema().TensorType.FLOAT32:
            outer.quantization = inner.quantization
            self.shift(outer)
        self.graph.tensors.append(outer)
        return len(self.graph.tensors) - 1

    def shift(self, tensor: Any) -> None:
        """Convert an int8 tensor to uint8: the same scale, zero point and values 128 higher."""
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
