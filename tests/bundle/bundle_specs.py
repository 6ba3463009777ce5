"""Bundle specs for tests: from real model files with the real runtime, or from a tiny model defined here."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle.golden import run_golden
from edgepack.bundle.spec import (
    BundleSpec,
    CalibrationSpec,
    CompileSpec,
    Golden,
    GoldenCase,
    ModelFile,
    SourceSpec,
    TensorSpec,
    tensor_spec,
)
from edgepack.graph import NUMPY_DTYPES, read_model
from edgepack.profiles.model import BundleRule, CompilerRule, OpTable, PartitionRule, SchemeRule, TargetProfile
from edgepack.quantize.select import scheme_of
from edgepack.runtime.runner import model_inputs, model_outputs

TEMPLATES = {
    "cpu": BundleRule("linux", "none"),
    "edgetpu": BundleRule("linux", "edgetpu"),
    "android-gpu": BundleRule("android", "gpu"),
    "hexagon": BundleRule("android", "qnn"),
}
TITLES = {"cpu": "CPU", "edgetpu": "Coral Edge TPU", "android-gpu": "Android GPU", "hexagon": "Qualcomm Hexagon"}


def profile_of(target: str, **changes: Any) -> TargetProfile:
    """Return a small profile with a target's bundle rule: the contents of a bundle must not depend on op tables."""
    compiler = {"edgetpu": CompilerRule("edgetpu"), "hexagon": CompilerRule("qnn")}.get(target)
    profile = TargetProfile(
        id=target,
        title=TITLES[target],
        summary="",
        folder=Path("no-such-folder"),
        schemes=(SchemeRule("int8", "INT8"),),
        batch=1,
        fallback="host",
        partition=PartitionRule(),
        ops=OpTable({}, {}),
        compiler=compiler,
        memory=None,
        bundle=TEMPLATES[target],
        variants=(),
        socs={},
        sources=(),
        sha256="0" * 64,
    )
    return replace(profile, **changes)


def random_cases(inputs: tuple[TensorSpec, ...], count: int, seed: int = 0) -> list[list[np.ndarray]]:
    """Return raw inputs over the whole range of each type."""
    generator = np.random.default_rng(seed)

    def one(tensor: TensorSpec) -> np.ndarray:
        dtype = NUMPY_DTYPES[tensor.dtype]
        if dtype.kind == "f":
            return generator.uniform(-1, 1, tensor.shape).astype(dtype)
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, tensor.shape, dtype=dtype, endpoint=True)

    return [[one(tensor) for tensor in inputs] for _ in range(count)]


def spec_of(data: bytes, name: str, target: str, *, compiled: bytes | None = None, **changes: Any) -> BundleSpec:
    """Return the spec of a model's bytes, with golden outputs from the real runtime."""
    model = read_model(data)
    inputs = tuple(tensor_spec(info) for info in model_inputs(model))
    outputs = tuple(tensor_spec(info) for info in model_outputs(model))
    cases = random_cases(inputs, 2)
    results = run_golden(data, cases)
    host = ModelFile("main" if compiled is None else "host", "model.tflite", data)
    models = (host,) if compiled is None else (host, ModelFile("compiled", "model_edgetpu.tflite", compiled))
    spec = BundleSpec(
        name=name,
        version="0.1.0",
        profile=profile_of(target),
        scheme=scheme_of(model),
        scheme_reason="it runs everywhere",
        source=SourceSpec("tflite", hashlib.sha256(data).hexdigest(), len(data)),
        inputs=inputs,
        outputs=outputs,
        models=models,
        runs=models[-1].filename,
        golden=Golden(
            platform.machine(),
            f"ai-edge-litert {metadata.version('ai-edge-litert')}",
            tuple(GoldenCase(tuple(i), tuple(o)) for i, o in zip(cases, results, strict=True)),
        ),
        compile=CompileSpec("compiled", "edgetpu_compiler", "16.0") if compiled else CompileSpec("none"),
        quality={"snr_db": 30.5, "samples": 20},
        placement={"total": 4, "accelerator": 3, "host": 1, "unsupported": 0, "partitions": 1},
        calibration=CalibrationSpec(100, False, "min-max"),
        state=model.state,
    )
    return replace(spec, **changes)


