"""A manifest that states something else than the bundle's own files is refused, though every hash is right."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgepack.bundle.archive import pack
from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.verify_result import VerifyResult
from edgepack.cache import sha256
from edgepack.child import Worker
from edgepack.pipeline.verify import verify

REPOSITORY = Path(__file__).resolve().parents[3]
EVALUATION = REPOSITORY / "examples/digits/eval.npz"
MODEL = "model/digits.tflite"
Manifest = dict[str, Any]


def edit(bundle: Path, change: Callable[[Manifest], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    (bundle / "manifest.json").write_bytes(to_json_bytes(manifest))


def put(bundle: Path, path: str, data: bytes) -> None:
    """Write a file and list it with its right hash."""
    (bundle / path).parent.mkdir(parents=True, exist_ok=True)
    (bundle / path).write_bytes(data)
    edit(bundle, lambda manifest: manifest["files"].update({path: sha256(data)}))


def assert_refused(result: VerifyResult, text: str) -> None:
    said = [f"{problem.path}: {problem.what}" for problem in result.problems]
    assert any(text in line for line in said), said


def test_a_sound_bundle_passes_with_its_samples(unsigned: Path, child: Worker) -> None:
    """Scheme, placement, labels, copies and accuracy are computed again and agree; the bundle is called unsigned."""
    result = verify(unsigned, evaluation=str(EVALUATION), worker=child)
    assert result.problems == ()
    assert result.signature == "unsigned" and result.to_json()["signature"] == "unsigned"
    assert any("as in the manifest" in note for note in result.notes)
    assert not any("placement was not" in note for note in result.notes)


FORGERIES: dict[str, tuple[Callable[[Manifest], object], str]] = {
    "size": (lambda m: m["model"]["files"][0].update(bytes=1), "bytes, the manifest 1"),
    "scheme": (lambda m: m["scheme"].update(id="float32"), "scheme.id: the manifest has float32"),
    "float weights": (lambda m: m["scheme"].update(id="float16"), "scheme.id: the manifest has float16"),
    "wider scheme": (lambda m: m["scheme"].update(id="int16x8"), "scheme.id: the manifest has int16x8"),
    "unknown scheme": (lambda m: m["scheme"].update(id="int1"), "scheme.id"),
    "all ops accelerated": (
        lambda m: m["placement"].update(accelerator=m["placement"]["accelerator"] + 1),
        "placement.accelerator",
    ),
    "fewer ops": (lambda m: m["placement"].update(total=3), "placement.total"),
    "partitions": (lambda m: m["placement"].update(partitions=9), "placement.partitions"),
    "variant": (lambda m: m["target"].update(variant="better"), "variant"),
    "title": (lambda m: m["target"].update(title="Trusted Hardware"), "target.title"),
    "labels swapped": (lambda m: m["outputs"][0]["labels"].reverse(), "labels"),
    "labels removed": (lambda m: m["outputs"][0].update(labels=None), "labels"),
    "a label more": (lambda m: m["outputs"][0]["labels"].append("x"), "expected 10 labels, got 11"),
    "scale": (lambda m: m["inputs"][0].update(scale=0.5), "scale"),
    "zero point": (lambda m: m["outputs"][0].update(zero_point=1), "zero_point"),
    "dtype": (lambda m: m["inputs"][0].update(dtype="FLOAT32"), "dtype"),
    "dtype of no kind": (lambda m: m["inputs"][0].update(dtype="INT7"), "dtype"),
    "shape": (lambda m: m["inputs"][0].update(shape=[1, 9, 9, 1]), "shape"),
    "name": (lambda m: m["outputs"][0].update(name="safe"), "name"),
    "negative size": (lambda m: m["source"].update(bytes=-1), "source.bytes"),
    "compiled": (lambda m: m["compile"].update(status="compiled"), "compile.status"),
    "role": (lambda m: m["model"]["files"][0].update(role="compiled"), "model.host"),
    "twice": (lambda m: m["model"]["files"].append(m["model"]["files"][0]), "more than once"),
    "accuracy above 100": (lambda m: m["quality"].update(top1=101.0), "quality.top1"),
    "accuracy as text": (lambda m: m["quality"].update(top1="99"), "quality.top1"),
    "unknown figure": (lambda m: m["quality"].update(trust=1.0), "quality.trust"),
    "placement as a list": (lambda m: m.update(placement=[1]), "placement"),
    "placement of texts": (lambda m: m["placement"].update(total="all"), "placement.total"),
    "source": (lambda m: m["source"].update(sha256="0" * 64), "source-model"),
    "profile": (lambda m: m["target"].update(profile_sha256="0" * 64), "target-profile"),
    "version": (lambda m: m.update(edgepack="9.9.9"), "edgepack: the manifest has 9.9.9"),
    "no bill": (lambda m: m.update(sbom="none.json"), "sbom"),
    "own hash": (lambda m: m["files"].update({"manifest.json": "0" * 64}), "its own hash"),
    "signed": (lambda m: m.update(signature={"path": "model.sig", "method": "key"}), "model.sig: missing"),
    "signature elsewhere": (lambda m: m.update(signature={"path": "a", "method": "key"}), "signature.path"),
    "signature as text": (lambda m: m.update(signature="valid"), "signature"),
    "trusted": (lambda m: m.update(trusted=True), "trusted: unknown key"),
    "calibration": (lambda m: m["calibration"].update(samples=-5), "calibration.samples"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_statement_is_found(unsigned: Path, child: Worker, name: str) -> None:
    """Each field that follows from the files of the bundle is compared with them."""
    change, text = FORGERIES[name]
    edit(unsigned, change)
    assert_refused(verify(unsigned, worker=child), text)


def test_a_forged_accuracy_is_found_with_the_samples(unsigned: Path, child: Worker) -> None:
    """An accuracy within the schema is refused where the samples give another."""
    edit(unsigned, lambda manifest: manifest["quality"].update(top1=100.0))
    assert verify(unsigned, worker=child).ok
    assert_refused(verify(unsigned, evaluation=str(EVALUATION), worker=child), "quality.top1: the manifest has 100.000")


def test_other_samples_are_not_taken_for_those_of_the_build(unsigned: Path, child: Worker) -> None:
    """A source with another number of samples cannot confirm the figures."""
    edit(unsigned, lambda manifest: manifest["quality"].update(samples=7))
    assert_refused(verify(unsigned, evaluation=str(EVALUATION), worker=child), "quality.samples")


def other_model(bundle: Path) -> bytes:
    """Return a valid model that differs from the bundle's in one weight."""
    data = bytearray((bundle / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("name", ["digits.tflite", "better.tflite", "weights.bin"])
def test_another_model_in_the_data_of_the_loader_is_found(unsigned: Path, child: Worker, name: str) -> None:
    """The model that the loader reads is the one that was checked, whatever its file is called."""
    (copy,) = unsigned.glob("linux/**/data/digits.tflite")
    path = copy.with_name(name).relative_to(unsigned).as_posix()
    put(unsigned, path, other_model(unsigned))
    assert_refused(verify(unsigned, worker=child), path)


@pytest.mark.parametrize(
    "path",
    ["android/app/src/main/assets/digits.tflite", "linux/cpp/data/digits.tflite", "docs/extra.tflite"],
)
def test_another_model_anywhere_is_found(unsigned: Path, child: Worker, path: str) -> None:
    """Any model outside model/ must be a copy of one inside."""
    put(unsigned, path, other_model(unsigned))
    assert_refused(verify(unsigned, worker=child), path)
    put(unsigned, path, (unsigned / MODEL).read_bytes())
    assert verify(unsigned, worker=child).ok


def test_another_model_in_an_archive_is_found(unsigned: Path, child: Worker) -> None:
    """The contents of an .aar are compared too; a name that occurs twice and a compressed archive are refused."""
    path, inside = "android/digits.aar", "assets/digits/digits.tflite"
    put(unsigned, path, pack({inside: (unsigned / MODEL).read_bytes()}))
    assert verify(unsigned, worker=child).ok
    put(unsigned, path, pack({inside: other_model(unsigned)}))
    assert_refused(verify(unsigned, worker=child), f"{path}/{inside}")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    put(unsigned, path, stream.getvalue())
    assert_refused(verify(unsigned, worker=child), "larger than the archive")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(inside, (unsigned / MODEL).read_bytes())
        archive.writestr(inside, other_model(unsigned))
    put(unsigned, path, stream.getvalue())
    assert_refused(verify(unsigned, worker=child), "more than once")
    put(unsigned, path, b"PK\x03\x04 no archive")
    assert_refused(verify(unsigned, worker=child), "cannot be read as an archive")


@pytest.mark.parametrize("name", ["labels_0.txt", "golden/case_0/output_0.bin", "golden/index.json"])
def test_other_data_of_the_loader_is_found(unsigned: Path, child: Worker, name: str) -> None:
    """Labels and golden vectors beside the loader are those of the bundle."""
    (copy,) = unsigned.glob(f"linux/**/data/{name}")
    put(unsigned, copy.relative_to(unsigned).as_posix(), copy.read_bytes()[::-1])
    assert_refused(verify(unsigned, worker=child), copy.relative_to(unsigned).as_posix())


@pytest.mark.parametrize(
    "name", ["evil.py", ".git/hooks/pre-commit", "linux/src/digits/__pycache__/x.pyc", "model.sig"]
)
def test_an_extra_file_is_found(unsigned: Path, child: Worker, name: str) -> None:
    """Every file is listed, hidden ones and a signature that the manifest does not know included."""
    (unsigned / name).parent.mkdir(parents=True, exist_ok=True)
    (unsigned / name).write_bytes(b"")
    assert_refused(verify(unsigned, worker=child), f"{name}: is not in the manifest")


BILLS: dict[str, Callable[[Any], Any]] = {
    "no object": lambda bill: [bill],
    "another format": lambda bill: {**bill, "bomFormat": "SPDX"},
    "no components": lambda bill: {**bill, "components": None},
    "odd components": lambda bill: {**bill, "components": [1, None, {"bom-ref": []}, {"bom-ref": "edgepack"}]},
    "another digest": lambda bill: json.loads(json.dumps(bill).replace('"content": "', '"content": "00')),
}


@pytest.mark.parametrize("name", BILLS)
def test_a_forged_bill_of_materials_is_found(unsigned: Path, child: Worker, name: str) -> None:
    """The bill of materials agrees with the manifest."""
    bill = json.loads((unsigned / "sbom.cdx.json").read_bytes())
    put(unsigned, "sbom.cdx.json", json.dumps(BILLS[name](bill)).encode())
    assert any(problem.path == "sbom.cdx.json" for problem in verify(unsigned, worker=child).problems)


def test_the_bill_of_materials_is_valid(built: Path) -> None:
    """Bills conform to CycloneDX's own schema and name models, profile, edgepack and runtimes."""
    for bundle in built.iterdir():
        text = (bundle / "sbom.cdx.json").read_text()
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
        components = {entry["bom-ref"]: entry for entry in json.loads(text)["components"]}
        assert {"source-model", MODEL, "target-profile", "edgepack"} <= set(components)
        assert components[MODEL]["hashes"] == [{"alg": "SHA-256", "content": sha256((bundle / MODEL).read_bytes())}]
        assert any(ref.startswith("pypi:ai-edge-litert") for ref in components)
        assert "serialNumber" not in text and "timestamp" not in text


def test_the_json_schema_accepts_and_refuses_what_verify_does(built: Path) -> None:
    """The published schema is one of JSON Schema, and agrees with the built-in validation."""
    schema = json.loads((REPOSITORY / "docs/reference/manifest.schema.json").read_bytes())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for bundle in built.iterdir():
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        assert list(validator.iter_errors(manifest)) == []
        for change in (
            lambda m: m.pop("files"),
            lambda m: m.update(trusted=True),
            lambda m: m["quality"].update(top1=101),
            lambda m: m["files"].update({"a": "b"}),
            lambda m: m["model"].update(runs="../x"),
        ):
            forged = json.loads(json.dumps(manifest))
            change(forged)
            assert list(validator.iter_errors(forged))
