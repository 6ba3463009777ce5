"""What templates see: the spec's values under legal names. All logic of a bundle's text is here."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle import names
from edgepack.bundle.android import android_context
from edgepack.bundle.cpp import c_name, cpp_context
from edgepack.bundle.golden import tolerances
from edgepack.bundle.spec import BundleSpec, TensorSpec, element_count
from edgepack.errors import BundleError
from edgepack.graph import NUMPY_DTYPES

#: Kotlin array type of a tensor whose values stand for themselves.
_KOTLIN_ARRAYS = {
    "FLOAT32": "FloatArray",
    "INT8": "ByteArray",
    "UINT8": "ByteArray",
    "INT16": "ShortArray",
    "INT32": "IntArray",
    "INT64": "LongArray",
    "BOOL": "BooleanArray",
}
_KOTLIN_QUANTIZED = frozenset({"INT8", "UINT8", "INT16"})


@dataclass(frozen=True)
class StepView:
    """A step that the loader does to an output's real values.

    Attributes:
        op: `SOFTMAX` or `ARG_MAX`.
        axis: Axis it works along, counted from 0.
        beta: Factor in front of SOFTMAX's logits, a float32 value.
        numpy: NumPy dtype name of the result.
        outer: Product of the sizes before the axis.
        size: Size of the axis.
        inner: Product of the sizes after the axis.
    """

    op: str
    axis: int
    beta: float
    numpy: str
    outer: int
    size: int
    inner: int

    @property
    def function(self) -> str:
        """Name of the Kotlin and Java function that does it."""
        return {"float32": "softmax", "int32": "argMaxInt", "int64": "argMaxLong"}[self.numpy]

    @property
    def arguments(self) -> str:
        """What that function takes besides the values."""
        return f"{self.size}, {names.kotlin_float(self.beta) if self.op == 'SOFTMAX' else self.inner}"


@dataclass(frozen=True)
class PublicView:
    """What the loader takes or gives where the file has a tensor.

    Attributes:
        shape: Shape.
        dtype: TFLite type; of a quantized tensor that nothing is done to, the file's own.
        numpy: NumPy dtype name of `dtype`.
        elements: Number of values.
        real: True when the values are real numbers and `dtype` is the file's way to hold them.
    """

    shape: tuple[int, ...]
    dtype: str
    numpy: str
    elements: int
    real: bool


@dataclass(frozen=True)
class TensorView:
    """A tensor as templates see it.

    Attributes:
        index: Position among the inputs or outputs.
        name: The author's name, any text: only through an escaping filter.
        tensor_name: Name in the file, any text.
        python: Legal Python identifier.
        kotlin: Legal Kotlin identifier.
        shape: Static shape.
        dtype: TFLite type.
        numpy: NumPy dtype name.
        elements: Number of values.
        bytes: Size of the raw tensor.
        quantized: True when values stand for real numbers.
        scale: float32 value.
        zero_point: Integer.
        labels_file: Name of the labels' file in the data folder, empty without labels.
        label_count: How many labels.
        preprocessing: As in the spec.
        public: What the loader's caller sees of it.
        tail: What the loader does to an output's real values.
    """

    index: int
    name: str
    tensor_name: str
    python: str
    kotlin: str
    shape: tuple[int, ...]
    dtype: str
    numpy: str
    elements: int
    bytes: int
    quantized: bool
    scale: float
    zero_point: int
    labels_file: str
    label_count: int
    preprocessing: Mapping[str, Any] | None
    public: PublicView
    tail: tuple[StepView, ...]

    @property
    def ranked(self) -> bool:
        """True for an output with labels whose values rank them: top_k is for these."""
        return bool(self.labels_file) and not (self.tail and self.tail[-1].op == "ARG_MAX")

    @property
    def kotlin_type(self) -> str:
        """Kotlin array type of the loader's parameter or property.

        Raises:
            BundleError: The Android runtime's Java classes have no such type.
        """
        if self.tail:
            return _KOTLIN_ARRAYS[self.public.dtype]
        if self.quantized and self.dtype in _KOTLIN_QUANTIZED:
            return "FloatArray"
        if not self.quantized and self.dtype in _KOTLIN_ARRAYS:
            return _KOTLIN_ARRAYS[self.dtype]
        raise BundleError(
            f"the Android loader cannot hold '{self.name}': expected {', '.join(_KOTLIN_ARRAYS)}, got {self.dtype}",
            hint="give the model inputs and outputs of one of these types",
        )

    @property
    def kotlin_read(self) -> str:
        """Kotlin array type that the loader reads an output as, before what it does to it."""
        return "FloatArray" if self.tail else self.kotlin_type

    @property
    def java_type(self) -> str:
        """Java array type of the loader's parameter or getter.

        Raises:
            BundleError: The Android runtime's Java classes have no such type.
        """
        return f"{self.kotlin_type.removesuffix('Array').lower()}[]"

    @property
    def java_parameter(self) -> str:
        """Parameter of a Java method that takes the tensor's values."""
        return f"{self.java_type} {self.kotlin}"

    @property
    def java_spec(self) -> str:
        """Java expression that describes the tensor to the loader."""
        facts = [names.java_string(self.name), f"TensorSpec.Type.{self.dtype}", str(self.elements)]
        if self.quantized:
            facts += [names.kotlin_float(self.scale), str(self.zero_point)]
        return f"new TensorSpec({', '.join(facts)})"

    @property
    def getter(self) -> str:
        """Name of the getter of an output: Kotlin's own for a property of that name."""
        return f"get{self.kotlin[0].upper()}{self.kotlin[1:]}"


