"""Files that nothing can run: compiled for one chip, refused by the runtime, without their weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from edgepack.bundle.verify import verify
from edgepack.errors import ModelFileError, UnfitModelError
from edgepack.graph.custom_ops import COMPILED_OPS
from edgepack.graph.edit import op_code, pack, unpack
from edgepack.graph.read import schema
from edgepack.pipeline.build import build
from edgepack.pipeline.check import check
from edgepack.pipeline.inspect import inspect
from edgepack.pipeline.options import BuildOptions

REPOSITORY = Path(__file__).resolve().parents[2]
INT8 = REPOSITORY / "tests" / "corpus" / "classifier-int8.tflite"
FLOAT = REPOSITORY / "tests" / "data" / "digits_float.tflite"
TARGETS = ["cpu", "android-gpu", "edgetpu", "hexagon"]


def _with_custom_op(code: str) -> bytes:
    """Return the int8 classifier with a custom op in place of its first layer, as compilers write it."""
    model = unpack(INT8.read_bytes())
    custom = schema().OperatorCodeT()
    custom.builtinCode = custom.deprecatedBuiltinCode = 32
    custom.customCode, custom.version = code.encode(), 1
    model.operatorCodes.append(custom)
    op = model.subgraphs[0].operators[0]
    op.opcodeIndex = len(model.operatorCodes) - 1
    op.inputs = op.inputs[:1]
    op.builtinOptions, op.builtinOptionsType = None, 0
    return pack(model)


def _refused_by_the_runtime() -> bytes:
    """Return the int8 classifier with a transposed shape for the weights of a layer."""
    model = unpack(INT8.read_bytes())
    weights = model.subgraphs[0].operators[3].inputs[1]
    model.subgraphs[0].tensors[weights].shape = np.array([16, 10], np.int32)
    return pack(model)


@pytest.mark.parametrize("code", sorted(COMPILED_OPS))
def test_a_compiled_file_is_refused_with_the_file_to_give(tmp_path: Path, code: str) -> None:
    """No bundle is built of a compiled file; the hint names the file from before, and `check` says the same."""
    compiled = tmp_path / "net_edgetpu.tflite"
    compiled.write_bytes(_with_custom_op(code))
    for _ in range(2):
        with pytest.raises(UnfitModelError, match="was compiled by") as caught:
            build(compiled, TARGETS, BuildOptions(out=tmp_path / "out"))
        (tmp_path / "net.tflite").write_bytes(INT8.read_bytes())
    assert str(tmp_path / "net.tflite") in caught.value.hint
    assert not (tmp_path / "out").exists()
    for result in check(compiled, TARGETS).results:
        assert result.report is not None
        assert any("A build needs the file from before" in note for note in result.report.notes)


def test_a_file_without_its_weights_is_refused(tmp_path: Path) -> None:
    """A variable that is read and never assigned: XNNPACK would compute with memory that nothing has written."""
    net = builders.Net()
    x, y = net.tensor("x", (1, 4)), net.tensor("y", (1, 4))
    handle, value = net.tensor("handle", (), dtype="RESOURCE"), net.tensor("value", (1, 4))
    net.op("VAR_HANDLE", [], [handle])
    net.op("READ_VARIABLE", [handle], [value])
    net.op("ADD", [x, value], [y])
    model = unpack(net.build([x], [y]))
    op = model.subgraphs[0].operators[0]
    op.builtinOptionsType = schema().BuiltinOptions.VarHandleOptions
    op.builtinOptions = schema().VarHandleOptionsT()
    op.builtinOptions.sharedName = b"dense/kernel"
    path = tmp_path / "weightless.tflite"
    path.write_bytes(pack(model))
    with pytest.raises(ModelFileError, match=r"does not contain its weights.*'dense/kernel'"):
        build(path, ["cpu"], BuildOptions(dry_run=True))
    write = schema().OperatorT()
    write.opcodeIndex = op_code(model, "ASSIGN_VARIABLE")
    write.inputs, write.outputs = np.array([handle, x], np.int32), np.array([], np.int32)
    model.subgraphs[0].operators.insert(1, write)
    path.write_bytes(pack(model))
    assert build(path, ["cpu"], BuildOptions(dry_run=True)).results[0].error is None


@pytest.mark.parametrize("samples", [False, True])
def test_a_file_that_the_runtime_refuses_is_no_bundle(tmp_path: Path, samples: bool) -> None:
    """Every target ends with exit code 3, with samples and without: such a file can never be measured or verified."""
    path = tmp_path / "net.tflite"
    path.write_bytes(_refused_by_the_runtime())
    given = tmp_path / "x.npz"
    np.savez(given, x=np.zeros((4, 8, 8, 3), np.float32))
    options = BuildOptions(out=tmp_path / "out", samples=str(given) if samples else "")
    for result in build(path, TARGETS, options).results:
        assert isinstance(result.error, UnfitModelError)
        assert "cannot load the model" in result.error.message
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the digits model."""
    out = tmp_path_factory.mktemp("bundles")
    built = build(FLOAT, ["cpu"], BuildOptions(out=out, name="digits")).results[0].bundle
    assert built is not None
    return built


