"""What runs in the child: load, trace, freeze, convert, check. TensorFlow is imported here and nowhere before.

Freezing first (`convert_variables_to_constants_v2` on a traced function of static shapes) is about three times faster
than `from_keras_model`, which writes and reads a SavedModel on its way.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.convert.compare import TOLERANCE, Array, is_telling, largest_difference, missing_weights, probe_inputs
from edgepack.convert.interface import write_interface
from edgepack.convert.keras_code import refuse_code
from edgepack.convert.load_keras import load_keras, read_h5_config
from edgepack.convert.load_saved_model import load_saved_model
from edgepack.convert.model import ConvertOptions, SourceFormat
from edgepack.convert.open_shapes import check_names, fix_shapes, resolve_shape
from edgepack.convert.original import Original
from edgepack.errors import ConversionError, ModelFileError, UnfitModelError
from edgepack.graph import NUMPY_DTYPES, read_model
from edgepack.runtime import Runner
from edgepack.text import first_line

#: Quiet, on the CPU, and the same numbers on every machine.
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
}


@dataclass(frozen=True)
class _Traced:
    """The model as one function of static shapes."""

    original: Original
    function: Any
    inputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: dict[str, tuple[int, ...]]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run the original, weights still in its variables."""
        import tensorflow as tf

        return [tensor.numpy() for tensor in self.function(*(tf.constant(array) for array in arrays))]


def convert(
    path: str, source: SourceFormat, options: ConvertOptions, samples: Sequence[Mapping[str, Array]]
) -> tuple[bytes, float, list[str]]:
    """Convert one model.

    Args:
        path: .keras, .h5 or SavedModel folder.
        source: What it is.
        options: The user's.
        samples: A few of the user's samples for the check, keyed by input name, with batch 1.

    Returns:
        The .tflite, the largest relative difference to the original's outputs, notes.

    Raises:
        ModelFileError: The file is broken.
        UsageError: `options` name an input or signature that does not exist.
        ConversionError: The model cannot be loaded or converted, or changed in conversion.
    """
    if source == "h5" and not options.allow_code:
        # Seconds before TensorFlow is there.
        refuse_code(Path(path), read_h5_config(Path(path))[0])
    os.environ.update(_ENVIRONMENT)
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    original = (
        load_saved_model(Path(path), options) if source == "saved_model" else load_keras(Path(path), source, options)
    )
    traced = _trace(original, options)
    probes = probe_inputs(traced.shapes, traced.dtypes) + _usable(samples, traced)
    frozen, problem = _attempt(traced, probes, _frozen)
    notes = _notes(traced, probes)
    if frozen is not None and not problem:
        return (*frozen[:2], notes)
    documented, second = _attempt(traced, probes, _documented)
    if documented is not None and not second:
        note = f"converted by TFLiteConverter's documented call, because freezing first did not work: {problem}"
        return (*documented[:2], [note, *notes])
    if frozen is not None and documented is not None and frozen[2] and documented[2]:
        # Two independent ways agree that the weights fold away, and the outputs are right.
        return (*frozen[:2], [f"the converter folded most weights into constants: {frozen[2]}", *notes])
    raise ConversionError(
        f"'{path}' cannot be converted: {problem}" + (f"; the documented call: {second}" if second != problem else ""),
        hint="compare the .tflite that TFLiteConverter makes of the model with the model, layer by layer",
        details={"log": f"{problem}\n{second}"},
    )


def _trace(original: Original, options: ConvertOptions) -> _Traced:
    """Trace the model once with static shapes."""
    import tensorflow as tf

    names = tuple(one.name for one in original.inputs)
    check_names(names, options)
    shapes = tuple(resolve_shape(one.name, one.shape, options) for one in original.inputs)
    dtypes = tuple(one.dtype for one in original.inputs)
    known = {dtype.name for dtype in NUMPY_DTYPES.values()}
    for one in original.inputs:
        if one.dtype not in known:
            raise ConversionError(
                f"input '{one.name}' has the type {one.dtype}, expected a number or bool",
                hint="export the model without its text or resource handling; do that part in the app",
            )
    specs = [
        tf.TensorSpec(shape, dtype, name=_graph_name(name, position))
        for position, (name, shape, dtype) in enumerate(zip(names, shapes, dtypes, strict=True))
    ]
    found: list[str] = []

    def flat(*tensors: Any) -> list[Any]:
        pairs = original.call(tensors)
        found[:] = [name for name, _ in pairs]
        return [tensor for _, tensor in pairs]

    try:
        function = tf.function(flat, input_signature=specs, autograph=False).get_concrete_function()
    except ConversionError:
        raise
    except Exception as error:
        told = ", ".join(f"{name}={list(shape)}" for name, shape in zip(names, shapes, strict=True))
        refused = re.search(r"'(.*)' is not a valid scope name", str(error))
        if refused:
            raise ConversionError(
                f"TensorFlow cannot run the layer '{refused.group(1)}': its name is not one that TensorFlow takes",
                hint="rename the layer: ASCII letters, digits, underscore, dot and dash, the first a letter or digit",
                details={"log": str(error)},
            ) from error
        raise ConversionError(
            f"the model does not run with the inputs {told}: {type(error).__name__}: {first_line(error)}",
            hint="give the shapes it was made for with --input-shape NAME=1,224,224,3",
            details={"log": str(error)},
        ) from error
    variables = {f"{i}:{v.name}": tuple(v.shape.as_list()) for i, v in enumerate(function.graph.variables)}
    return _Traced(original, function, names, shapes, dtypes, tuple(found), variables)


