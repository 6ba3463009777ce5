"""Apply a scheme to a float .tflite, flatbuffer to flatbuffer, with ranges measured by our own calibrator."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from edgepack.errors import EdgepackError, QuantizationError
from edgepack.graph import Graph, Model, read_model
from edgepack.graph.edit import (
    pack,
    restore_interface,
    set_ranges,
    tensor_keys,
    unique_names,
    unpack,
    write_true_versions,
)
from edgepack.graph.op_layout import float_ops
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.float16 import to_float16
from edgepack.quantize.int16_bias import narrow_biases, split_biases
from edgepack.quantize.io_types import set_io_types
from edgepack.quantize.op_support import CONVERTER_INT8, DYNAMIC_MIN_ELEMENTS
from edgepack.quantize.ranges import Range
from edgepack.schemes import get_scheme, plain_type
from edgepack.text import first_line


class QuantizationRefused(QuantizationError):
    """ai-edge-quantizer cannot do this model as well as TFLiteConverter's own quantizer; try that one.

    `details["ops"]` names the ops that would have stayed float, where that is the reason.
    """

    kind = "quantization-refused"


@dataclass(frozen=True)
class Quantized:
    """A quantized model.

    Attributes:
        tflite: The file.
        tool: What made it, with its version.
        notes: Sentences for people.
    """

    tflite: bytes
    tool: str
    notes: tuple[str, ...] = ()


def quantize(
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Range] | None = None,
    *,
    keep: Collection[str] = (),
    keep_as: str = "float32",
) -> Quantized:
    """Return the float model in the rule's scheme.

    Signatures, names and order of inputs and outputs and the description are the float model's; op versions and
    `min_runtime_version` are the true ones; the result was loaded by the runtime.

    Args:
        tflite: A float .tflite.
        rule: Scheme, type of inputs and outputs, granularity of FULLY_CONNECTED weights.
        ranges: (minimum, maximum) of every float activation by `edgepack.graph.edit.tensor_keys` key; for the integer
            schemes only.
        keep: Ops that get more than int8, by the `tensor_keys` of their first output; for int8 only.
        keep_as: What those are: `float32`, or `int16` for 16-bit activations with 8-bit weights.

    Raises:
        QuantizationRefused: ai-edge-quantizer cannot, or leaves float what TFLiteConverter's quantizer would not.
        QuantizationError: The model is not float, ranges are missing, or the result does not load.
    """
    scheme = get_scheme(rule.scheme)
    source = read_model(tflite)
    if scheme.id == "int8-qat":
        raise QuantizationError(
            "int8-qat is learned in training and cannot be applied to a trained file", hint="use int8 with samples"
        )
    if not source.is_float:
        raise QuantizationError(
            f"the model is already quantized and cannot be made {scheme.id}",
            hint="give the float model it was made from",
        )
    if scheme.id == "float32":
        return Quantized(tflite, "none")
    if scheme.id == "float16":
        made, tool = to_float16(tflite), "edgepack"
    else:
        made = _quantize(tflite, rule, ranges, keep, keep_as)
        tool = f"ai-edge-quantizer {version('ai-edge-quantizer')}"
    done = adopt(made, tflite, rule, tool)
    return replace(done, notes=(_kept_note(source.main, keep, keep_as),)) if keep else done


def _kept_note(graph: Graph, keep: Collection[str], keep_as: str) -> str:
    """Return what ops of the float model are more than int8: `2 of 5 ops in int16: CONV_2D (ops 0, 1)`."""
    keys = tensor_keys(graph)
    found: dict[str, list[int]] = {}
    for op in graph.ops:
        if op.outputs and keys[op.outputs[0]] in keep:
            found.setdefault(op.label, []).append(op.index)
    count = sum(len(places) for places in found.values())
    listed = ", ".join(
        f"{label} (op{'s' if len(places) > 1 else ''} {', '.join(map(str, places))})" for label, places in found.items()
    )
    return f"{count} of {len(graph.ops)} ops in {plain_type(keep_as)}: {listed}"


def with_ranges(tflite: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Return the float model carrying its ranges: what TFLiteConverter's quantizer takes after a refusal."""
    return set_ranges(unique_names(tflite), ranges)


def adopt(made: bytes, tflite: bytes, rule: SchemeRule, tool: str) -> Quantized:
    """Finish a file that another quantizer made from the float model: interface, op versions, description, check.

    Args:
        made: The quantized file.
        tflite: The float model.
        rule: The rule it was made for.
        tool: What made it, with its version.

    Raises:
        QuantizationError: The file has another interface, or the runtime refuses it.
    """
    source = read_model(tflite)
    finished = write_true_versions(restore_interface(made, source))
    _require_ends(source, read_model(finished), rule)
    require_loadable(finished)
    notes = _notes(read_model(finished), _bits(rule)) if get_scheme(rule.scheme).is_integer else ()
    return Quantized(finished, tool, notes)


