"""Compare a bundle with its manifest, and its model's outputs with the golden ones from build time.

A bundle may come from anywhere, so nothing in it is trusted: links are never followed, paths must stay inside the
bundle, sizes are compared with the files before memory is allocated, and the model runs in a child process.
"""

import math
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.bundle import claims
from edgepack.bundle.golden import (
    LARGEST_SPREAD,
    TOLERANCES,
    Array,
    Difference,
    Tolerance,
    compare,
    finished_difference,
    machine_name,
    runtime_name,
)
from edgepack.bundle.manifest import FILE_NAME, SCHEMA, SIGNATURE_FILE, output_spec, tensor_entry
from edgepack.bundle.replay import replay_cases, replay_zeros
from edgepack.bundle.sbom import sbom_faults
from edgepack.bundle.schema import GOLDEN_INDEX, MANIFEST, faults, is_inside
from edgepack.bundle.signature import check_signature
from edgepack.bundle.signers import Verifier
from edgepack.bundle.simulated import simulated_faults
from edgepack.bundle.spec import tensor_spec
from edgepack.bundle.verify_result import BUILD_AGAIN, Problem, SignatureStatus, VerifyResult
from edgepack.bundle.write import LARGEST_MANIFEST, unlisted_files
from edgepack.child import Worker
from edgepack.digests import hash_path
from edgepack.documents import DocumentError, read_json
from edgepack.errors import BundleError, EdgepackError
from edgepack.graph import NUMPY_DTYPES, Model, read_model
from edgepack.graph.segments import segments_fault
from edgepack.runtime import postprocessing
from edgepack.runtime.runner import TensorInfo, model_inputs, model_outputs

_DTYPES = frozenset(dtype.name for dtype in NUMPY_DTYPES.values() if dtype.kind != "c")
#: NumPy's limit of a dimension; larger ones are invalid.
_LARGEST_DIMENSION = 2**31 - 1
#: Entries of a tensor that come from the author and not from the file.
_AUTHORS = frozenset({"labels", "preprocessing"})


def verify(
    path: Path, *, signer: Verifier | None = None, worker: Worker | None = None, timeout: float = 300.0
) -> VerifyResult:
    """Check a bundle: signature, manifest, every file's hash, copies, the model's tensors and its golden vectors.

    Args:
        path: The bundle's folder.
        signer: Whose signature the bundle must have; None accepts unsigned bundles and checks no signature. The model
            does not run when the signature is not valid.
        worker: Child process to run the model in; None starts one for this call.
        timeout: Time limit of the golden vectors, in seconds.

    Raises:
        BundleError: The folder does not exist, or has no manifest.
        UsageError: The signer's key cannot be read.
        ToolMissingError: A signature is to be checked, and the package for that is not installed.
    """
    if not path.is_dir():
        raise BundleError(
            f"'{path}' is not a folder: expected a bundle", hint="pass the folder that edgepack build wrote"
        )
    if not os.path.lexists(path / FILE_NAME):
        raise BundleError(f"'{path}' has no {FILE_NAME}", hint="pass the folder that edgepack build wrote")
    check = _Check(path)
    check.run(signer, worker, timeout)
    return VerifyResult(
        problems=tuple(check.problems),
        golden=tuple(check.golden),
        tolerance=check.tolerance,
        notes=tuple(check.notes),
        files=check.hashed,
        manifest=check.manifest,
        signature=check.signature,
    )


