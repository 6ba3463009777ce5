"""A bundle as an OCI artifact, and back: media types, annotations, and what a manifest from a registry may say.

The configuration of the artifact is the bundle's `manifest.json`; every other file is a layer of its own, with its path
as title. So a device that knows the file it runs finds its digest in the first answer, and fetches only what changed.
The signature and the bill of materials are files of the bundle, and once more artifacts that refer to it, where
registries and scanners look for them; a registry stores equal contents once.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack.bundle.manifest import FILE_NAME, SBOM_FILE, SIGNATURE_FILE
from edgepack.bundle.schema import MANIFEST as MANIFEST_SCHEMA
from edgepack.bundle.schema import faults, is_inside
from edgepack.delivery.registry import INDEX, MANIFEST
from edgepack.errors import DeliveryError

BUNDLE = "application/vnd.edgepack.bundle.v1"
CONFIG = "application/vnd.edgepack.bundle.manifest.v1+json"
MODEL = "application/vnd.edgepack.model.v1"
FILE = "application/vnd.edgepack.file.v1"
SBOM = "application/vnd.cyclonedx+json"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}",
    "size": 2,
}
EMPTY_BLOB = b"{}"
TITLE = "org.opencontainers.image.title"

#: Limits of what is pulled: files, bytes of all files, bytes of the bundle's manifest.
MAX_FILES, MAX_BYTES, MAX_CONFIG = 10_000, 4 << 30, 16 << 20
_HINT = "nothing was written; pull a reference that edgepack pushed"


@dataclass(frozen=True)
class Layer:
    """A file of an artifact.

    Attributes:
        path: Path in the bundle, checked to stay inside.
        digest: `sha256:` and 64 hex digits.
        size: Bytes.
    """

    path: str
    digest: str
    size: int


def artifact_manifest(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OCI manifest of a bundle; the same bundle gives the same one.

    Args:
        files: Every file of the bundle by path.
        manifest: The bundle's manifest.
    """
    models = {entry["path"] for entry in manifest["model"]["files"]}
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": _descriptor(CONFIG, files[FILE_NAME]),
        "layers": [
            _descriptor(_media_type(path, models), files[path], {TITLE: path})
            for path in sorted(files)
            if path != FILE_NAME
        ],
        "annotations": annotations(manifest),
    }


