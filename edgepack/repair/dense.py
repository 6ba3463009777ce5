"""Sparse constants of a quantized file as dense ones, without the DENSIFY ops that unpack them."""

import numpy as np

from edgepack.graph import NUMPY_DTYPES, Op, Tensor, read_model
from edgepack.graph.edit import add_buffer, pack, unpack, write_true_versions
from edgepack.graph.sparse import dense_values
from edgepack.graph.unused import drop_unused
from edgepack.repair.rewrite_search import Rewrite


def dense_constants(tflite: bytes) -> tuple[bytes, tuple[Rewrite, ...]]:
    """Store the constants dense that a DENSIFY unpacks; the values are the same, the file is larger.

    Args:
        tflite: Any file. Float files are made dense when they are read (`edgepack.graph.widen`).

    Returns:
        The file, the same bytes where there is nothing to do, and the rewrites.

    Raises:
        ModelFileError: A sparse constant contradicts its shape.
    """
    source = read_model(tflite)
    ops = [op for op in source.main.ops if op.name == "DENSIFY" and _unpacks(source.main.tensors, op)]
    if not ops:
        return tflite, ()
    file = unpack(tflite)
    graph = file.subgraphs[0]
    rewrites = []
    for op in ops:
        tensor, result = source.main.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
        stored = np.frombuffer(np.ascontiguousarray(tensor.raw).data, NUMPY_DTYPES[tensor.dtype])
        result.buffer = add_buffer(file, dense_values(stored, tensor.shape, graph.tensors[op.inputs[0]].sparsity))
        message = f"the sparse constant '{tensor.name}' stored dense, without DENSIFY"
        rewrites.append(Rewrite("dense-constant", op.label, op.index, source.main.output_name(op), message, True, 0))
    gone = {op.index for op in ops}
    graph.operators = [op for index, op in enumerate(graph.operators) if index not in gone]
    drop_unused(file)
    return write_true_versions(pack(file)), tuple(rewrites)


def _unpacks(tensors: tuple[Tensor, ...], op: Op) -> bool:
    if len(op.inputs) != 1 or len(op.outputs) != 1 or min(op.inputs[0], op.outputs[0]) < 0:
        return False
    tensor, result = tensors[op.inputs[0]], tensors[op.outputs[0]]
    known = tensor.is_constant and tensor.has_sparsity and tensor.dtype in NUMPY_DTYPES
    return known and (result.shape, result.dtype) == (tensor.shape, tensor.dtype)