class _Check:
    """One pass over one bundle, which collects problems, differences and notes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.golden: list[Difference] = []
        self.tolerance = ""
        self.notes: list[str] = []
        self.hashed = 0
        self.manifest: dict[str, Any] = {}
        self.signature = SignatureStatus.UNSIGNED

    def run(self, signer: Verifier | None, worker: Worker | None, timeout: float) -> None:
        manifest = self._document(FILE_NAME, MANIFEST)
        if manifest is None:
            return
        self.manifest = manifest
        self._signature(manifest.get("signature"), signer)
        self._files(manifest)
        self._claims(claims.reserved_faults(manifest))
        self._claims(claims.model_list_faults(manifest))
        self._claims(claims.copy_faults(self.root, manifest, self._quiet))
        self._sbom(manifest)
        model = self._model(manifest)
        if self.signature is SignatureStatus.INVALID:
            self.notes.append("the model was not run, because the signature is not valid")
            return
        for position, entry in enumerate(manifest["outputs"]):
            fault = postprocessing.fault(tuple(entry["shape"]), output_spec(position, entry).tail)
            if fault:
                self._problem(FILE_NAME, f"outputs.{position}.tail: {fault}")
                return
        if model is not None:
            self._golden(manifest, model, worker, timeout)

    def _problem(self, path: str, what: str, fix: str = BUILD_AGAIN) -> None:
        self.problems.append(Problem(path, what, fix))

    def _claims(self, found: Iterable[claims.Fault]) -> None:
        for path, what in found:
            self._problem(path, what)

    def _signature(self, signed: Mapping[str, Any] | None, signer: Verifier | None) -> None:
        """Check the signature first: whatever else the bundle says is its signer's word."""
        fix = "do not use the bundle, or ask for one that is signed as you expect"
        if signed is None:
            if signer is not None:
                self.signature = SignatureStatus.INVALID
                self._problem(FILE_NAME, "the bundle is unsigned: expected a signature", fix)
            return
        if signer is None:
            self.signature = SignatureStatus.NOT_CHECKED
            self._regular(SIGNATURE_FILE)
            return
        self.signature = SignatureStatus.INVALID
        if signed["method"] != signer.method:
            expected = {"key": "a key (--key)", "sigstore": "an identity (--identity and --issuer)"}[signed["method"]]
            self._problem(SIGNATURE_FILE, f"the bundle is signed with {expected}, which was not given", fix)
        elif self._regular(SIGNATURE_FILE) is not None:
            try:
                check_signature(self.root, signer)
            except BundleError as error:
                self._problem(SIGNATURE_FILE, error.message, error.hint)
            else:
                self.signature = SignatureStatus.VALID

    def _sbom(self, manifest: Mapping[str, Any]) -> None:
        path = manifest.get("sbom")
        if path is None:
            return
        document = self._json(path)
        if document is not None:
            for fault in sbom_faults(document, manifest):
                self._problem(path, fault)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _regular(self, path: str) -> Path | None:
        """Return a file; None, with the problem recorded, when it is missing, a link or not a regular file."""
        place = self.root
        for part in path.split("/"):
            place = place / part
            try:
                mode = place.lstat().st_mode
            except OSError:
                self._problem(path, "missing")
                return None
            if stat.S_ISLNK(mode):
                self._problem(path, "is a symbolic link: expected a regular file", "replace the link with the file")
                return None
        if not stat.S_ISREG(mode):
            self._problem(path, "expected a regular file, got something else")
            return None
        return place

    def _quiet(self, path: str) -> Path | None:
        """Return a regular file, None for anything else, which `_files` has reported."""
        before = len(self.problems)
        place = self._regular(path)
        del self.problems[before:]
        return place

    def _json(self, path: str) -> Any:
        """Return a decoded JSON document; None, with the problem recorded, otherwise."""
        place = self._regular(path)
        if place is None:
            return None
        if place.stat().st_size > LARGEST_MANIFEST:
            self._problem(path, f"expected at most {LARGEST_MANIFEST} bytes, got {place.stat().st_size}")
            return None
        try:
            return read_json(place)
        except DocumentError as error:
            self._problem(path, f"cannot be read as JSON: {error}")
            return None

    def _document(self, path: str, shape: Any) -> dict[str, Any] | None:
        """Return a JSON document that matches its schema; None, with every fault recorded, otherwise."""
        before = len(self.problems)
        document = self._json(path)
        if len(self.problems) > before:
            return None
        schema = document.get("schema") if isinstance(document, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            self._problem(path, f"expected schema {SCHEMA}, got {schema}", "install a newer edgepack")
            return None
        invalid = list(faults(document, shape))
        for fault in invalid:
            self._problem(path, fault)
        return None if invalid else document

    def _files(self, manifest: Mapping[str, Any]) -> None:
        listed = manifest["files"]
        try:
            unlisted = unlisted_files(self.root, manifest)
        except OSError as error:
            self._problem(".", f"cannot be read completely: {error.strerror or error}")
            unlisted = []
        for path in unlisted:
            self._problem(path, "is not in the manifest", "remove it: the manifest lists every file of a bundle")
        for path, digest in sorted(listed.items()):
            if not is_inside(path):
                self._problem(FILE_NAME, f"files: expected paths inside the bundle, got '{path[:80]}'")
                continue
            file = self._regular(path)
            if file is None:
                continue
            self.hashed += 1
            actual = hash_path(file)
            if actual != digest:
                self._problem(path, f"was modified: expected sha256 {digest[:12]}..., got {actual[:12]}...")

    # -- model ---------------------------------------------------------------------------------------------------------

    def _model(self, manifest: Mapping[str, Any]) -> bytes | None:
        """Return the host file's bytes; None, with the problem recorded, when it cannot be read."""
        entries = {entry["path"]: entry for entry in manifest["model"]["files"]}
        for path, entry in entries.items():
            if manifest["files"].get(path) != entry["sha256"]:
                self._problem(FILE_NAME, f"model.files: '{path}' and files: expected one sha256, got two")
        for key in ("runs", "host"):
            if manifest["model"][key] not in entries:
                self._problem(FILE_NAME, f"model.{key}: expected one of model.files, got '{manifest['model'][key]}'")
                return None
        data, host, segments = None, None, []
        for path, entry in entries.items():
            file = self._regular(path)
            if file is None:
                continue
            content = file.read_bytes()
            self._claims(claims.size_faults(entry, content))
            try:
                model = read_model(content)
            except EdgepackError as error:
                if not path.endswith(".tflite"):
                    continue
                self._problem(path, error.message)
                continue
            if entry["role"] == "segment":
                segments.append(model)
            elif entry["role"] != "co-compiled":
                self._tensors(path, model, manifest)
            if path == manifest["model"]["host"]:
                data, host = content, model
        if data is not None:
            self._claims(claims.author_faults(manifest, data))
            self._claims(claims.state_faults(manifest, data))
            self._claims(claims.task_faults(manifest))
        if segments and host is not None and (fault := segments_fault(host, segments)):
            self._problem(FILE_NAME, f"model.files: {fault}")
        return data

    def _tensors(self, path: str, model: Model, manifest: Mapping[str, Any]) -> None:
        host = path == manifest["model"]["host"]
        for kind, tensors in (("inputs", model_inputs(model)), ("outputs", model_outputs(model))):
            listed = manifest[kind]
            if len(listed) != len(tensors):
                self._problem(path, f"{kind}: the manifest lists {len(listed)}, the model has {len(tensors)}")
                continue
            for entry, info in zip(listed, tensors, strict=True):
                for key, value in _facts(info).items():
                    # A compiler preserves the tensors but may rename them.
                    if entry[key] != value and (host or key not in {"name", "tensor"}):
                        self._problem(
                            path, f"{kind} '{info.name}': the manifest has {key} {entry[key]}, the model {value}"
                        )

    # -- golden vectors ------------------------------------------------------------------------------------------------

    def _golden(self, manifest: Mapping[str, Any], data: bytes, worker: Worker | None, timeout: float) -> None:
        path = manifest["golden"]["index"]
        index = self._document(path, GOLDEN_INDEX)
        if index is None:
            return
        folder = path.rpartition("/")[0]
        if index["model"] != manifest["model"]["host"]:
            self._problem(path, f"model: expected {manifest['model']['host']}, got {index['model']}")
            return
        if len(index["cases"]) != manifest["golden"]["cases"]:
            self._problem(path, f"expected {manifest['golden']['cases']} cases, got {len(index['cases'])}")
        if len(index["quantized_outputs"]) != len(manifest["outputs"]):
            self._problem(path, "quantized_outputs: expected one flag per output")
            return
        for number, case in enumerate(index["cases"]):
            for kind in ("inputs", "outputs", "finished"):
                tensors = len(manifest["inputs" if kind == "inputs" else "outputs"])
                if kind in case and len(case[kind]) != tensors:
                    self._problem(path, f"cases.{number}.{kind}: expected {tensors} entries, got {len(case[kind])}")
                    return
        if not index["cases"]:
            replay = replay_zeros(manifest["model"]["host"], data, worker, timeout)
            self.problems.extend(replay.problems)
            self.notes.extend(replay.notes)
            return
        cases = [
            {kind: [self._array(folder, entry) for entry in case[kind]] for kind in ("inputs", "outputs")}
            for case in index["cases"]
        ]
        if any(array is None for case in cases for arrays in case.values() for array in arrays):
            return
        if not self.problems:
            self._finished(folder, manifest["outputs"], index["cases"], cases)
        for what in simulated_faults(manifest, index, cases, lambda entry: self._array(folder, entry)):
            self._problem(path, what)
        self.notes.extend(
            f"the outputs of {one['simulator']} for {one['chip']} were compared with the CPU's, not simulated again"
            for one in index.get("simulated", ())
        )
        same = (index["machine"], index["runtime"]) == (machine_name(), runtime_name())
        self.tolerance = "same" if same else "other"
        stated = index["tolerance"][self.tolerance]
        ours = TOLERANCES["same"] if same else LARGEST_SPREAD
        # A bundle may state a smaller tolerance than the usual one, but not a larger one.
        allowed = Tolerance(min(stated["steps"], ours.steps), min(stated["relative"], ours.relative))
        replay = replay_cases(manifest["model"]["host"], data, [case["inputs"] for case in cases], worker, timeout)
        self.problems.extend(replay.problems)
        for number, (case, outputs) in enumerate(zip(cases, replay.results, strict=False)):
            if len(case["outputs"]) != len(outputs):
                self._problem(path, f"case {number}: expected {len(case['outputs'])} outputs, got {len(outputs)}")
                continue
            for position, (expected, actual) in enumerate(zip(case["outputs"], outputs, strict=True)):
                assert expected is not None
                quantized = index["quantized_outputs"][position]
                difference = compare(
                    expected, actual, quantized=quantized, tolerance=allowed, case=number, output=position
                )
                self.golden.append(difference)
                if not difference.ok:
                    name = manifest["outputs"][position]["name"]
                    self._problem(
                        f"{folder}/case_{number}",
                        f"output '{name}': expected a difference of at most {difference.allowed:g}, "
                        f"got {difference.largest:g}",
                        "the model does not reproduce the outputs of the build: rebuild the bundle",
                    )

    def _finished(
        self, folder: str, outputs: list[dict[str, Any]], entries: list[dict[str, Any]], cases: list[Any]
    ) -> None:
        """Compare the stored finished values with the manifest's postprocessing steps on the golden outputs."""
        for number, (entry, case) in enumerate(zip(entries, cases, strict=True)):
            stored = entry.get("finished") or [None] * len(outputs)
            for position, (listed, place) in enumerate(zip(outputs, stored, strict=False)):
                spec, raw = output_spec(position, listed), case["outputs"][position]
                if not spec.tail or raw.shape != spec.shape:
                    continue
                expected = None if place is None else self._array(folder, place)
                where = f"{folder}/case_{number}"
                if expected is None:
                    self._problem(where, f"output '{spec.name}': the finished values are missing")
                elif not finished_difference(spec, raw, expected, number, position).ok:
                    self._problem(
                        where, f"output '{spec.name}': the finished values differ from the result of its postprocessing"
                    )

    def _array(self, folder: str, entry: Mapping[str, Any]) -> Array | None:
        path = f"{folder}/{entry['file']}" if folder else entry["file"]
        shape = entry["shape"]
        if entry["dtype"] not in _DTYPES or any(not 0 <= size <= _LARGEST_DIMENSION for size in shape):
            self._problem(path, f"expected an array, got dtype '{entry['dtype'][:40]}' and shape {shape[:8]}")
            return None
        place = self._regular(path)
        if place is None:
            return None
        dtype = np.dtype(entry["dtype"])
        size = math.prod(shape) * dtype.itemsize
        if place.stat().st_size != size:
            self._problem(path, f"expected {size} bytes for {dtype.name} {shape}, got {place.stat().st_size}")
            return None
        raw = np.frombuffer(place.read_bytes(), dtype.newbyteorder("<"))
        return raw.astype(dtype).reshape(shape)


def _facts(info: TensorInfo) -> dict[str, Any]:
    """Return what the manifest must have about a tensor of the file."""
    return {key: value for key, value in tensor_entry(tensor_spec(info)).items() if key not in _AUTHORS}
