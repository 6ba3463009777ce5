"""manifest.json: a bundle's contents and how they were built. Sorted keys, no clock, no host name, no absolute path."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepack.bundle.android_runtime import higher_version, runtime_library, runtime_of, runtime_reason
from edgepack.bundle.spec import BundleSpec, TensorSpec
from edgepack.choices import Platform
from edgepack.digests import sha256
from edgepack.runtime.postprocessing import PostprocessStep

SCHEMA = 1
FILE_NAME = "manifest.json"
SBOM_FILE = "sbom.cdx.json"
#: Detached signature of a signed bundle; the name is the default of the model-signing command line.
SIGNATURE_FILE = "model.sig"


def plain(value: Any) -> Any:
    """Return a value in JSON's types: tuples as lists, NumPy numbers as numbers, infinities and NaN as null.

    Raises:
        TypeError: JSON has no such type.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a manifest cannot contain a {type(value).__name__}")


def to_json_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as UTF-8 JSON with sorted keys; the same document gives the same bytes."""
    text = json.dumps(plain(document), sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def tensor_entry(tensor: TensorSpec) -> dict[str, Any]:
    """Return the manifest's entry of an input or output; only outputs that the loader postprocesses have a `tail`."""
    entry = {
        "name": tensor.name,
        "tensor": tensor.tensor_name,
        "shape": list(tensor.shape),
        "dtype": tensor.dtype,
        "scale": tensor.scale if tensor.quantized else None,
        "zero_point": tensor.zero_point if tensor.quantized else None,
        "labels": list(tensor.labels) or None,
        "preprocessing": tensor.preprocessing,
    }
    return entry | ({"tail": [tail_entry(step) for step in tensor.tail]} if tensor.tail else {})


def tail_entry(step: PostprocessStep) -> dict[str, Any]:
    """Return the manifest's entry of a postprocessing step; shape and dtype are those of its result."""
    return {"op": step.op, "axis": step.axis, "beta": step.beta, "shape": list(step.shape), "dtype": step.dtype}


def output_spec(position: int, entry: Mapping[str, Any]) -> TensorSpec:
    """Return the spec of an output from its validated entry: the inverse of `tensor_entry`."""
    return TensorSpec(
        name=entry["name"],
        tensor_name=entry["tensor"],
        shape=tuple(entry["shape"]),
        dtype=entry["dtype"],
        scale=entry["scale"] or 0.0,
        zero_point=entry["zero_point"] or 0,
        labels=tuple(entry["labels"] or ()),
        preprocessing=entry["preprocessing"],
        tail=tuple(
            PostprocessStep(position, entry["name"], **{**step, "shape": tuple(step["shape"])})
            for step in entry.get("tail", ())
        ),
    )


def _android_entry(spec: BundleSpec) -> dict[str, Any]:
    """Return which LiteRT the Android loader is written for, and what an app gets that resolves to a higher version."""
    return {
        "runtime": runtime_of(spec),
        "reason": runtime_reason(spec),
        "artifact": runtime_library(spec).coordinates,
        "higher_version": higher_version(spec),
    }


def make_manifest(spec: BundleSpec, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest of a bundle.

    Args:
        spec: The bundle's values.
        files: Every file of the bundle except manifest.json, by path relative to the bundle.
    """
    return {
        "schema": SCHEMA,
        "edgepack": spec.version,
        "name": spec.name,
        "source": {"format": spec.source.format, "sha256": spec.source.sha256, "bytes": spec.source.bytes},
        "target": {
            "id": spec.profile.id,
            "title": spec.profile.title,
            "profile_sha256": spec.profile.sha256,
            "variant": spec.checked.variant or None,
            "soc": spec.checked.soc or None,
            "runtime_version": spec.checked.runtime_version,
        },
        "scheme": {"id": spec.scheme, "reason": spec.scheme_reason},
        "model": {
            "runs": f"model/{spec.runs}",
            "host": f"model/{spec.host.filename}",
            **({"stateful": True} if spec.state else {}),
            "files": [
                {
                    "path": f"model/{model.filename}",
                    "role": model.role,
                    "bytes": len(model.data),
                    "sha256": sha256(model.data),
                }
                for model in spec.models
            ],
        },
        "inputs": [tensor_entry(tensor) for tensor in spec.inputs],
        "outputs": [tensor_entry(tensor) for tensor in spec.outputs],
        "compile": {
            "status": spec.compile.status,
            "tool": spec.compile.tool or None,
            "version": spec.compile.version or None,
            "reason": spec.compile.reason or None,
            **({"runtime_version": spec.compile.runtime_version} if spec.compile.runtime_version else {}),
        },
        "quality": spec.quality,
        **({"task": spec.task.to_json() | {"labels": list(spec.task_labels)}} if spec.task else {}),
        **({"simulation": list(spec.simulation)} if spec.simulation else {}),
        **({"ladder": list(spec.ladder)} if spec.ladder else {}),
        "placement": spec.placement,
        **({"latency": spec.latency} if spec.latency else {}),
        **({"android": _android_entry(spec)} if spec.rule.template == Platform.ANDROID else {}),
        "calibration": None
        if spec.calibration is None
        else {
            "samples": spec.calibration.samples,
            "random": spec.calibration.random,
            "method": spec.calibration.method,
        },
        "golden": {"index": "golden/index.json", "cases": len(spec.golden.cases)},
        "warnings": list(spec.warnings),
        "notes": list(spec.notes),
        "sbom": SBOM_FILE,
        "signature": {"path": SIGNATURE_FILE, "method": spec.signed_with} if spec.signed_with else None,
        "files": {path: sha256(data) for path, data in files.items()},
    }