def require_loadable(tflite: bytes) -> None:
    """Load a quantized model in the runtime and prepare its ops.

    Raises:
        QuantizationError: The runtime refuses it.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_content=tflite, num_threads=1).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise QuantizationRefused(f"the runtime refuses the quantized model: {first_line(error)}") from error


def _require_ends(source: Model, made: Model, rule: SchemeRule) -> None:
    io = rule.io if get_scheme(rule.scheme).is_integer else "FLOAT32"
    for kind in ("inputs", "outputs"):
        for before, after in zip(getattr(source.main, kind), getattr(made.main, kind), strict=True):
            tensor = made.main.tensors[after]
            wanted = io if source.main.tensors[before].dtype == "FLOAT32" else source.main.tensors[before].dtype
            if tensor.dtype != wanted:
                raise QuantizationRefused(
                    f"the {rule.scheme} model's {kind[:-1]} '{tensor.name}' is {tensor.dtype}, expected {wanted}"
                )


def _bits(rule: SchemeRule) -> int:
    return 16 if get_scheme(rule.scheme).activations == "INT16" else 8


def _quantize(
    tflite: bytes, rule: SchemeRule, ranges: Mapping[str, Range] | None, keep: Collection[str], keep_as: str
) -> bytes:
    scheme = get_scheme(rule.scheme)
    if scheme.is_integer and ranges is None:
        raise QuantizationError(f"{scheme.id} needs the ranges of a calibration, got none")
    wide = _bits(rule) == 16 or (bool(keep) and keep_as == "int16")
    if ranges is not None and wide:
        split = split_biases(tflite, ranges, rule, None if _bits(rule) == 16 else keep)
        tflite, ranges = split.tflite, split.ranges
        keep = {*keep, *split.added} if keep else keep
    with _quiet():
        from ai_edge_quantizer import quantizer

        try:
            tool = quantizer.Quantizer(_prepared(tflite), _recipe(rule, keep, keep_as))
            measured = None if ranges is None or not scheme.is_integer else _as_statistics(ranges)
            made = bytes(
                tool.quantize(measured, enable_progress_bar=False, enable_progress_report=False).quantized_model
            )
        except EdgepackError:
            raise
        # Whatever it raises is a refusal: there is a second quantizer to ask.
        except Exception as error:
            raise QuantizationRefused(
                f"ai-edge-quantizer cannot make this model {scheme.id}: {first_line(error)}"
            ) from error
    if not scheme.is_integer:
        return made
    if _bits(rule) == 8:
        graph = read_model(made).main
        left = sorted(
            {
                op.name
                for op in float_ops(graph)
                if op.name in CONVERTER_INT8 and (keep_as != "float32" or graph.tensors[op.outputs[0]].name not in keep)
            }
        )
        if left:
            raise QuantizationRefused(
                f"ai-edge-quantizer leaves {', '.join(left)} in float, which TFLiteConverter's quantizer would not",
                details={"ops": left},
            )
    return set_io_types(narrow_biases(made) if wide else made, scheme.activations, rule.io)


def _prepared(tflite: bytes) -> bytes:
    """Return a copy that ai-edge-quantizer can work on: unique tensor names, and a table of signatures, even empty."""
    model = unpack(unique_names(tflite))
    model.signatureDefs = model.signatureDefs or []
    return pack(model)


def _recipe(rule: SchemeRule, keep: Collection[str], keep_as: str) -> list[dict[str, Any]]:
    """Return the recipe, in ai-edge-quantizer's own JSON form; a later entry overrides an earlier one."""
    entries = _entries(rule, None if rule.scheme == "dynamic-range" else _bits(rule))
    if keep:
        # An op goes by its outputs' names, each ended by a semicolon.
        regex = f"^(?:{'|'.join(re.escape(name) for name in sorted(keep))});"
        if keep_as == "int16":
            entries += _entries(rule, 16, regex)
        else:
            entries.append({"regex": regex, "operation": "*", "algorithm_key": "no_quantize", "op_config": {}})
    return entries


def _entries(rule: SchemeRule, bits: int | None, regex: str = ".*") -> list[dict[str, Any]]:
    """Return the entries for the ops whose names fit, with activations of so many bits; None leaves them float."""
    # The BATCH_MATMUL kernel reads one scale of its weights, whatever the file says.
    granularity = {"*": rule.weights, "BATCH_MATMUL": "per-tensor"}
    if rule.fully_connected == "per-tensor":
        granularity["FULLY_CONNECTED"] = rule.fully_connected
    names = {"per-tensor": "TENSORWISE", "per-channel": "CHANNELWISE"}
    return [_entry(operation, bits, names[kind], regex) for operation, kind in granularity.items()]


def _entry(operation: str, bits: int | None, granularity: str, regex: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "weight_tensor_config": {"num_bits": 8, "symmetric": True, "granularity": granularity, "dtype": "INT"},
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
        "min_weight_elements": 0,
    }
    if bits is None:
        config["min_weight_elements"] = DYNAMIC_MIN_ELEMENTS
    else:
        activation = {"num_bits": bits, "symmetric": bits == 16, "granularity": "TENSORWISE", "dtype": "INT"}
        config["activation_tensor_config"] = activation
    return {
        "regex": regex,
        "operation": operation,
        "algorithm_key": "min_max_uniform_quantize",
        "op_config": config,
    }


def _as_statistics(ranges: Mapping[str, Range]) -> dict[str, dict[str, Any]]:
    return {
        key: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
        for key, (low, high) in sorted(ranges.items())
    }


def _notes(made: Model, bits: int) -> tuple[str, ...]:
    left = sorted({op.label for op in float_ops(made.main)})
    if not left:
        return ()
    return (f"{', '.join(left)} in float: TFLite's quantizers do not make them int{bits}",)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ai-edge-quantizer's progress bars, log and warnings about its own use of the runtime from the user."""
    logger = logging.getLogger()
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
