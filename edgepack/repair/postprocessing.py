"""Cut the model's last steps off, so that the loader does them: class choice, probabilities, floats."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgepack.graph import Graph, Model, Op, Tensor, read_model
from edgepack.graph.edit import pack, unpack, write_true_versions
from edgepack.repair.graph_edits import drop_unused
from edgepack.runtime.postprocessing import PostprocessStep, fault

#: Types whose quantized values every loader gives as real ones.
_QUANTIZED = frozenset({"INT8", "UINT8", "INT16"})


def cut(model: Model, output: int) -> tuple[Model, PostprocessStep] | None:
    """Take the op that makes one output away, when a loader can do its work.

    Args:
        model: The model.
        output: Position of the output.

    Returns:
        The shorter model, as values, and what the loader has to do; None when the last op is not such a step, or its
        result is used elsewhere.
    """
    graph = model.main
    tensor = graph.outputs[output]
    step = _last_step(graph, output, model.output_names()[output], Counter(graph.outputs))
    if step is None:
        return None
    op = graph.ops[graph.producers[tensor]]
    outputs = tuple(op.inputs[0] if i == output else old for i, old in enumerate(graph.outputs))
    ops = tuple(replace(kept, index=i) for i, kept in enumerate(k for k in graph.ops if k.index != op.index))
    signatures = tuple(
        replace(s, outputs={n: op.inputs[0] if i == tensor else i for n, i in s.outputs.items()}) if s.graph == 0 else s
        for s in model.signatures
    )
    shorter = replace(graph, ops=ops, outputs=outputs)
    return replace(model, graphs=(shorter, *model.graphs[1:]), signatures=signatures), step


def cut_file(tflite: bytes, output: int, op_index: int) -> bytes:
    """Do to a file what `cut` does to values; `op_index` is the op that goes."""
    file = unpack(tflite)
    graph = file.subgraphs[0]
    op = graph.operators[op_index]
    old, new = int(op.outputs[0]), int(op.inputs[0])
    graph.operators = [kept for i, kept in enumerate(graph.operators) if i != op_index]
    graph.outputs = np.array([new if i == output else int(t) for i, t in enumerate(graph.outputs)], np.int32)
    signatures = [signature for signature in file.signatureDefs or [] if signature.subgraphIndex == 0]
    named = [entry for signature in signatures for entry in signature.outputs or [] if entry.tensorIndex == old]
    for entry in named:
        entry.tensorIndex = new
    if not named:
        # Without a signature a tensor's own name is the public one.
        graph.tensors[new].name = graph.tensors[old].name or f"tensor_{old}".encode()
    drop_unused(file)
    return write_true_versions(pack(file))


def cuttable(model: Model, refused: Container[int]) -> tuple[PostprocessStep, ...]:
    """Return the last step of each output that a loader could do.

    Args:
        model: The model.
        refused: First outputs of ops that stay off the accelerator; other ops are not worth a step.
    """
    graph = model.main
    counts = Counter(graph.outputs)
    places = zip(graph.outputs, model.output_names(), strict=True)
    found = (_last_step(graph, at, name, counts) for at, (tensor, name) in enumerate(places) if tensor in refused)
    return tuple(step for step in found if step is not None)


def before_class_choice(tflite: bytes, tail: Sequence[PostprocessStep]) -> bytes:
    """Return a file without the ARG_MAX of a tail: its outputs are the scores that classes are chosen by.

    Args:
        tflite: The file as it was before the tail was cut, or before other repairs too.
        tail: What was cut.
    """
    for step in tail:
        model = read_model(tflite)
        found = cut(model, step.output) if step.op == "ARG_MAX" else None
        if found is not None and found[1].op == "ARG_MAX":
            tflite = cut_file(tflite, step.output, model.main.producers[model.main.outputs[step.output]])
    return tflite


def _last_step(graph: Graph, output: int, name: str, counts: Mapping[int, int]) -> PostprocessStep | None:
    """Return what a loader would do for the op that makes an output; `counts` says how often each is an output."""
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
    if op.name == "ARG_MAX" and (source.dtype == "FLOAT32" or _scaled(source)):
        axis = _axis(graph, op, source.rank)
        step = None if axis is None else PostprocessStep(output, name, op.name, axis, 1.0, result.dtype, result.shape)
    elif op.name == "SOFTMAX" and source.dtype == "FLOAT32":
        beta = float(op.options.get("beta", 1.0))
        step = PostprocessStep(output, name, op.name, last, beta, result.dtype, result.shape)
    elif op.name == "DEQUANTIZE" and source.quantization is not None and _scaled(source):
        scale, zero_point = float(source.quantization.scale[0]), int(source.quantization.zero_point[0])
        step = PostprocessStep(output, name, op.name, last, 1.0, result.dtype, result.shape, scale, zero_point)
    return None if step is None or fault(source.shape, (step,)) else step


def _scaled(tensor: Tensor) -> bool:
    """Return whether a tensor's values are integers that a loader gives as real numbers."""
    known = tensor.quantization
    return tensor.dtype in _QUANTIZED and known is not None and known.scale.size == 1 and bool(known.scale[0] > 0)


def _axis(graph: Graph, op: Op, rank: int) -> int | None:
    """Return the axis of ARG_MAX counted from 0, None when it is not a constant of the file."""
    axis = graph.tensors[op.inputs[1]].data if len(op.inputs) == 2 and op.inputs[1] >= 0 else None
    if axis is None or axis.size != 1 or not -rank <= int(axis.ravel()[0]) < rank:
        return None
    return int(axis.ravel()[0]) % rank