def annotations(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what of a bundle's manifest helps to choose it: no clock, nothing of the machine that pushes."""
    target, model = manifest["target"], manifest["model"]
    runs = next(entry for entry in model["files"] if entry["path"] == model["runs"])
    values = {
        TITLE: f"{manifest['name']}-{target['id']}",
        "vnd.edgepack.version": manifest["edgepack"],
        "vnd.edgepack.name": manifest["name"],
        "vnd.edgepack.target": target["id"],
        "vnd.edgepack.variant": target["variant"],
        "vnd.edgepack.soc": target["soc"],
        "vnd.edgepack.runtime": target["runtime_version"],
        "vnd.edgepack.scheme": manifest["scheme"]["id"],
        "vnd.edgepack.source.sha256": manifest["source"]["sha256"],
        "vnd.edgepack.model.path": runs["path"],
        "vnd.edgepack.model.sha256": runs["sha256"],
        "vnd.edgepack.model.bytes": runs["bytes"],
    }
    return {key: str(value) for key, value in values.items() if value not in {None, ""}}


def referring(files: Mapping[str, bytes], subject: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the manifests of the artifacts that refer to a bundle: its bill of materials, its signature.

    Args:
        files: Every file of the bundle by path.
        subject: Descriptor of the bundle's manifest.
    """
    return [
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": _EMPTY,
            "layers": [_descriptor(kind, files[path], {TITLE: path})],
            "subject": dict(subject),
        }
        for path, kind in ((SBOM_FILE, SBOM), (SIGNATURE_FILE, SIGNATURE))
        if path in files
    ]


def index_of(entries: Sequence[tuple[Mapping[str, Any], str, int]]) -> dict[str, Any]:
    """Return an index of several bundles, in the order of their titles.

    Args:
        entries: OCI manifest, digest and size of each.
    """
    listed = [
        {
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "digest": digest,
            "size": size,
            "annotations": manifest["annotations"],
        }
        for manifest, digest, size in entries
    ]
    listed.sort(key=lambda entry: (str(entry["annotations"].get(TITLE)), str(entry["digest"])))
    return {"schemaVersion": 2, "mediaType": INDEX, "artifactType": BUNDLE, "manifests": listed}


# -- what a registry serves --------------------------------------------------------------------------------------------


def bundles_of(document: Mapping[str, Any], target: str) -> list[str]:
    """Return the digests of the bundles of an index.

    Args:
        document: The index.
        target: Id of the target whose bundles are wanted, empty for all.

    Raises:
        DeliveryError: It lists none, or something that is no descriptor.
    """
    listed = document.get("manifests")
    if not isinstance(listed, list) or len(listed) > MAX_FILES:
        raise DeliveryError("the index in the registry has no list of manifests", hint=_HINT)
    found: dict[str, str] = {}
    for entry in listed:
        if not isinstance(entry, dict) or entry.get("artifactType") != BUNDLE:
            continue
        notes = entry.get("annotations")
        name = notes.get("vnd.edgepack.target") if isinstance(notes, dict) else None
        found[_checked(entry, "the index")[0]] = str(name)
    wanted = [digest for digest, name in found.items() if not target or name == target]
    if not wanted:
        has = ", ".join(sorted(set(found.values()))) or "none"
        raise DeliveryError(
            f"the reference has no bundle{f' for {target}' if target else ''}: it has {has}"[:300],
            hint="pass one of these as --target" if found else _HINT,
        )
    return wanted


def layers_of(document: Mapping[str, Any]) -> tuple[Layer, list[Layer]]:
    """Return the bundle's manifest and its other files, from an OCI manifest of unknown origin.

    Raises:
        DeliveryError: It is not the manifest of a bundle, a path leaves the bundle or exists twice, or there is more
            than the limits allow.
    """
    if document.get("artifactType") != BUNDLE or document.get("mediaType", MANIFEST) != MANIFEST:
        raise DeliveryError("the artifact in the registry is not a bundle", hint=_HINT)
    config, listed = document.get("config"), document.get("layers")
    if not isinstance(config, dict) or not isinstance(listed, list) or len(listed) > MAX_FILES:
        raise DeliveryError("the artifact in the registry has no list of files, or a list that is too long", hint=_HINT)
    digest, size = _checked(config, FILE_NAME)
    if size > MAX_CONFIG:
        raise DeliveryError(f"the bundle's {FILE_NAME} has {size} bytes: expected at most {MAX_CONFIG}", hint=_HINT)
    layers = []
    for entry in listed:
        notes = entry.get("annotations") if isinstance(entry, dict) else None
        path = notes.get(TITLE) if isinstance(notes, dict) else None
        if not isinstance(path, str) or len(path) > 400 or not is_inside(path) or not path.isprintable():
            raise DeliveryError(f"the artifact has a file outside the bundle: '{str(path)[:80]!a}'", hint=_HINT)
        layers.append(Layer(path, *_checked(entry, path)))
    # File systems that ignore case would write two files into one; a file cannot be a folder as well.
    folded = [layer.path.casefold() for layer in layers]
    folders = {path.rpartition("/")[0] for path in folded}
    folders |= {"/".join(folder.split("/")[:count]) for folder in folders for count in range(1, folder.count("/") + 1)}
    if len(set(folded)) < len(folded) or FILE_NAME in folded or folders & set(folded):
        raise DeliveryError("the artifact has two files of one path", hint=_HINT)
    total = sum(layer.size for layer in layers)
    if total > MAX_BYTES:
        raise DeliveryError(f"the bundle has {total} bytes: expected at most {MAX_BYTES}", hint=_HINT)
    return Layer(FILE_NAME, digest, size), layers


def require_same_files(manifest: Any, layers: Sequence[Layer]) -> None:
    """Refuse an artifact whose files are not those of the bundle's manifest.

    Raises:
        DeliveryError: The manifest does not match its schema, or lists other files or digests.
    """
    fault = next(faults(manifest, MANIFEST_SCHEMA), "")
    if fault:
        raise DeliveryError(f"the bundle's {FILE_NAME} is not valid: {fault}"[:300], hint=_HINT)
    listed = {path: f"sha256:{digest}" for path, digest in manifest["files"].items()}
    present = {layer.path: layer.digest for layer in layers}
    if manifest.get("signature") is not None:
        present.pop(SIGNATURE_FILE, None)
    if listed != present:
        path = min(path for path, _ in set(listed.items()) ^ set(present.items()))
        raise DeliveryError(f"'{path[:80]}' is not the file that the bundle's {FILE_NAME} lists", hint=_HINT)


def _checked(entry: Mapping[str, Any], what: str) -> tuple[str, int]:
    digest, size = entry.get("digest"), entry.get("size")
    valid = isinstance(digest, str) and digest[:7] == "sha256:" and len(digest) == 71
    if not valid or not set(str(digest)[7:]) <= set("0123456789abcdef") or type(size) is not int or size < 0:
        raise DeliveryError(f"the registry describes {what[:80]!a} without a valid digest and size", hint=_HINT)
    return str(digest), size


def _media_type(path: str, models: set[str]) -> str:
    return {SBOM_FILE: SBOM, SIGNATURE_FILE: SIGNATURE}.get(path, MODEL if path in models else FILE)


def _descriptor(kind: str, data: bytes, notes: Mapping[str, str] | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": kind,
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}",
        "size": len(data),
    }
    return entry | ({"annotations": dict(notes)} if notes else {})
