"""A whole input format in one file: `.npzmodel`, an .npz with the `weights` (out, in) and `bias` (out) of dense layers.

Layer N has the arrays `weights_N` and `bias_N`; layers are followed by ReLU, except the last one.
"""

import zipfile
from pathlib import Path
from typing import Any

from edgepack.convert import FloatModel
from edgepack.convert.importers.base import Conversion, Importer
from edgepack.errors import ModelFileError


class NpzModelImporter(Importer):
    """Writes one FULLY_CONNECTED per layer."""

    id = "npzmodel"
    title = "a dense network (.npzmodel)"
    suffixes = (".npzmodel",)

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Look for the first layer in a zip."""
        return (
            head.startswith(b"PK") and zipfile.is_zipfile(path) and "weights_0.npy" in zipfile.ZipFile(path).namelist()
        )

    def convert(self, conversion: Conversion) -> FloatModel:
        """Build the .tflite from the arrays."""
        import numpy as np

        try:
            arrays = dict(np.load(conversion.path, allow_pickle=False))
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise ModelFileError(f"'{conversion.path}' is a broken .npzmodel: {error}") from error
        return FloatModel(_dense_layers(arrays), self.id, quantized=False, checked=None)


def _dense_layers(arrays: dict[str, Any]) -> bytes:
    import numpy as np

    from edgepack.graph.edit import builtin_code, pack
    from edgepack.graph.read import schema

    api = schema()
    model, graph, code = api.ModelT(), api.SubGraphT(), api.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin_code("FULLY_CONNECTED")
    code.version = 1
    model.version, model.description = 3, b"edgepack-npzmodel"
    model.buffers, model.operatorCodes, model.subgraphs = [api.BufferT()], [code], [graph]
    graph.tensors, graph.operators = [], []

    def tensor(name: str, shape: tuple[int, ...], data: Any = None) -> int:
        entry = api.TensorT()
        entry.name, entry.shape, entry.type, entry.hasRank = name.encode(), np.array(shape, np.int32), 0, True
        if data is not None:
            buffer = api.BufferT()
            buffer.data = np.ascontiguousarray(data, np.float32).reshape(-1).view(np.uint8)
            entry.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(entry)
        return len(graph.tensors) - 1

    layers = sum(name.startswith("weights_") for name in arrays)
    current = tensor("x", (1, arrays["weights_0"].shape[1]))
    graph.inputs = np.array([current], np.int32)
    for number in range(layers):
        weights, bias = arrays[f"weights_{number}"], arrays[f"bias_{number}"]
        last = number == layers - 1
        op = api.OperatorT()
        op.builtinOptionsType, op.builtinOptions = (
            api.BuiltinOptions.FullyConnectedOptions,
            api.FullyConnectedOptionsT(),
        )
        op.builtinOptions.fusedActivationFunction = 0 if last else api.ActivationFunctionType.RELU
        constants = [tensor(f"weights_{number}", weights.shape, weights), tensor(f"bias_{number}", bias.shape, bias)]
        op.inputs = np.array([current, *constants], np.int32)
        current = tensor("y" if last else f"layer_{number}", (1, len(bias)))
        op.outputs = np.array([current], np.int32)
        graph.operators.append(op)
    graph.outputs = np.array([current], np.int32)
    return pack(model)
