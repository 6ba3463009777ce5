"""Statements of a manifest that follow from the bundle's own files, computed again and compared.

Each function yields (path, sentence) for every difference. A manifest of unknown origin reaches these functions only
when it conforms to its schema; files are passed as bytes that were read once.
"""

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgepack.bundle.manifest import FILE_NAME, SIGNATURE_FILE, output_spec
from edgepack.bundle.schema import is_inside
from edgepack.bundle.views import label_lines
from edgepack.digests import sha256
from edgepack.errors import EdgepackError
from edgepack.graph import read_model
from edgepack.graph.metadata import read_metadata
from edgepack.tasks import classes_of, fault_of, from_json

Fault = tuple[str, str]

#: Bytes 4 to 8 of every .tflite.
_TFLITE = b"TFL3"
#: Role of the file that runs without an accelerator.
_HOSTS = {"main", "host"}
_COMPILED = {"compiled", "segment"}
#: TFLite metadata stores float32.
_FLOAT32 = 1e-6


def model_list_faults(manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Compare the roles of the model files with each other, and with the outcome of the compiler."""
    entries = manifest["model"]["files"]
    paths = [entry["path"] for entry in entries]
    roles = {entry["path"]: entry["role"] for entry in entries}
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        yield FILE_NAME, f"model.files: '{path}' is listed more than once"
    hosts = [entry["path"] for entry in entries if entry["role"] in _HOSTS]
    if hosts != [manifest["model"]["host"]]:
        listed = ", ".join(hosts) or "none"
        yield FILE_NAME, f"model.host: expected the file with the role main or host ({listed})"
    if roles.get(manifest["model"]["runs"]) not in _HOSTS | _COMPILED:
        yield FILE_NAME, "model.runs: expected a file with the role main, host, compiled or segment"
    compiled = bool(_COMPILED & set(roles.values()))
    status = manifest["compile"]["status"]
    if compiled != (status == "compiled"):
        have = "has" if compiled else "has no"
        yield FILE_NAME, f"compile.status: the manifest has '{status}', and the bundle {have} compiled files"
    if compiled != ("host" in roles.values()):
        yield FILE_NAME, "model.files: a file with the role host needs a compiled file, and the reverse"


def size_faults(entry: Mapping[str, Any], content: bytes) -> Iterator[Fault]:
    """Compare size and hash of a model file with its entry."""
    if entry["bytes"] != len(content):
        yield FILE_NAME, f"model.files: '{entry['path']}' has {len(content)} bytes, the manifest {entry['bytes']}"
    if entry["sha256"] != sha256(content):
        yield FILE_NAME, f"model.files: '{entry['path']}' has another sha256 than the manifest"


def copy_faults(root: Path, manifest: Mapping[str, Any], regular: Callable[[str], Path | None]) -> Iterator[Fault]:
    """Compare every copy of a model, of the labels and of the golden vectors with the original.

    Loaders read copies: `linux/.../data`, Android assets, device groups of AI packs and the archive of an .aar.

    Args:
        root: The bundle's folder.
        manifest: The manifest.
        regular: Returns a file of the bundle by its path, None for one that is missing or no regular file.
    """
    listed = [path for path in sorted(manifest["files"]) if is_inside(path)]
    digests = {entry["path"].rpartition("/")[2]: entry["sha256"] for entry in manifest["model"]["files"]}
    folder = manifest["golden"]["index"].rpartition("/")[0]
    golden = {
        path.removeprefix(f"{folder}/"): manifest["files"][path] for path in listed if path.startswith(f"{folder}/")
    }
    labels = {
        f"labels_{number}.txt": "".join(f"{line}\n" for line in label_lines(entry["labels"])).encode("utf-8", "replace")
        for number, entry in enumerate(manifest["outputs"])
        if entry["labels"]
    }
    originals = {entry["path"] for entry in manifest["model"]["files"]}
    for path in listed:
        if path in originals or path.startswith(f"{folder}/"):
            continue
        place = regular(path)
        if place is None:
            continue
        for name, content in _contents(path, place):
            if isinstance(content, str):
                yield name, content
                continue
            yield from _copy_faults(name, content, digests, golden, labels)


def _copy_faults(
    path: str, content: bytes, models: Mapping[str, str], golden: Mapping[str, str], labels: Mapping[str, bytes]
) -> Iterator[Fault]:
    name = path.rpartition("/")[2]
    digest = sha256(content)
    if name in models:
        if digest != models[name]:
            yield path, f"differs from model/{name}: a loader would run another model than the one that was checked"
    elif (name.endswith(".tflite") or content[4:8] == _TFLITE) and digest not in models.values():
        yield path, "is a model that the manifest does not list: expected a copy of a file of model/"
    _, mark, inside = path.rpartition("/golden/")
    if mark and inside and golden.get(inside) != digest:
        yield path, f"differs from golden/{inside}"
    if name.startswith("labels_") and name.endswith(".txt") and content != labels.get(name):
        yield path, "differs from the labels of the manifest"


def _contents(path: str, place: Path) -> Iterator[tuple[str, bytes | str]]:
    """Yield a file, or each file inside an Android archive; a text instead of the bytes states why it is refused."""
    if not path.endswith((".aar", ".jar", ".zip")):
        yield path, place.read_bytes()
        return
    try:
        with zipfile.ZipFile(place) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            # edgepack stores without compression: anything larger than its archive was not written by edgepack.
            if sum(entry.file_size for entry in entries) > place.stat().st_size:
                yield path, "its contents claim to be larger than the archive: expected an archive without compression"
                return
            if len(set(names)) != len(names):
                yield path, "contains a name more than once"
                return
            for entry in entries:
                if not entry.is_dir():
                    yield f"{path}/{entry.filename}", archive.read(entry)
    except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        yield path, f"cannot be read as an archive: {type(error).__name__}"


def author_faults(manifest: Mapping[str, Any], host: bytes) -> Iterator[Fault]:
    """Compare labels and preprocessing with the TFLite metadata in the model file, and the labels with the shape."""
    for position, entry in enumerate(manifest["outputs"]):
        count = _classes(entry)
        if entry["labels"] and count is not None and len(entry["labels"]) != count:
            yield FILE_NAME, f"outputs.{position}.labels: expected {count} labels, got {len(entry['labels'])}"
    try:
        info = read_metadata(host)
    except EdgepackError:
        # Optional content of the file, from the author's own tools perhaps: no loader of edgepack reads it.
        return
    if info is None:
        return
    for position, (entry, known) in enumerate(zip(manifest["outputs"], info.outputs, strict=False)):
        # A manifest without labels claims nothing.
        if known.labels and entry["labels"] and label_lines(entry["labels"]) != label_lines(known.labels):
            yield FILE_NAME, f"outputs.{position}.labels: differ from those in the model file"
    for position, (entry, known) in enumerate(zip(manifest["inputs"], info.inputs, strict=False)):
        rule = entry["preprocessing"]
        if rule is not None and known.mean and not _same_rule(rule, known.mean, known.std):
            yield FILE_NAME, f"inputs.{position}.preprocessing: differs from the normalization in the model file"


def task_faults(manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Compare what the outputs are said to mean with their shapes."""
    document = manifest.get("task")
    if document is None:
        return
    shapes = [output_spec(position, entry).finished_shape for position, entry in enumerate(manifest["outputs"])]
    try:
        spec = from_json(document)
    except ValueError as error:
        yield FILE_NAME, f"task.{error}"
        return
    if fault := fault_of(spec, shapes):
        yield FILE_NAME, f"task: {fault}"
        return
    count = classes_of(spec, shapes)
    if document["labels"] and count and len(document["labels"]) != count:
        yield FILE_NAME, f"task.labels: expected {count} labels, got {len(document['labels'])}"


def state_faults(manifest: Mapping[str, Any], host: bytes) -> Iterator[Fault]:
    """Compare whether the model keeps a state with the model file: an app resets only what it knows of."""
    try:
        stateful = read_model(host).is_stateful
    except EdgepackError:
        # Reported where the golden vectors are replayed.
        return
    if stateful != manifest["model"].get("stateful", False):
        have = "keeps a state from run to run" if stateful else "keeps no state"
        yield FILE_NAME, f"model.stateful: the model file {have}, and the manifest says the opposite"


def _classes(entry: Mapping[str, Any]) -> int | None:
    """Return the number of classes of an output: of the axis of an ARG_MAX in the loader, else of the last axis."""
    shape = entry["shape"]
    axes = [step["axis"] for step in entry.get("tail", ()) if step["op"] == "ARG_MAX"]
    axis = axes[0] if axes else -1
    return shape[axis] if -len(shape) <= axis < len(shape) else None


def _same_rule(rule: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]) -> bool:
    for key, known in (("mean", mean), ("std", std)):
        values = rule.get(key)
        values = values if isinstance(values, list) else [values]
        if len(values) != len(known) or not all(
            isinstance(value, int | float) and math.isclose(value, other, rel_tol=_FLOAT32, abs_tol=_FLOAT32)
            for value, other in zip(values, known, strict=True)
        ):
            return False
    return True


def reserved_faults(manifest: Mapping[str, Any]) -> Iterator[Fault]:
    """Refuse entries of `files` that cannot be listed there."""
    reserved = {FILE_NAME, *([SIGNATURE_FILE] if manifest.get("signature") else [])}
    for path in sorted(reserved & set(manifest["files"])):
        yield FILE_NAME, f"files: '{path}' cannot be listed with its own hash"
    sbom = manifest.get("sbom")
    if sbom is not None and sbom not in manifest["files"]:
        yield FILE_NAME, f"sbom: expected a file of the bundle, got '{sbom[:80]}'"
