"""Quantize a float .tflite in a scheme, flatbuffer to flatbuffer, with ranges from `calibrate` and `choose_ranges`."""

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
from edgepack.quantize.bias_limits import representable_biases
from edgepack.quantize.float16 import to_float16
from edgepack.quantize.hybrid_lstm import to_hybrid
from edgepack.quantize.int16_bias import narrow_biases, split_biases
from edgepack.quantize.integer_kernels import convert_left_ops
from edgepack.quantize.io_types import quantize_ends, set_io_types
from edgepack.quantize.op_support import CONVERTER_INT8, DYNAMIC_MIN_ELEMENTS
from edgepack.quantize.ranges import Range
from edgepack.quantize.scale_limits import bounded_ranges
from edgepack.runtime.memory import require_memory
from edgepack.schemes import get_scheme, plain_type
from edgepack.text import first_line


class QuantizationRefused(QuantizationError):
    """ai-edge-quantizer cannot quantize this model, or not as many ops of it as TFLiteConverter's quantizer can.

    `details["ops"]` names the ops that would have stayed float, where that is the reason.
    """

    kind = "quantization-refused"


@dataclass(frozen=True)
class Quantized:
    """A quantized model.

    Attributes:
        tflite: The file.
        tool: Name and version of the tool that wrote it.
        notes: Sentences for the report.
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

    Signatures, description, and the names and order of inputs and outputs are those of the float model. Op versions and
    `min_runtime_version` are what the kernels need, and the runtime has loaded the result.

    Args:
        tflite: A float .tflite.
        rule: Scheme, type of inputs and outputs, granularity of weights.
        ranges: (minimum, maximum) of every float activation by `edgepack.graph.edit.tensor_keys` key; only the integer
            schemes use them.
        keep: Ops to keep in more than int8, by the `tensor_keys` of their first output; only int8 uses them.
        keep_as: Type of those ops: `float32`, or `int16` for 16-bit activations with 8-bit weights.

    Raises:
        QuantizationRefused: ai-edge-quantizer fails, leaves ops in float that TFLiteConverter's quantizer converts, or
            the runtime does not load the result.
        QuantizationError: The model is not float, or ranges are missing.
    """
    scheme = get_scheme(rule.scheme)
    source = read_model(tflite)
    if scheme.id == "int8-qat":
        raise QuantizationError(
            "int8-qat needs quantization-aware training and cannot be applied to a trained file",
            hint="use int8 with samples",
        )
    if not source.is_float:
        raise QuantizationError(
            f"the model is already quantized and cannot be converted to {scheme.id}",
            hint="give the float model that it was quantized from",
        )
    if scheme.id == "float32":
        return Quantized(tflite, "none")
    if scheme.id == "float16":
        quantized, tool = to_float16(tflite), "edgepack"
    else:
        if ranges is not None and _bits(rule) == 8:
            ranges = bounded_ranges(source.main, ranges)
            tflite = representable_biases(tflite, ranges, rule)
        quantized = _quantize(tflite, rule, ranges, keep, keep_as)
        tool = f"ai-edge-quantizer {version('ai-edge-quantizer')}"
    result = adopt(quantized, tflite, rule, tool, ranges)
    return replace(result, notes=(_kept_note(source.main, keep, keep_as),)) if keep else result


def _kept_note(graph: Graph, keep: Collection[str], keep_as: str) -> str:
    """Return the note about ops kept in more than int8: `2 of 5 ops in int16: CONV_2D (ops 0, 1)`."""
    keys = tensor_keys(graph)
    kept: dict[str, list[int]] = {}
    for op in graph.ops:
        if op.outputs and keys[op.outputs[0]] in keep:
            kept.setdefault(op.label, []).append(op.index)
    count = sum(len(indices) for indices in kept.values())
    listed = ", ".join(
        f"{label} (op{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))})"
        for label, indices in kept.items()
    )
    return f"{count} of {len(graph.ops)} ops in {plain_type(keep_as)}: {listed}"


def with_ranges(tflite: bytes, ranges: Mapping[str, Range]) -> bytes:
    """Return the float model with ranges stored in the file, the input of TFLiteConverter's quantizer."""
    return set_ranges(unique_names(tflite), bounded_ranges(read_model(tflite).main, ranges))


