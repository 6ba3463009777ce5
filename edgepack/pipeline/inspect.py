"""`inspect`: a model as a JSON document with tensors, ops, quantization and sizes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepack.convert.importers.registry import is_tflite
from edgepack.documents import read_json
from edgepack.errors import BundleError
from edgepack.graph import Model, Tensor, read_model
from edgepack.pipeline.model_info import own_metadata
from edgepack.pipeline.options import ModelOptions, Progress, silent
from edgepack.quantize.select import scheme_of


def inspect(path: Path, options: ModelOptions | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Describe a model, or the host model of a bundle.

    Args:
        path: A model or the folder of a bundle. Only Keras models and SavedModels load TensorFlow.
        options: How the model is read.
        progress: Called with a sentence about each step that takes time.

    Raises:
        EdgepackError: The model cannot be read.
    """
    source_format, data, name = _load(path, options or ModelOptions(), progress)
    model = read_model(data)
    raw = data if isinstance(data, bytes) else data.read_bytes()
    return {"file": name, "source_format": source_format, **describe(model), "metadata": _metadata(raw)}


def _load(path: Path, options: ModelOptions, progress: Progress) -> tuple[str, bytes | Path, str]:
    if is_tflite(path):
        return "", path, path.name
    manifest = path / "manifest.json"
    if manifest.is_file():
        try:
            document = read_json(manifest)
            target = str(document["target"]["id"])
            chosen = path / str(document["model"]["host"])
            if not chosen.resolve().is_relative_to(path.resolve()) or not chosen.is_file():
                raise KeyError("model.host")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"'{path}' has a manifest that names no model or target", hint=f"run `edgepack verify {path}`"
            ) from error
        return f"bundle for {target}", chosen, f"{path.name}/model/{chosen.name}"
    from edgepack.pipeline.float_model import convert_model
    from edgepack.pipeline.session import Session

    with Session(options, progress) as session:
        model, _ = convert_model(session, path)
    return model.source_format, model.tflite, path.name


def describe(model: Model) -> dict[str, Any]:
    """Return the content of a .tflite as JSON values."""
    graph = model.main
    # Tensors can share a buffer: each one is counted once.
    buffers = {t.buffer: int(t.raw.size) for g in model.graphs for t in g.tensors if t.raw is not None}
    counts = Counter(op.label for op in graph.ops)
    return {
        "bytes": model.size,
        "scheme": scheme_of(model),
        "constant_bytes": sum(buffers.values()),
        "description": model.description,
        "min_runtime_version": model.min_runtime_version,
        "subgraphs": len(model.graphs),
        "stateful": model.is_stateful,
        "inputs": _interface(model, model.input_names(), graph.inputs),
        "outputs": _interface(model, model.output_names(), graph.outputs),
        "op_counts": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "ops": [
            {"index": op.index, "op": op.label, "version": op.version, "output": graph.output_name(op)}
            for op in graph.ops
        ],
        "tensors": [_tensor(tensor) for tensor in graph.tensors],
        "signatures": [
            {"key": s.key, "inputs": list(s.inputs), "outputs": list(s.outputs), "subgraph": s.graph}
            for s in model.signatures
        ],
    }


def _metadata(tflite: bytes) -> dict[str, Any] | None:
    """Return the TFLite metadata of a file, None when there is none or it cannot be read."""
    own, _ = own_metadata(tflite)
    return None if own is None else asdict(own)


def _interface(model: Model, names: Sequence[str], indices: Sequence[int]) -> list[dict[str, Any]]:
    """Return inputs or outputs as JSON values, whatever their type: a model of strings can be shown as well."""
    described = []
    for name, index in zip(names, indices, strict=True):
        tensor = model.main.tensors[index]
        described.append(
            {
                "name": name,
                "tensor": tensor.name,
                "shape": list(tensor.shape_signature),
                "dtype": tensor.dtype,
                **_single_scale(tensor),
            }
        )
    return described


def _single_scale(tensor: Tensor) -> dict[str, Any]:
    """Return scale and zero point of a tensor, zeros for one without or with one per channel."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale.size != 1:
        return {"scale": 0.0, "zero_point": 0}
    return {"scale": float(quantization.scale[0]), "zero_point": int(quantization.zero_point[0])}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    quantization = tensor.quantization
    return {
        "index": tensor.index,
        "name": tensor.name,
        "shape": list(tensor.shape_signature),
        "dtype": tensor.dtype,
        "constant": tensor.is_constant,
        "bytes": 0 if tensor.raw is None else int(tensor.raw.size),
        **_single_scale(tensor),
        "channels": 0 if quantization is None else int(quantization.scale.size),
    }
