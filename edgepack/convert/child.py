"""The conversion in the child process: load, trace, freeze, convert, compare.

Freezing a traced function of static shapes first is several times faster than `from_keras_model`, which writes a
SavedModel and reads it back.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.child import Job
from edgepack.convert.compare import (
    TOLERANCE,
    WIDE_MAGNITUDES,
    Array,
    largest_difference,
    missing_weights,
    outputs_vary,
    probe_inputs,
)
from edgepack.convert.environment import import_tensorflow
from edgepack.convert.fake_quant import split_fake_quant
from edgepack.convert.freeze import frozen_converter
from edgepack.convert.interface import write_interface
from edgepack.convert.leading import Arithmetic, read_arithmetic
from edgepack.convert.missing_ops import raise_if_ops_are_missing
from edgepack.convert.model import ConvertOptions
from edgepack.convert.open_shapes import check_names, fix_shapes, format_shapes, resolve_shape
from edgepack.convert.original import Original
from edgepack.convert.recurrent import different, fuse_lstms
from edgepack.convert.variable_state import KeptState, kept_state, stateful_converter
from edgepack.errors import ConversionError, ModelFileError, UnfitModelError
from edgepack.graph import NUMPY_DTYPES, read_model
from edgepack.graph.fake_quant import fold_fake_quant
from edgepack.runtime import Runner
from edgepack.text import first_line


@dataclass(frozen=True)
class _Traced:
    """The model as one function with static shapes."""

    original: Original
    function: Any
    inputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: dict[str, tuple[int, ...]]
    reference: Any
    state: KeptState

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the original model from its initial state, without fake quantization of activations."""
        import tensorflow as tf

        self.state.restore()
        return [tensor.numpy() for tensor in self.reference(*(tf.constant(array) for array in arrays))]


@dataclass(frozen=True)
class _Probes:
    """Inputs of the comparisons, and the original's outputs for each: it runs once for all of them."""

    inputs: list[list[Array]]
    expected: list[list[Array]]

    def difference(self, run: Callable[[Sequence[Array]], list[Array]]) -> float:
        """Return the largest relative difference of another model's outputs."""
        return largest_difference(self.expected, run, self.inputs)


def convert(
    load: Callable[[Path, ConvertOptions], Original],
    path: Path,
    options: ConvertOptions,
    samples: Sequence[Mapping[str, Array]],
    *,
    freeze: bool = True,
) -> tuple[bytes, float, list[str], dict[str, Arithmetic]]:
    """Convert one model.

    Args:
        load: Loads the model file; the importer's.
        path: Model file or folder.
        options: The user's options.
        samples: A few of the user's samples for the comparison, by input name, with batch 1.
        freeze: False to use only TFLiteConverter's documented call, where freezing first crashed.

    Returns:
        The .tflite, the largest relative difference to the original's outputs, notes for the user, and what the
        original does to the values of its inputs first.

    Raises:
        ModelFileError: The file is broken.
        UsageError: `options` name an input or signature that does not exist.
        ConversionError: The model cannot be loaded or converted, or its outputs changed.
    """
    # Refusals that need no TensorFlow come from here, seconds before it is imported.
    original = load(path, options)
    traced = _trace(original, options)
    return *_convert_checked(traced, path, samples, freeze), read_arithmetic(traced.function, traced.inputs)


def _convert_checked(
    traced: _Traced, path: Path, samples: Sequence[Mapping[str, Array]], freeze: bool
) -> tuple[bytes, float, list[str]]:
    """Convert in the way whose result has the original's outputs and weights."""
    inputs = probe_inputs(traced.shapes, traced.dtypes) + _matching_samples(samples, traced)
    expected = [traced.run(arrays) for arrays in inputs]
    if not outputs_vary(expected):
        # To a model that scales pixels or 16-bit sound itself, values around 1 are all the same.
        wide = [one for magnitude in WIDE_MAGNITUDES for one in probe_inputs(traced.shapes, traced.dtypes, magnitude)]
        inputs += wide
        expected += [traced.run(arrays) for arrays in wide]
    probes = _Probes(inputs, expected)
    if traced.state.values:
        return _convert_with_state(traced, path, probes)
    frozen, problem = _attempt(traced, probes, _convert_frozen) if freeze else (None, "")
    notes = _notes(traced, probes)
    if frozen is not None and not problem:
        return _with_fused_lstms(probes, frozen, notes)
    documented, second_problem = _attempt(traced, probes, _convert_documented)
    if documented is not None and not second_problem:
        note = f"converted by TFLiteConverter's documented call, because freezing first failed: {problem}"
        return _with_fused_lstms(probes, documented, [note, *notes] if freeze else notes)
    if frozen is not None and documented is not None and frozen.missing and documented.missing:
        # Two independent conversions agree that the weights fold away, and the outputs are right.
        note = f"the converter folded most weights into constants: {frozen.missing}"
        return frozen.tflite, frozen.difference, [note, *notes]
    also = f"; TFLiteConverter's documented call: {second_problem}" if second_problem != problem else ""
    raise ConversionError(
        f"'{path}' cannot be converted: {problem}{also}",
        hint="compare the model with the .tflite that TFLiteConverter writes for it, layer by layer",
        details={"log": f"{problem}\n{second_problem}"},
    )