def adopt(
    quantized: bytes, tflite: bytes, rule: SchemeRule, tool: str, ranges: Mapping[str, Range] | None = None
) -> Quantized:
    """Finish a file that a quantizer wrote: restore the float model's interface, set op versions, check that it loads.

    Args:
        quantized: The quantized file.
        tflite: The float model.
        rule: The rule that it was quantized for.
        tool: Name and version of the quantizer.
        ranges: Ranges of the float model by `tensor_keys`: ends that the quantizer left in float become integers.

    Raises:
        QuantizationRefused: Inputs or outputs have another type than the rule's, or the runtime does not load the file.
        ModelFileError: The file has another number of inputs or outputs.
    """
    source = read_model(tflite)
    if ranges is not None and get_scheme(rule.scheme).is_integer and rule.io != "FLOAT32":
        keys = tensor_keys(source.main)
        bounds = [[ranges.get(keys[index]) for index in ends] for ends in (source.main.inputs, source.main.outputs)]
        quantized = quantize_ends(quantized, bounds[0], bounds[1], rule.io)
    finished = write_true_versions(restore_interface(quantized, source))
    _require_io_types(source, read_model(finished), rule)
    require_loadable(finished)
    notes = _notes(read_model(finished), _bits(rule)) if get_scheme(rule.scheme).is_integer else ()
    return Quantized(finished, tool, notes)


def require_loadable(tflite: bytes) -> None:
    """Load a quantized model in the runtime and prepare its ops.

    Raises:
        QuantizationRefused: The runtime does not load it.
    """
    from ai_edge_litert.interpreter import Interpreter

    require_memory(read_model(tflite))
    try:
        Interpreter(model_content=tflite, num_threads=1).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise QuantizationRefused(f"the runtime does not load the quantized model: {first_line(error)}") from error


def _require_io_types(source: Model, quantized: Model, rule: SchemeRule) -> None:
    io = rule.io if get_scheme(rule.scheme).is_integer else "FLOAT32"
    for kind in ("inputs", "outputs"):
        for before, after in zip(getattr(source.main, kind), getattr(quantized.main, kind), strict=True):
            tensor = quantized.main.tensors[after]
            expected = io if source.main.tensors[before].dtype == "FLOAT32" else source.main.tensors[before].dtype
            if tensor.dtype != expected:
                raise QuantizationRefused(
                    f"the {rule.scheme} model's {kind[:-1]} '{tensor.name}' is {tensor.dtype}, expected {expected}"
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
            statistics = None if ranges is None or not scheme.is_integer else _as_statistics(ranges)
            quantized = bytes(
                tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False).quantized_model
            )
        except EdgepackError:
            raise
        # Any exception counts as a refusal, because TFLiteConverter's quantizer may still succeed.
        except Exception as error:
            raise QuantizationRefused(
                f"ai-edge-quantizer cannot quantize this model to {scheme.id}: {first_line(error)}"
            ) from error
    if not scheme.is_integer:
        return to_hybrid(quantized)
    if _bits(rule) == 8:
        quantized = convert_left_ops(quantized, ranges or {}, keep)
        graph = read_model(quantized).main
        left = sorted(
            {
                op.name
                for op in float_ops(graph)
                if op.name in CONVERTER_INT8 and (keep_as != "float32" or graph.tensors[op.outputs[0]].name not in keep)
            }
        )
        if left:
            raise QuantizationRefused(
                f"ai-edge-quantizer leaves {', '.join(left)} in float, which TFLiteConverter's quantizer converts",
                details={"ops": left},
            )
    return set_io_types(narrow_biases(quantized) if wide else quantized, scheme.activations, rule.io)


def _prepared(tflite: bytes) -> bytes:
    """Return a copy that ai-edge-quantizer can read: unique tensor names, and a table of signatures, even if empty."""
    model = unpack(unique_names(tflite))
    model.signatureDefs = model.signatureDefs or []
    return pack(model)


def _recipe(rule: SchemeRule, keep: Collection[str], keep_as: str) -> list[dict[str, Any]]:
    """Return the recipe in ai-edge-quantizer's JSON form; a later entry overrides an earlier one."""
    entries = _entries(rule, None if rule.scheme == "dynamic-range" else _bits(rule))
    if keep:
        # ai-edge-quantizer matches an op by the names of its outputs, each followed by a semicolon.
        regex = f"^(?:{'|'.join(re.escape(name) for name in sorted(keep))});"
        if keep_as == "int16":
            entries += _entries(rule, 16, regex)
        else:
            entries.append({"regex": regex, "operation": "*", "algorithm_key": "no_quantize", "op_config": {}})
    return entries


def _entries(rule: SchemeRule, bits: int | None, regex: str = ".*") -> list[dict[str, Any]]:
    """Return the entries for ops whose names match, with activations of `bits` bits; None leaves activations float."""
    # The BATCH_MATMUL kernel reads a single scale of its weights, even where the file has one per channel.
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
        key: {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}
        for key, (low, high) in sorted(ranges.items())
    }


def _notes(quantized: Model, bits: int) -> tuple[str, ...]:
    left = sorted({op.label for op in float_ops(quantized.main)})
    if not left:
        return ()
    return (f"{', '.join(left)} in float: TFLite's quantizers do not convert them to int{bits}",)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide ai-edge-quantizer's progress bars, log and warnings about its own use of the runtime."""
    logger = logging.getLogger()
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