def _attempt(traced: _Traced, probes: list[list[Array]], way: Any) -> tuple[tuple[bytes, float, str] | None, str]:
    """Convert one way and check; return (file, difference, missing weights) or None, and what is wrong with it."""
    try:
        tflite = way(traced)
    except ConversionError:
        raise
    except Exception as error:
        _raise_if_ops_are_missing(error)
        return None, f"{type(error).__name__}: {first_line(error)}"

    run_original = traced.run
    try:
        difference = largest_difference(run_original, Runner(tflite).run, probes)
    except (UnfitModelError, ModelFileError) as error:
        return None, error.message
    missing = missing_weights(read_model(tflite), traced.variables)
    if difference > TOLERANCE:
        again = largest_difference(run_original, run_original, probes)
        if again > TOLERANCE:
            raise ConversionError(
                f"the model gives different outputs for the same input (relative difference {again:.1e})",
                hint="remove random layers, or make sure they are off at inference (training=False)",
            )
        return None, f"its outputs differ from the original's by {difference:.1e}, allowed are {TOLERANCE:.0e}"
    return (tflite, difference, missing), f"weights are missing: {missing}" if missing else ""


def _notes(traced: _Traced, probes: list[list[Array]]) -> list[str]:
    if is_telling(traced.run, probes):
        return [*traced.original.notes]
    return [
        *traced.original.notes,
        "the model's outputs barely depend on its inputs (is it trained?), so the check of the conversion says little",
    ]


def _frozen(traced: _Traced) -> bytes:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # Loops stay loops: the converter knows `while`, not the switches and merges it would be lowered to.
    constant = convert_variables_to_constants_v2(traced.function, lower_control_flow=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([constant])
    converter.exclude_conversion_metadata = True
    return write_interface(bytes(converter.convert()), traced.original.signature, traced.inputs, traced.outputs)


def _documented(traced: _Traced) -> bytes:
    converter = traced.original.documented()
    converter.exclude_conversion_metadata = True
    tflite = bytes(converter.convert())
    model = read_model(tflite)
    names = model.input_names()
    wanted = dict(zip(traced.inputs, traced.shapes, strict=True))
    if set(names) != set(wanted):
        if len(names) != 1:
            raise ConversionError(
                f"the converter renamed the inputs {', '.join(traced.inputs)} to {', '.join(names)}",
                hint="name the model's inputs with letters, digits and underscores",
            )
        wanted = {names[0]: traced.shapes[0]}
    if any(model.main.tensors[index].is_dynamic for index in model.main.inputs):
        tflite = fix_shapes(tflite, {name: wanted[name] for name in names})
    same = names == traced.inputs and model.output_names() == traced.outputs
    if same or (len(names) == 1 and len(traced.outputs) == 1):
        return write_interface(tflite, traced.original.signature, traced.inputs, traced.outputs)
    raise ConversionError(
        "the converter reordered the model's inputs or outputs and dropped their names",
        hint="export a SavedModel with named inputs and outputs: model.export(DIR)",
    )


def _usable(samples: Sequence[Mapping[str, Array]], traced: _Traced) -> list[list[Array]]:
    """Return the samples that have every input in the traced shape, in the model's types."""
    usable = []
    for sample in samples:
        arrays = [sample.get(name) for name in traced.inputs]
        if all(a is not None and a.shape == shape for a, shape in zip(arrays, traced.shapes, strict=True)):
            usable.append([np.asarray(a).astype(dtype) for a, dtype in zip(arrays, traced.dtypes, strict=True)])
    return usable


def _raise_if_ops_are_missing(error: Exception) -> None:
    """Turn the converter's pages about missing ops into one error that names them and where they stand."""
    text = str(error)
    if (
        "neither a custom op nor a flex op" not in text
        and "NEEDS_FLEX_OPS" not in text
        and "NEEDS_CUSTOM_OPS" not in text
    ):
        return
    listed = re.findall(r"^\s*(?:Flex|Custom) ops: (.+)$", text, re.MULTILINE)
    ops = sorted({op.strip().removeprefix("Flex") for line in listed for op in line.split(",")})
    ops = ops or sorted(set(re.findall(r"'tf\.(\w+)' op is neither", text)))
    places = sorted(_places(error))
    where = f" (in {', '.join(places[:5])})" if places else ""
    raise ConversionError(
        f"the model uses operations that TFLite does not have: {', '.join(ops)}{where}",
        hint="replace them with ones from https://ai.google.dev/edge/litert/conversion/tensorflow/op_compatibility, "
        "or move that part into the app; TensorFlow's own kernels (Select TF ops) run on no accelerator",
        details={"ops": ops, "log": text},
    )


def _places(error: Exception) -> set[str]:
    """Return the graph names the converter's structured errors point at, without the top one."""
    found = set()
    for entry in getattr(error, "errors", None) or []:
        for call in entry.location.call:
            name = re.split(r"[@;]", call.name)[0]
            if "/" in name:
                found.add(name)
    return found


def _graph_name(name: str, position: int) -> str:
    """Return a name TensorFlow takes for a graph input."""
    safe = re.sub(r"[^A-Za-z0-9_.\-]", "_", name)
    return safe if re.match(r"[A-Za-z0-9.]", safe) else f"input_{position}{safe}"