def _convert_with_state(traced: _Traced, path: Path, probes: _Probes) -> tuple[bytes, float, list[str]]:
    """Convert a model that keeps a state: its variables cannot be frozen."""
    converted, problem = _attempt(traced, probes, _convert_stateful)
    if converted is None or problem:
        raise ConversionError(
            f"'{path}' keeps a state in variables and cannot be converted: {problem}",
            hint="make the state an input and an output of the model, or export it with all variables created up front",
            details={"log": problem},
        )
    return converted.tflite, converted.difference, _notes(traced, probes)


#: `convert` as a job; `Conversion.run` adds the file and its format to the error texts.
CONVERT = Job(convert, error=ConversionError, purpose="conversion", hint="try a SavedModel or a Keras archive")


def _trace(original: Original, options: ConvertOptions) -> _Traced:
    """Trace the model once with static shapes."""
    tf = import_tensorflow()
    names = tuple(one.name for one in original.inputs)
    check_names(names, options)
    shapes = tuple(resolve_shape(one.name, one.shape, options) for one in original.inputs)
    dtypes = tuple(one.dtype for one in original.inputs)
    known = {dtype.name for dtype in NUMPY_DTYPES.values()}
    for one in original.inputs:
        if one.dtype not in known:
            raise ConversionError(
                f"input '{one.name}' has the type {one.dtype}, expected numbers or booleans",
                hint="export the model without its text or resource handling, and do that part in the app",
            )
    specs = [
        tf.TensorSpec(shape, dtype, name=_graph_name(name, position))
        for position, (name, shape, dtype) in enumerate(zip(names, shapes, dtypes, strict=True))
    ]
    outputs: list[str] = []

    def flat(*tensors: Any) -> list[Any]:
        pairs = original.call(tensors)
        outputs[:] = [name for name, _ in pairs]
        return [tensor for _, tensor in pairs]

    try:
        function = tf.function(flat, input_signature=specs, autograph=False).get_concrete_function()
    except ConversionError:
        raise
    except Exception as error:
        refused = re.search(r"'(.*)' is not a valid scope name", str(error))
        if refused:
            raise ConversionError(
                f"TensorFlow cannot run the layer '{refused.group(1)}', because it does not accept the name",
                hint="rename the layer: ASCII letters, digits, `_`, `.` and `-`, starting with a letter or digit",
                details={"log": str(error)},
            ) from error
        listed = format_shapes(dict(zip(names, shapes, strict=True)))
        raise ConversionError(
            f"the model does not run with the input shapes {listed}: {type(error).__name__}: {first_line(error)}",
            hint="give the shapes that the model expects with --input-shape NAME=1,224,224,3",
            details={"log": str(error)},
        ) from error
    state = kept_state(function)
    variables = {f"{i}:{v.name}": tuple(v.shape.as_list()) for i, v in enumerate(function.graph.variables)}
    split = split_fake_quant(function)
    function, reference = (function, function) if split is None else split
    return _Traced(original, function, names, shapes, dtypes, tuple(outputs), variables, reference, state)


@dataclass(frozen=True)
class _Converted:
    """A converted file, its largest relative difference to the original, and a sentence about missing weights."""

    tflite: bytes
    difference: float
    missing: str


