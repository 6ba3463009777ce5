"""Tensor names and the signature of a converted file: the author's names for inputs and outputs, plain ones inside."""

import re
from collections.abc import Sequence
from typing import Any

from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import schema

#: Prefixes that tracing and loading add to the author's names.
_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+(?=.)")

#: Counters per process that TensorFlow appends to function names: `__inference_serve_1234`, `while_body_567`.
_COUNTED = re.compile(r"(?<=[A-Za-z_])_?\d{2,}$")


def write_interface(tflite: bytes, key: str, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Write one signature for the main graph, and tensor names that do not change from run to run.

    The converter drops names and signatures of a frozen function and keeps only the order, so the author's names are
    assigned by position. Inner tensors are named after the last operation that was fused into them, without
    TensorFlow's counters, which depend on what the process did before.

    Args:
        tflite: A file whose main graph has its inputs and outputs in the order of the names.
        key: Signature key such as `serving_default`.
        inputs: Unique names of the inputs.
        outputs: Unique names of the outputs.

    Returns:
        The edited file.
    """
    model = unpack(tflite)
    graph = model.subgraphs[0]
    signature = schema().SignatureDefT()
    signature.signatureKey = key.encode()
    signature.subgraphIndex = 0
    signature.inputs = [_entry(name, index) for name, index in zip(inputs, graph.inputs, strict=True)]
    signature.outputs = [_entry(name, index) for name, index in zip(outputs, graph.outputs, strict=True)]
    model.signatureDefs = [signature]
    fixed: dict[int, str] = {}
    for name, index in [*zip(inputs, graph.inputs, strict=True), *zip(outputs, graph.outputs, strict=True)]:
        if name not in fixed.values():
            # A tensor that is input and output, or two outputs, can have only one name: the first.
            fixed.setdefault(int(index), name)
    for number, part in enumerate(model.subgraphs):
        if number:
            part.name = _COUNTED.sub("", (part.name or b"").decode("utf-8", "replace")).encode()
        _name_tensors(part, {} if number else fixed)
    return pack(model)


def plain_name(name: str) -> str:
    """Return the first of a tensor's fused names, without call wrappers and counters.

    `StatefulPartitionedCall/net/relu/Relu;net/conv/BiasAdd;6012` becomes `net/relu/Relu`.
    """
    parts = [part for part in name.split(";") if part and not part.isdigit()]
    first = _CALLS.sub("", parts[0]) if parts else ""
    return re.sub(r"__inference_(\w+?)_\d+", r"\1", first)


def _name_tensors(graph: Any, fixed: dict[int, str]) -> None:
    """Rename every tensor of a graph; `fixed` maps the index of inputs and outputs to their names."""
    taken = set(fixed.values())
    for index, tensor in enumerate(graph.tensors):
        if index in fixed:
            tensor.name = fixed[index].encode()
            continue
        base = plain_name((tensor.name or b"").decode("utf-8", "replace")) or f"tensor_{index}"
        name, number = base, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        tensor.name = name.encode()


def _entry(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name = name.encode()
    entry.tensorIndex = int(index)
    return entry
