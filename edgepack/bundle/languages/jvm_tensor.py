"""A tensor as the Kotlin and Java templates see it."""

from dataclasses import dataclass
from typing import ClassVar

from edgepack.bundle import names
from edgepack.bundle.views import StepView, TensorView
from edgepack.errors import BundleError

#: Kotlin array type of a tensor whose values stand for themselves.
_ARRAYS = {
    "FLOAT32": "FloatArray",
    "INT8": "ByteArray",
    "UINT8": "ByteArray",
    "INT16": "ShortArray",
    "INT32": "IntArray",
    "INT64": "LongArray",
    "BOOL": "BooleanArray",
}
_QUANTIZED = frozenset({"INT8", "UINT8", "INT16"})


@dataclass(frozen=True)
class StepCall:
    """A call of the loader's `Tail` that performs a postprocessing step.

    Attributes:
        function: Name of the function.
        arguments: Arguments after the values.
    """

    function: str
    arguments: str


@dataclass(frozen=True)
class JvmTensor(TensorView):
    """A tensor as the Kotlin and Java templates see it.

    Attributes:
        field: Identifier that is legal in both languages.
    """

    field: str

    #: What the language writes before a constructor.
    new: ClassVar[str] = ""

    @property
    def type(self) -> str:
        """Array type of the loader's parameter or property in the language.

        Raises:
            BundleError: The Android runtime's Java classes have no such type.
        """
        return self.array

    @property
    def array(self) -> str:
        """Kotlin name of the array type, which also names the loader's read functions.

        Raises:
            BundleError: The Android runtime's Java classes have no such type.
        """
        if self.tail:
            return _ARRAYS[self.public.dtype]
        if self.quantized and self.dtype in _QUANTIZED:
            return "FloatArray"
        if not self.quantized and self.dtype in _ARRAYS:
            return _ARRAYS[self.dtype]
        raise BundleError(
            f"the Android loader has no array type for '{self.name}': expected {', '.join(_ARRAYS)}, got {self.dtype}",
            hint="give the model inputs and outputs of one of these types",
        )

    @property
    def array_read(self) -> str:
        """Kotlin name of the array type that an output is read as, before its postprocessing steps."""
        return "FloatArray" if self.tail else self.array

    @property
    def calls(self) -> tuple[StepCall, ...]:
        """The calls that perform the output's postprocessing steps, in order."""
        return tuple(_call(step) for step in self.tail)

    @property
    def getter(self) -> str:
        """Name of an output's getter: the one that Kotlin generates for a property of that name."""
        return f"get{self.field[0].upper()}{self.field[1:]}"

    @property
    def declaration(self) -> str:
        """The tensor as a parameter: type and name."""
        return self.declare(self.type)

    @property
    def constructor(self) -> str:
        """Expression that describes the tensor to the loader."""
        facts = [self.string(self.name), f"TensorSpec.Type.{self.dtype}", str(self.elements)]
        if self.quantized:
            facts += [names.float32_literal(self.scale), str(self.zero_point)]
        return f"{self.new}TensorSpec({', '.join(facts)})"

    def declare(self, type_name: str) -> str:
        """Return a parameter of a type that has the tensor's name."""
        raise NotImplementedError

    @staticmethod
    def string(text: str) -> str:
        """Return a string literal of the language."""
        raise NotImplementedError


def _call(step: StepView) -> StepCall:
    function = {"float32": "softmax", "int32": "argMaxInt", "int64": "argMaxLong"}[step.numpy]
    last = names.float32_literal(step.beta) if step.op == "SOFTMAX" else str(step.inner)
    return StepCall(function, f"{step.size}, {last}")
