"""Push bundles to a registry."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.bundle.manifest import FILE_NAME, SIGNATURE_FILE
from edgepack.bundle.write import is_bundle
from edgepack.child import Worker
from edgepack.delivery.artifact import EMPTY_BLOB, artifact_manifest, index_of, referring
from edgepack.delivery.reference import Reference, parse_reference
from edgepack.delivery.registry import MANIFEST, Registry
from edgepack.errors import BundleError, UsageError
from edgepack.files import read_regular
from edgepack.pipeline.options import Progress, silent
from edgepack.pipeline.verify import verify

#: Folders below the given one in which bundles are looked for.
_DEPTH = 3


@dataclass(frozen=True)
class PushedBundle:
    """A bundle in a registry.

    Attributes:
        bundle: Its folder.
        target: Target id.
        digest: Digest of its OCI manifest.
        files: Number of its files.
        bytes: Their size.
        uploaded: Bytes that the registry did not have.
        referrers: Digests of the artifacts that refer to it.
    """

    bundle: Path
    target: str
    digest: str
    files: int
    bytes: int
    uploaded: int
    referrers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the JSON contract."""
        return {
            "bundle": str(self.bundle),
            "target": self.target,
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "uploaded": self.uploaded,
            "referrers": list(self.referrers),
        }


@dataclass(frozen=True)
class PushResult:
    """What was pushed.

    Attributes:
        reference: The reference with the tag.
        digest: Digest that the tag names: of the bundle, or of the index of several bundles.
        bundles: The bundles.
    """

    reference: Reference
    digest: str
    bundles: tuple[PushedBundle, ...]

    @property
    def pinned(self) -> Reference:
        """The reference that always names this content."""
        return self.reference.pinned(self.digest)


def push(
    bundles: Sequence[Path | str],
    reference: str,
    *,
    plain_http: bool = False,
    worker: Worker | None = None,
    timeout: float = 300.0,
    progress: Progress = silent,
) -> PushResult:
    """Push bundles to a registry under one tag: one bundle as it is, several as an index.

    Every bundle is verified first; what is pushed are the bytes that were compared with its manifest. The tag is
    written last, so that it never names an incomplete bundle. The same bundles give the same digest.

    Args:
        bundles: Folders of bundles.
        reference: `oci://registry/repository:tag`.
        plain_http: Use HTTP without TLS.
        worker: Child process to run the models in; None starts one for this call.
        timeout: Time limit of the golden vectors of each bundle, in seconds.
        progress: Called with a sentence about each step that takes time.

    Raises:
        UsageError: The reference is not valid, or two bundles have the same name and target.
        BundleError: A bundle cannot be verified.
        DeliveryError: The registry cannot be reached, or refuses the bundle.
        ToolMissingError: The package `oras` is not installed.
    """
    place = parse_reference(reference)
    if place.digest:
        raise UsageError(f"'{reference}' names a digest: expected a tag to push to")
    paths = [Path(bundle) for bundle in bundles]
    if not paths:
        raise UsageError("no bundle given", hint="pass the folders that edgepack build wrote, or --all")
    contents = []
    for path in paths:
        progress(f"verifying {path.name}")
        contents.append(_read_verified(path, worker, timeout))
    documents = [artifact_manifest(files, manifest) for files, manifest in contents]
    titles = [document["annotations"]["org.opencontainers.image.title"] for document in documents]
    if len(set(titles)) < len(titles):
        raise UsageError(
            f"two of the bundles are for the same model and target: {', '.join(sorted(titles))}",
            hint="push them under different tags",
        )
    pushed, entries = [], []
    with Registry(place, plain_http=plain_http) as registry:
        for path, (files, manifest), document in zip(paths, contents, documents, strict=True):
            progress(f"pushing {path.name}")
            uploaded = sum(len(data) for data in files.values() if registry.push_blob(_digest(data), data))
            digest, size, _ = registry.push_manifest(document)
            attached = referring(files, {"mediaType": MANIFEST, "digest": digest, "size": size})
            if attached:
                registry.push_blob(_digest(EMPTY_BLOB), EMPTY_BLOB)
            referrers = tuple(registry.attach(one) for one in attached)
            entries.append((document, digest, size))
            total = sum(map(len, files.values()))
            pushed.append(PushedBundle(path, manifest["target"]["id"], digest, len(files), total, uploaded, referrers))
        tagged = documents[0] if len(documents) == 1 else index_of(entries)
        digest, _, _ = registry.push_manifest(tagged, place.tag)
    return PushResult(place, digest, tuple(pushed))


def find_bundles(folder: Path) -> list[Path]:
    """Return the bundles in a folder and up to three levels below, by path; links are not followed.

    Raises:
        UsageError: There is none.
    """
    found: list[Path] = []

    def visit(place: Path, depth: int) -> None:
        if is_bundle(place):
            found.append(place)
        elif depth < _DEPTH:
            for child in sorted(place.iterdir()):
                if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
                    visit(child, depth + 1)

    try:
        visit(folder, 0)
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be read: {error.strerror or error}") from error
    if not found:
        raise UsageError(f"'{folder}' contains no bundle", hint="pass the folder that edgepack build wrote to (-o)")
    return found


def _read_verified(path: Path, worker: Worker | None, timeout: float) -> tuple[dict[str, bytes], Mapping[str, Any]]:
    """Return the files of a valid bundle and its manifest.

    Raises:
        BundleError: It is not valid, or changed while it was read.
    """
    result = verify(path, worker=worker, timeout=timeout)
    if not result.ok:
        first = result.problems[0]
        raise BundleError(f"'{path}' is not valid and was not pushed: {first.path}: {first.what}", hint=first.fix)
    manifest = result.manifest
    listed = [*manifest["files"], FILE_NAME, *([SIGNATURE_FILE] if manifest.get("signature") else [])]
    try:
        files = {name: read_regular(path / name) for name in listed}
    except OSError as error:
        raise BundleError(f"'{path}' cannot be read: {error.strerror or error}") from error
    same = all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest in manifest["files"].items())
    if not same or json.loads(files[FILE_NAME]) != manifest:
        raise BundleError(f"'{path}' changed while it was read", hint="push it again when nothing writes to it")
    return files, manifest


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