def tiny_spec(target: str, **changes: Any) -> BundleSpec:
    """Return a fixed spec without a real model: two inputs, three outputs, labels, int and float, names that bite."""
    inputs = (
        TensorSpec("My image", "serving_default_image:0", (1, 2, 2, 3), "INT8", 0.0078125, -1),
        TensorSpec("class", "serving_default_class:0", (1, 4), "FLOAT32"),
    )
    outputs = (
        TensorSpec("scores", "StatefulPartitionedCall:0", (1, 3), "UINT8", 0.00390625, 0, ("cat", "dog", 'a "b" $c')),
        TensorSpec("2nd-output", "StatefulPartitionedCall:1", (1, 2), "FLOAT32"),
        TensorSpec("scores", "StatefulPartitionedCall:2", (), "INT64"),
    )
    case = GoldenCase(
        inputs=(np.arange(-6, 6, dtype=np.int8).reshape(1, 2, 2, 3), np.array([[0.5, -1.0, 2.0, 0.25]], np.float32)),
        outputs=(np.array([[10, 200, 46]], np.uint8), np.array([[1.5, -2.5]], np.float32), np.array(7, np.int64)),
    )
    data = b"not a model, only a name for one"
    models: tuple[ModelFile, ...] = (ModelFile("main", "tiny.tflite", data),)
    compile_ = CompileSpec("none")
    if target == "edgetpu":
        models = (ModelFile("host", "tiny.tflite", data), ModelFile("compiled", "tiny_edgetpu.tflite", data + b"!"))
        compile_ = CompileSpec("compiled", "edgetpu_compiler", "16.0.384591198")
    if target == "hexagon":
        compile_ = CompileSpec("skipped", "qairt", "", "the QAIRT SDK is not installed")
    spec = BundleSpec(
        name="Tiny Model 2.0",
        version="0.1.0",
        profile=profile_of(target),
        scheme="int8",
        scheme_reason="it runs on everything the target has",
        source=SourceSpec("keras", "1" * 64, 1234),
        inputs=inputs,
        outputs=outputs,
        models=models,
        runs=models[-1].filename,
        golden=Golden("x86_64", "ai-edge-litert 2.3.0", (case,)),
        compile=compile_,
        quality={"snr_db": 30.5, "top1": 0.9, "top1_float": 0.91, "samples": 20},
        placement={"total": 4, "accelerator": 3, "host": 1, "unsupported": 0, "partitions": 1},
        calibration=CalibrationSpec(100, False, "min-max"),
        notes=("the model was made for a test",),
    )
    return replace(spec, **changes)


def spec_of_file(path: Path, target: str, **changes: Any) -> BundleSpec:
    """Return the spec of a model file, with the output of the real Edge TPU compiler where there is one."""
    compiled = path.with_name(f"{path.stem}_edgetpu.tflite")
    changes.setdefault("name", path.stem)
    name = changes.pop("name")
    if target == "edgetpu" and compiled.is_file() and "compiled" not in changes:
        changes["compiled"] = compiled.read_bytes()
    return spec_of(path.read_bytes(), name, target, **changes)


def write_tree(files: Mapping[str, bytes], folder: Path) -> Path:
    """Write rendered files plainly and return the folder."""
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder


def quantize_model(size: int, scale: float, zero_point: int, dtype: str) -> bytes:
    """Return a .tflite that quantizes `size` floats: one QUANTIZE op, written with the schema's own classes."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.QUANTIZE
    code.version = 1
    tensors = []
    for name, kind in ((b"real", "FLOAT32"), (b"raw", dtype)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, [1, size], 0
        tensor.type = getattr(schema.TensorType, kind)
        tensors.append(tensor)
    tensors[1].quantization = schema.QuantizationParametersT()
    tensors[1].quantization.scale, tensors[1].quantization.zeroPoint = [scale], [zero_point]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.operators = b"main", tensors, [operator]
    graph.inputs, graph.outputs = [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
