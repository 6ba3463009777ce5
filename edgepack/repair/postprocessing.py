"""Cut the last ops of a model so that the loader does them as postprocessing: ARG_MAX, SOFTMAX, DEQUANTIZE."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgepack.graph import Graph, Model, Op, Tensor, read_model
from edgepack.graph.compact import drop_unused
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.runtime.postprocessing import PostprocessStep, fault

#: Types whose quantized values every loader dequantizes.
_QUANTIZED = frozenset({"INT8", "UINT8", "INT16"})


def cut(model: Model, output: int) -> tuple[Model, PostprocessStep] | None:
    """Remove the op that produces one output, if a loader can do it.

    Args:
        model: The model.
        output: Position of the output.

    Returns:
        The shorter model and the postprocessing step of the loader; None when the last op is not such a step, or its
        result is used elsewhere.
    """
    graph = model.main
    tensor = graph.outputs[output]
    step = _last_step(graph, output, model.output_names()[output], Counter(graph.outputs))
    if step is None:
        return None
    op = graph.ops[graph.producers[tensor]]
    outputs = tuple(op.inputs[0] if i == output else old for i, old in enumerate(graph.outputs))
    ops = tuple(replace(other, index=i) for i, other in enumerate(o for o in graph.ops if o.index != op.index))
    signatures = tuple(
        replace(s, outputs={n: op.inputs[0] if i == tensor else i for n, i in s.outputs.items()}) if s.graph == 0 else s
        for s in model.signatures
    )
    shorter = replace(graph, ops=ops, outputs=outputs)
    return replace(model, graphs=(shorter, *model.graphs[1:]), signatures=signatures), step


def cut_file(tflite: bytes, output: int, op_index: int) -> bytes:
    """Apply `cut` to a file; `op_index` is the op to remove."""
    file = unpack(tflite)
    graph = file.subgraphs[0]
    op = graph.operators[op_index]
    old, new = int(op.outputs[0]), int(op.inputs[0])
    graph.operators = [other for i, other in enumerate(graph.operators) if i != op_index]
    graph.outputs = np.array([new if i == output else int(t) for i, t in enumerate(graph.outputs)], np.int32)
    signatures = [signature for signature in file.signatureDefs or [] if signature.subgraphIndex == 0]
    entries = [entry for signature in signatures for entry in signature.outputs or [] if entry.tensorIndex == old]
    for entry in entries:
        entry.tensorIndex = new
    if not entries:
        # Without a signature the name of the tensor is the public name of the output.
        graph.tensors[new].name = graph.tensors[old].name or f"tensor_{old}".encode()
    drop_unused(file)
    return write_true_versions(pack(file))


def cuttable(model: Model, refused: Container[int]) -> tuple[PostprocessStep, ...]:
    """Return the last op of each output as a postprocessing step, where a loader could do it.

    Args:
        model: The model.
        refused: First outputs of the ops that do not run on the accelerator; other ops are not cut.
    """
    graph = model.main
    counts = Counter(graph.outputs)
    outputs = zip(graph.outputs, model.output_names(), strict=True)
    steps = (
        _last_step(graph, position, name, counts)
        for position, (tensor, name) in enumerate(outputs)
        if tensor in refused
    )
    return tuple(step for step in steps if step is not None)


def before_class_choice(tflite: bytes, tail: Sequence[PostprocessStep]) -> bytes:
    """Return a file without its final ARG_MAX ops: its outputs are the scores of the classes.

    Args:
        tflite: The file before its last ops were cut, or before other repairs too.
        tail: The steps that were cut.
    """
    for step in tail:
        model = read_model(tflite)
        shorter = cut(model, step.output) if step.op == "ARG_MAX" else None
        if shorter is not None and shorter[1].op == "ARG_MAX":
            tflite = cut_file(tflite, step.output, model.main.producers[model.main.outputs[step.output]])
    return tflite


def _last_step(graph: Graph, output: int, name: str, counts: Mapping[int, int]) -> PostprocessStep | None:
    """Return the step of the op that produces an output; `counts` is how often each tensor is an output."""
    tensor = graph.outputs[output]
    if tensor not in graph.producers or graph.consumers.get(tensor) or counts[tensor] != 1:
        return None
    op = graph.ops[graph.producers[tensor]]
    step = _step(graph, op, output, name)
    return None if step is None or op.inputs[0] in counts or op.inputs[0] in graph.inputs else step


def _step(graph: Graph, op: Op, output: int, name: str) -> PostprocessStep | None:
    if len(op.outputs) != 1 or not op.inputs or op.inputs[0] < 0:
        return None
    source, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if source.is_constant or source.is_dynamic or source.rank == 0:
        return None
    last = source.rank - 1
    step = None
    if op.name == "ARG_MAX" and (source.dtype == "FLOAT32" or _is_quantized(source)):
        axis = _axis(graph, op, source.rank)
        step = None if axis is None else PostprocessStep(output, name, op.name, axis, 1.0, result.dtype, result.shape)
    elif op.name == "SOFTMAX" and source.dtype == "FLOAT32":
        beta = float(op.options.get("beta", 1.0))
        step = PostprocessStep(output, name, op.name, last, beta, result.dtype, result.shape)
    elif op.name == "DEQUANTIZE" and source.quantization is not None and _is_quantized(source):
        scale, zero_point = float(source.quantization.scale[0]), int(source.quantization.zero_point[0])
        step = PostprocessStep(output, name, op.name, last, 1.0, result.dtype, result.shape, scale, zero_point)
    return None if step is None or fault(source.shape, (step,)) else step


def _is_quantized(tensor: Tensor) -> bool:
    """Return whether a tensor is per-tensor quantized with a type that loaders dequantize."""
    quantization = tensor.quantization
    if tensor.dtype not in _QUANTIZED or quantization is None:
        return False
    return quantization.scale.size == 1 and bool(quantization.scale[0] > 0)


def _axis(graph: Graph, op: Op, rank: int) -> int | None:
    """Return the axis of ARG_MAX as a non-negative number, None when it is not a constant of the file."""
    axis = graph.tensors[op.inputs[1]].data if len(op.inputs) == 2 and op.inputs[1] >= 0 else None
    if axis is None or axis.size != 1 or not -rank <= int(axis.ravel()[0]) < rank:
        return None
    return int(axis.ravel()[0]) % rank
