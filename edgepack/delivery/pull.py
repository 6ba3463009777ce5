"""Pull bundles from a registry: verified completely before anything appears at the destination."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.bundle.manifest import FILE_NAME
from edgepack.bundle.names import file_stem
from edgepack.bundle.signers import Verifier
from edgepack.bundle.verify_result import SignatureStatus
from edgepack.bundle.write import require_replaceable, write
from edgepack.child import Worker
from edgepack.delivery.artifact import MAX_BYTES, Layer, bundles_of, layers_of, require_same_files
from edgepack.delivery.reference import Reference, parse_reference
from edgepack.delivery.registry import INDEX, Registry
from edgepack.errors import DeliveryError
from edgepack.files import read_regular
from edgepack.pipeline.options import Progress, silent
from edgepack.pipeline.verify import verify


@dataclass(frozen=True)
class PulledBundle:
    """A bundle that was pulled.

    Attributes:
        bundle: Its folder.
        target: Target id.
        digest: Digest of its OCI manifest.
        files: Number of its files.
        bytes: Their size.
        downloaded: Bytes that were not in the bundle that it replaces.
        signature: What is known of its signature.
        referrers: Type and digest of each artifact that refers to it; not verified.
        notes: What could not be verified.
    """

    bundle: Path
    target: str
    digest: str
    files: int
    bytes: int
    downloaded: int
    signature: SignatureStatus
    referrers: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the JSON contract."""
        return {
            "bundle": str(self.bundle),
            "target": self.target,
            "digest": self.digest,
            "files": self.files,
            "bytes": self.bytes,
            "downloaded": self.downloaded,
            "signature": self.signature.value,
            "referrers": [{"type": kind, "digest": digest} for kind, digest in self.referrers],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class PullResult:
    """What was pulled.

    Attributes:
        reference: The reference.
        digest: Digest that it names now.
        bundles: The bundles.
    """

    reference: Reference
    digest: str
    bundles: tuple[PulledBundle, ...]

    @property
    def pinned(self) -> Reference:
        """The reference that always names this content."""
        return self.reference.pinned(self.digest)


def pull(
    reference: str,
    out: Path | str = Path(),
    *,
    target: str = "",
    force: bool = False,
    signer: Verifier | None = None,
    plain_http: bool = False,
    worker: Worker | None = None,
    timeout: float = 300.0,
    progress: Progress = silent,
) -> PullResult:
    """Pull the bundles of a reference, each into a folder `NAME-TARGET`.

    A file that the bundle at the destination has already, by its digest, is not downloaded. Every bundle is verified
    in a temporary folder, and written as `build` writes it: completely or not at all.

    Args:
        reference: `oci://registry/repository:tag`, or with `@sha256:...`.
        out: Folder that bundles are written to.
        target: Pull only the bundles for this target, empty for all.
        force: Replace an existing bundle, unless it contains files that are not in its manifest.
        signer: Whose signature each bundle must have; None accepts unsigned bundles and checks no signature.
        plain_http: Use HTTP without TLS.
        worker: Child process to run the models in; None starts one for this call.
        timeout: Time limit of the golden vectors of each bundle, in seconds.
        progress: Called with a sentence about each step that takes time.

    Raises:
        UsageError: The reference is not valid, or a key cannot be read.
        BundleError: The destination may not be replaced.
        DeliveryError: The registry cannot be reached, or serves something else than valid bundles.
        ToolMissingError: The package `oras`, or that for signatures, is not installed.
    """
    place = parse_reference(reference)
    with Registry(place, plain_http=plain_http) as registry:
        digest, document = _found(registry, place.name)
        if document.get("mediaType") == INDEX or "manifests" in document:
            chosen = [_found(registry, one) for one in bundles_of(document, target)]
        else:
            chosen = [(digest, document)]
        total = sum(layer.size for _, content in chosen for layer in layers_of(content)[1])
        if total > MAX_BYTES:
            raise DeliveryError(
                f"the bundles of the reference have {total} bytes: expected at most {MAX_BYTES}",
                hint="pull them one after the other with --target",
            )
        # All are fetched and verified before the first is written.
        ready = [
            _fetch(
                registry,
                one,
                content,
                Path(out),
                force=force,
                signer=signer,
                worker=worker,
                timeout=timeout,
                progress=progress,
            )
            for one, content in chosen
        ]
    if len({bundle.bundle for bundle, _ in ready}) < len(ready):
        raise DeliveryError("two bundles of the reference have the same name and target", hint="pass --target")
    if target and any(bundle.target != target for bundle, _ in ready):
        raise DeliveryError(
            f"the bundle of the reference is for {ready[0][0].target[:40]}, not for {target}", hint="leave out --target"
        )
    for bundle, files in ready:
        write(files, bundle.bundle, force=force)
    return PullResult(place, digest, tuple(bundle for bundle, _ in ready))


def _found(registry: Registry, name: str) -> tuple[str, dict[str, Any]]:
    found = registry.pull_manifest(name)
    assert found is not None, "a missing manifest raises"
    return found


def _fetch(
    registry: Registry,
    digest: str,
    document: Mapping[str, Any],
    out: Path,
    *,
    force: bool,
    signer: Verifier | None,
    worker: Worker | None,
    timeout: float,
    progress: Progress,
) -> tuple[PulledBundle, dict[str, bytes]]:
    """Return a verified bundle with its files; nothing is written at the destination.

    Raises:
        DeliveryError: It is not a valid bundle.
        BundleError: The destination may not be replaced.
    """
    config, layers = layers_of(document)
    head = registry.pull_blob(config.digest, config.size)
    manifest = _manifest(head)
    require_same_files(manifest, layers)
    name = f"{file_stem(manifest['name'])}-{file_stem(manifest['target']['id'])}"
    require_replaceable(out / name, force)
    progress(f"pulling {name}")
    present = _present(out / name, layers)
    # Equal files are fetched once.
    contents = {layer.digest: layer.size for layer in layers if layer.digest not in present}
    downloaded = sum(contents.values()) + config.size
    data = present | {one: registry.pull_blob(one, size) for one, size in contents.items()}
    files = {FILE_NAME: head, **{layer.path: data[layer.digest] for layer in layers}}
    progress(f"verifying {name}")
    with tempfile.TemporaryDirectory(prefix="edgepack-pull-") as folder:
        staged = Path(folder) / name
        write(files, staged)
        result = verify(staged, signer=signer, worker=worker, timeout=timeout)
    if not result.ok:
        first = result.problems[0]
        raise DeliveryError(
            f"the pulled bundle '{name}' is not valid: {first.path}: {first.what}",
            hint=f"nothing was written; {first.fix}",
        )
    pulled = PulledBundle(
        bundle=out / name,
        target=manifest["target"]["id"],
        digest=digest,
        files=len(files),
        bytes=sum(map(len, files.values())),
        downloaded=downloaded,
        signature=result.signature,
        referrers=_referrers(registry, digest),
        notes=result.notes,
    )
    return pulled, files


def _manifest(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DeliveryError(f"the bundle's {FILE_NAME} is not JSON", hint="nothing was written") from error


def _present(folder: Path, layers: list[Layer]) -> dict[str, bytes]:
    """Return the contents that an existing bundle has already, by digest; each file is compared."""
    found: dict[str, bytes] = {}
    for layer in layers:
        place = folder / layer.path
        try:
            if layer.digest in found or place.is_symlink() or place.stat().st_size != layer.size:
                continue
            data = read_regular(place)
        except OSError:
            continue
        if f"sha256:{hashlib.sha256(data).hexdigest()}" == layer.digest:
            found[layer.digest] = data
    return found


def _referrers(registry: Registry, digest: str) -> tuple[tuple[str, str], ...]:
    try:
        listed = registry.referrers(digest)
    except DeliveryError:
        # The bundle is complete without them.
        return ()
    return tuple(
        sorted((str(entry.get("artifactType"))[:100], str(entry.get("digest"))[:80]) for entry in listed[:100])
    )