def _views(tensors: tuple[TensorSpec, ...], fallback: str, kind: str) -> list[TensorView]:
    texts = [tensor.name for tensor in tensors]
    python = names.python_identifiers(texts, fallback)
    kotlin = names.kotlin_identifiers(texts, fallback)
    views = []
    for index, tensor in enumerate(tensors):
        dtype = NUMPY_DTYPES.get(tensor.dtype)
        if dtype is None:
            raise BundleError(
                f"the {kind} '{tensor.name}' has the type {tensor.dtype}, which no loader can hold",
                hint=f"give the model {kind}s of one of {', '.join(sorted(NUMPY_DTYPES))}",
            )
        elements = element_count(tensor.shape)
        views.append(
            TensorView(
                index=index,
                name=tensor.name,
                tensor_name=tensor.tensor_name,
                python=python[index],
                kotlin=kotlin[index],
                shape=tensor.shape,
                dtype=tensor.dtype,
                numpy=dtype.name,
                elements=elements,
                bytes=elements * dtype.itemsize,
                quantized=tensor.quantized,
                scale=tensor.scale,
                zero_point=tensor.zero_point,
                labels_file=f"labels_{index}.txt" if tensor.labels else "",
                label_count=len(tensor.labels),
                preprocessing=tensor.preprocessing,
                public=_public(tensor),
                tail=_steps(tensor),
            )
        )
    return views


def _public(tensor: TensorSpec) -> PublicView:
    shape, dtype = tensor.finished_shape, tensor.finished_dtype
    return PublicView(
        shape, dtype, NUMPY_DTYPES[dtype].name, element_count(shape), tensor.quantized and not tensor.tail
    )


def _steps(tensor: TensorSpec) -> tuple[StepView, ...]:
    found = []
    shape = tensor.shape
    for step in tensor.tail:
        before, after = shape[: step.axis], shape[step.axis + 1 :]
        found.append(
            StepView(
                op=step.op,
                axis=step.axis,
                beta=float(np.float32(step.beta)),
                numpy=NUMPY_DTYPES[step.dtype].name,
                outer=element_count(before),
                size=shape[step.axis],
                inner=element_count(after),
            )
        )
        shape = step.shape
    return tuple(found)