def _attempt(
    traced: _Traced, probes: _Probes, convert_traced: Callable[[_Traced], bytes]
) -> tuple[_Converted | None, str]:
    """Convert and compare with the original; return the file, None when unusable, and the problem, empty when none."""
    try:
        tflite = convert_traced(traced)
    except ConversionError:
        raise
    except Exception as error:
        raise_if_ops_are_missing(error, traced.original.keep)
        return None, f"{type(error).__name__}: {first_line(error)}"

    try:
        difference = probes.difference(Runner(tflite).run)
    except (UnfitModelError, ModelFileError) as error:
        return None, error.message
    missing = missing_weights(read_model(tflite), traced.variables)
    if difference > TOLERANCE:
        repeated = probes.difference(traced.run)
        if repeated > TOLERANCE:
            raise ConversionError(
                f"the model gives different outputs for the same input (relative difference {repeated:.1e})",
                hint="remove random layers, or disable them at inference (training=False)",
            )
        problem = f"its outputs differ from the original's by {difference:.1e}; the limit is {TOLERANCE:.0e}"
        return None, problem
    return _Converted(tflite, difference, missing), f"weights are missing: {missing}" if missing else ""


def _with_fused_lstms(probes: _Probes, converted: _Converted, notes: list[str]) -> tuple[bytes, float, list[str]]:
    """Return the result of `convert`, with fused LSTM where the outputs agree with the original's."""
    fusion = fuse_lstms(converted.tflite)
    tflite, difference = converted.tflite, converted.difference
    if fusion.fused:
        compared = probes.difference(Runner(fusion.tflite).run)
        if compared > TOLERANCE:
            return tflite, difference, [*notes, *fusion.notes, different(compared)]
        tflite, difference = fusion.tflite, compared
    return tflite, difference, [*notes, *fusion.notes]


def _notes(traced: _Traced, probes: _Probes) -> list[str]:
    if outputs_vary(probes.expected):
        return [*traced.original.notes]
    return [
        *traced.original.notes,
        "the model's outputs barely depend on its inputs (is it trained?), so comparing the conversion proves little",
    ]


def _convert_frozen(traced: _Traced) -> bytes:
    converter = frozen_converter(traced.function, [shape[0] for shape in traced.shapes if shape])
    converter.exclude_conversion_metadata = True
    tflite = fold_fake_quant(bytes(converter.convert()))
    return write_interface(tflite, traced.original.signature, traced.inputs, traced.outputs)


def _convert_stateful(traced: _Traced) -> bytes:
    traced.state.restore()
    with stateful_converter(traced.function, traced.inputs) as converter:
        converter.exclude_conversion_metadata = True
        tflite = bytes(converter.convert())
    return write_interface(fold_fake_quant(tflite), traced.original.signature, traced.inputs, traced.outputs)


def _convert_documented(traced: _Traced) -> bytes:
    converter = traced.original.documented()
    converter.exclude_conversion_metadata = True
    tflite = fold_fake_quant(bytes(converter.convert()))
    model = read_model(tflite)
    names = model.input_names()
    shapes = dict(zip(traced.inputs, traced.shapes, strict=True))
    if set(names) != set(shapes):
        if len(names) != 1:
            raise ConversionError(
                f"the converter renamed the inputs {', '.join(traced.inputs)} to {', '.join(names)}",
                hint="name the model's inputs with letters, digits and underscores",
            )
        shapes = {names[0]: traced.shapes[0]}
    if any(model.main.tensors[index].is_dynamic for index in model.main.inputs):
        tflite = fix_shapes(tflite, {name: shapes[name] for name in names})
    same = names == traced.inputs and model.output_names() == traced.outputs
    if same or (len(names) == 1 and len(traced.outputs) == 1):
        return write_interface(tflite, traced.original.signature, traced.inputs, traced.outputs)
    raise ConversionError(
        "the converter reordered the model's inputs or outputs and dropped their names",
        hint="export a SavedModel with named inputs and outputs: model.export(DIR)",
    )


def _matching_samples(samples: Sequence[Mapping[str, Array]], traced: _Traced) -> list[list[Array]]:
    """Return the samples that have every input in the traced shape, converted to the model's types."""
    matching = []
    for sample in samples:
        arrays = [sample.get(name) for name in traced.inputs]
        if all(a is not None and a.shape == shape for a, shape in zip(arrays, traced.shapes, strict=True)):
            matching.append([np.asarray(a).astype(dtype) for a, dtype in zip(arrays, traced.dtypes, strict=True)])
    return matching


def _graph_name(name: str, position: int) -> str:
    """Return a name that TensorFlow accepts for a graph input."""
    safe = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
    return safe if re.match(r"[A-Za-z0-9.]", safe) else f"input_{position}{safe}"