def _without_golden_vectors(bundle: Path, copy: Path, model: bytes | None = None) -> Path:
    """Return a copy of a bundle that lists no golden cases, with another model if one is given; digests fit."""
    from edgepack.digests import sha256

    shutil.copytree(bundle, copy)
    manifest: dict[str, Any] = json.loads((copy / "manifest.json").read_text())
    index = copy / manifest["golden"]["index"]
    changed = {manifest["golden"]["index"]: json.dumps({**json.loads(index.read_text()), "cases": []}).encode()}
    if model is not None:
        changed[manifest["model"]["host"]] = model
    for path, data in changed.items():
        (copy / path).write_bytes(data)
        manifest["files"][path] = sha256(data)
    for entry in manifest["model"]["files"]:
        data = (copy / entry["path"]).read_bytes()
        entry["sha256"], entry["bytes"] = sha256(data), len(data)
    for path in [path for path in manifest["files"] if "/case_" in path]:
        del manifest["files"][path]
        (copy / path).unlink()
    manifest["golden"]["cases"] = 0
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_bundle_without_golden_vectors_is_run_on_zeros(bundle: Path, tmp_path: Path) -> None:
    """A model that runs is a note; one that the runtime refuses is a problem, not a sound bundle."""
    sound = verify(_without_golden_vectors(bundle, tmp_path / "sound"))
    assert any("the model runs" in note for note in sound.notes)
    model = unpack(FLOAT.read_bytes())
    graph = model.subgraphs[0]
    dense = next(op for op in graph.operators if len(op.inputs) == 3 and len(graph.tensors[op.inputs[1]].shape) == 2)
    weights = graph.tensors[dense.inputs[1]]
    weights.shape = weights.shape[::-1].copy()
    broken = verify(_without_golden_vectors(bundle, tmp_path / "broken", pack(model)))
    assert [p.what for p in broken.problems if "cannot load the model" in p.what], broken


def test_a_model_of_strings_can_be_inspected(tmp_path: Path) -> None:
    """`inspect` shows STRING tensors; a build names them as the reason for its refusal."""
    net = builders.Net()
    text, first = net.tensor("text", (3,), dtype="STRING"), net.tensor("first", (1,), dtype="STRING")
    net.op("GATHER", [text, net.constant("zero", np.array([0]), "INT32")], [first])
    path = tmp_path / "text.tflite"
    path.write_bytes(net.build([text], [first]))
    document = inspect(path)
    assert [(entry["name"], entry["dtype"]) for entry in document["inputs"]] == [("text", "STRING")]
    assert document["outputs"][0]["dtype"] == "STRING"
    with pytest.raises(UnfitModelError, match="'text' has the type STRING"):
        build(path, ["cpu"], BuildOptions(dry_run=True))
