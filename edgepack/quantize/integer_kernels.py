"""Convert the ops that ai-edge-quantizer leaves in float to TFLite's integer kernels.

ai-edge-quantizer 0.10 puts DEQUANTIZE in front of an op that it does not know and QUANTIZE behind it. Where the runtime
has an int8 kernel for the op, these conversions are removed and the op computes on the integers around it. Scales
follow `scale_constraints`: an op that only copies or selects values keeps its input's scale.

Source of the kernels' types: tensorflow/lite/kernels/ of github.com/tensorflow/tensorflow; the tests run each op.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph.edit import add_buffer, code_number, op_code, pack, unpack
from edgepack.graph.read import enum_names, schema
from edgepack.graph.unused import drop_unused
from edgepack.quantize.op_support import FINISHED_INT8
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_constraints import value_inputs

#: Steps between the smallest and the largest int8 value.
_STEPS = 255

#: Largest int8 value of constants with a symmetric scale, such as the slopes of PRELU.
_SYMMETRIC_MAX = 127


def convert_left_ops(tflite: bytes, ranges: Mapping[str, Range], keep: Collection[str] = ()) -> bytes:
    """Return the file with every op of `FINISHED_INT8` in int8 that has float activations.

    Results that nothing reads, such as a part of a SPLIT, become int8 like the op's other results.

    Args:
        tflite: A file of ai-edge-quantizer with int8 activations; tensors have the names of the float model.
        ranges: (minimum, maximum) of the float model's activations by name.
        keep: Names of the first output of ops that stay float.
    """
    editor = _Editor(unpack(tflite), ranges)
    changed = False
    for op in list(editor.graph.operators):
        if editor.name(op) in FINISHED_INT8 and editor.text(op.outputs[0]) not in keep and editor.can_convert(op):
            editor.convert(op)
            changed = True
        else:
            changed |= editor.type_unread(op)
    return pack(editor.finish()) if changed else tflite


@dataclass
class _Editor:
    """A file, and the integer tensors that take the place of float ones."""

    model: Any
    ranges: Mapping[str, Range]
    twins: dict[int, int] = field(default_factory=dict)
    copies: dict[tuple[int, float, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = enum_names("BuiltinOperator")
        self._names = [names.get(code_number(code), "") for code in self.model.operatorCodes]
        self._types = schema().TensorType

    @property
    def graph(self) -> Any:
        return self.model.subgraphs[0]

    def name(self, op: Any) -> str:
        name: str = self._names[int(op.opcodeIndex)]
        return name

    def text(self, index: int) -> str:
        name: bytes = self.graph.tensors[index].name or b""
        return name.decode()

    def is_float(self, index: int) -> bool:
        return index >= 0 and bool(self.graph.tensors[index].type == self._types.FLOAT32)

    def values(self, index: int) -> npt.NDArray[np.float32] | None:
        """Return the values of a float constant, None for an activation."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data if tensor.buffer else None
        if data is None or not len(data):
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).reshape(tensor.shape)

    def producer(self, index: int) -> Any:
        return next((op for op in self.graph.operators if index in op.outputs), None)

    def can_convert(self, op: Any) -> bool:
        """Return whether an op computes in float, and whether all its float activations have a range or a twin."""
        tensors = [int(i) for i in (*op.inputs, *op.outputs) if self.is_float(int(i))]
        activations = [i for i in tensors if self.values(i) is None]
        return bool(activations) and all(self._known(index) for index in activations)

    def _known(self, index: int) -> bool:
        if index in self.twins or self.text(index) in self.ranges:
            return True
        producer = self.producer(index)
        return producer is not None and self.name(producer) == "DEQUANTIZE"

    def convert(self, op: Any) -> None:
        """Let an op read and write integers; QUANTIZE and DEQUANTIZE around it are removed in `finish`."""
        name = self.name(op)
        outputs = [int(i) for i in op.outputs]
        tied = value_inputs(name, len(op.inputs))
        result = self.twin(outputs[0]) if self.is_float(outputs[0]) else -1
        inputs = []
        for position, index in enumerate(int(i) for i in op.inputs):
            if not self.is_float(index):
                inputs.append(index)
                continue
            values = self.values(index)
            like = result if position in tied and result >= 0 else -1
            if values is not None:
                inputs.append(self.constant(index, values, like))
            else:
                inputs.append(self.rescaled(self.twin(index), like, op))
        op.inputs = np.array(inputs, np.int32)
        twins = [self.twin(i) if self.is_float(i) else i for i in outputs]
        for index, twin in zip(outputs, twins, strict=True):
            if index != twin and (self._readers(index) or index in self.graph.outputs):
                # Whoever still reads the float values, and `finish` removes the conversion when nobody does.
                self._after(op, self.op("DEQUANTIZE", twin, index))
        op.outputs = np.array(twins, np.int32)

    def type_unread(self, op: Any) -> bool:
        """Give results that nothing reads the type and scale of an int8 result beside them; return whether any is."""
        tensors = [self.graph.tensors[int(i)] for i in op.outputs]
        integer = next((tensor for tensor in tensors if tensor.type == self._types.INT8), None)
        unread = [int(i) for i in op.outputs if self.is_float(int(i)) and i not in self.graph.outputs]
        unread = [index for index in unread if not self._readers(index)]
        if integer is None or not unread:
            return False
        for index in unread:
            tensor = self.graph.tensors[index]
            tensor.type, tensor.quantization = integer.type, integer.quantization
        return True

    def twin(self, index: int) -> int:
        """Return the integer tensor with the values of a float activation."""
        if index not in self.twins:
            self.twins[index] = self._find_twin(index)
        return self.twins[index]

    def _find_twin(self, index: int) -> int:
        producer = self.producer(index)
        if producer is not None and self.name(producer) == "DEQUANTIZE":
            return int(producer.inputs[0])
        conversions = [op for op in self._readers(index) if self.name(op) == "QUANTIZE"]
        if conversions:
            first = int(conversions[0].outputs[0])
            for op in conversions:
                self.graph.operators.remove(op)
            for op in conversions[1:]:
                self._replace(int(op.outputs[0]), first)
            twin = first
        else:
            low, high = self.ranges[self.text(index)]
            scale = (high - low) / _STEPS or 1.0
            twin = self.tensor(index, scale, int(np.clip(round(-128 - low / scale), -128, 127)))
        if producer is None or not self._will_write(producer):
            self._after(producer, self.op("QUANTIZE", index, twin))
        return twin

    def _will_write(self, producer: Any) -> bool:
        return self.name(producer) in FINISHED_INT8 and self.can_convert(producer)

    def rescaled(self, index: int, like: int, reader: Any) -> int:
        """Return integers with the scale of another tensor, requantized where they have another one; -1 is any."""
        if like < 0 or self._scale(index) == self._scale(like):
            return index
        scale, zero_point = self._scale(like)
        key = (index, scale, zero_point)
        if key not in self.copies:
            self.copies[key] = self.tensor(index, scale, zero_point)
            self._before(reader, self.op("QUANTIZE", index, self.copies[key]))
        return self.copies[key]

    def constant(self, index: int, values: npt.NDArray[np.float32], like: int) -> int:
        """Return a float constant as int8, in the scale of `like`, else in a symmetric one of its own."""
        if like >= 0:
            scale, zero_point = self._scale(like)
        else:
            scale, zero_point = float(np.abs(values).max(initial=0.0)) / _SYMMETRIC_MAX or 1.0, 0
        integers = np.clip(np.rint(values.astype(np.float64) / scale) + zero_point, -128, 127).astype(np.int8)
        new = self.tensor(index, scale, zero_point)
        self.graph.tensors[new].buffer = add_buffer(self.model, integers)
        return new

    def tensor(self, like: int, scale: float, zero_point: int) -> int:
        """Add an int8 tensor with the shape of another one."""
        old, new = self.graph.tensors[like], schema().TensorT()
        new.name = (old.name or b"") + b"_integer"
        new.shape, new.shapeSignature, new.hasRank = old.shape, old.shapeSignature, old.hasRank
        new.type, new.buffer = self._types.INT8, 0
        new.quantization = schema().QuantizationParametersT()
        new.quantization.scale = np.array([scale], np.float32)
        new.quantization.zeroPoint = np.array([zero_point], np.int64)
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def op(self, name: str, source: int, result: int) -> Any:
        op = schema().OperatorT()
        op.opcodeIndex = op_code(self.model, name)
        if op.opcodeIndex == len(self._names):
            self._names.append(name)
        op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
        return op

    def finish(self) -> Any:
        """Return the model without conversions that nothing reads."""
        graph = self.graph
        while True:
            read = {int(i) for op in graph.operators for i in op.inputs} | {int(i) for i in graph.outputs}
            dead = [
                op
                for op in graph.operators
                if self.name(op) in ("QUANTIZE", "DEQUANTIZE") and int(op.outputs[0]) not in read
            ]
            if not dead:
                # `restore_interface` writes the signature of the main graph anew.
                self.model.signatureDefs = [s for s in self.model.signatureDefs or [] if s.subgraphIndex != 0]
                drop_unused(self.model)
                return self.model
            graph.operators = [op for op in graph.operators if op not in dead]

    def _scale(self, index: int) -> tuple[float, int]:
        quantization = self.graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def _readers(self, index: int) -> list[Any]:
        return [op for op in self.graph.operators if index in op.inputs]

    def _replace(self, old: int, new: int) -> None:
        for op in self._readers(old):
            op.inputs = np.array([new if int(i) == old else int(i) for i in op.inputs], np.int32)
        self.graph.outputs = np.array([new if int(i) == old else int(i) for i in self.graph.outputs], np.int32)

    def _after(self, op: Any, new: Any) -> None:
        place = 0 if op is None else self.graph.operators.index(op) + 1
        self.graph.operators.insert(place, new)

    def _before(self, op: Any, new: Any) -> None:
        self.graph.operators.insert(self.graph.operators.index(op), new)