def label_lines(labels: tuple[str, ...]) -> bytes:
    """Return labels as a text file, one a line; line breaks inside a label become spaces."""
    lines = (" ".join(label.splitlines()) for label in labels)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def placeholders(spec: BundleSpec) -> dict[str, str]:
    """Return the words that template paths may contain, with what they stand for."""
    return {
        "__package__": names.python_package(spec.name),
        "__module__": names.gradle_module(spec.name),
        "__asset__": names.snake(spec.name),
        "__package_path__": names.jvm_package(spec.android_package, spec.name).replace(".", "/"),
        "__class__": names.class_name(spec.name),
        "__kotlin__": "kotlin",
        "__java__": "java",
        "__ai_pack__": f"{names.gradle_module(spec.name)}-pack",
        "__aar__": f"{names.gradle_module(spec.name)}.aar",
        "__cname__": c_name(spec.name),
    }


def make_context(spec: BundleSpec) -> dict[str, Any]:
    """Return the variables of the templates.

    Raises:
        BundleError: A tensor's type has no form in a loader.
    """
    inputs = _views(spec.inputs, "input", "input")
    outputs = _views(spec.outputs, "output", "output")
    compiled = spec.compiled
    # The model's bytes decide: an installer takes a new model for a new version.
    digest = hashlib.sha256(b"".join(model.data for model in spec.models)).hexdigest()
    return android_context(spec, inputs) | {
        "spec": spec,
        "target": spec.profile,
        "delegate": spec.rule.delegate,
        "options": dict(spec.rule.options),
        "title": spec.name,
        "python_package": names.python_package(spec.name),
        "distribution": names.distribution(spec.name),
        "model_version": f"1.0.0+{digest[:12]}",
        "class_name": names.class_name(spec.name),
        "kotlin_package": names.jvm_package(spec.android_package, spec.name),
        "gradle_module": names.gradle_module(spec.name),
        "asset": names.snake(spec.name),
        "inputs": inputs,
        "outputs": outputs,
        "labelled": [view for view in outputs if view.ranked],
        # Labels rank real numbers.
        "labelled_kotlin": [view for view in outputs if view.ranked and (view.quantized or view.dtype == "FLOAT32")],
        "tailed": [view for view in outputs if view.tail],
        "host_file": spec.host.filename,
        "compiled_file": compiled.filename if compiled is not None else "",
        "compiled_files": [model.filename for model in spec.segments or ((compiled,) if compiled else ())],
        "segmented": bool(spec.segments),
        "co_compiled": {
            model.filename.removesuffix("_edgetpu.tflite"): model.filename for model in spec.of_role("co-compiled")
        },
        "model_token": hashlib.sha256(spec.host.data).hexdigest()[:32],
        # A file whose activations are integers runs quantized on an NPU; any other one in half precision.
        "integer_model": spec.scheme in {"int8", "int8-qat", "int16x8"},
        "cases": len(spec.golden.cases),
        "golden": spec.golden,
        "tolerances": tolerances(spec.golden),
        "warnings": plain_warnings(spec),
        **cpp_context(spec, inputs, outputs),
    }


def plain_warnings(spec: BundleSpec) -> list[str]:
    """Return what the README says first: nothing compiled, random calibration, and the build's own warnings."""
    found = []
    compiler = spec.profile.compiler
    if compiler is not None and spec.compile.status != "compiled":
        reason = spec.compile.reason.rstrip(".")
        # Only the Edge TPU needs its compiler: a phone's driver prepares the model when it loads it.
        need = spec.rule.delegate == "edgetpu"
        what = f"This model is NOT compiled for {spec.profile.title}" if need else "Nothing was compiled ahead of time"
        found.append(f"{what}{f': {reason}' if reason else ''}.{' It runs on the CPU until it is.' if need else ''}")
    if spec.calibration is not None and spec.calibration.random:
        found.append("Calibrated on RANDOM numbers: the results are not to be trusted. Build again with real samples.")
    # The build's own warning about compiling gives the same reason.
    said = spec.compile.reason.rstrip(".")
    return [*found, *(warning for warning in spec.warnings if not (found and said and said in warning))]
