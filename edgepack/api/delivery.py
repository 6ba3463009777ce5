"""`edgepack.push` and `edgepack.pull`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.api.call import Call, at_least, existing, path_or_none
from edgepack.api.results import Result, plain
from edgepack.api.types import ProgressLike, Size
from edgepack.errors import EdgepackError
from edgepack.limits import parse_memory
from edgepack.pipeline.reports.document import document


@dataclass(frozen=True, repr=False, eq=False)
class Delivery(Result):
    """What was pushed or pulled.

    Attributes:
        command: `push` or `pull`.
        reference: The reference with its tag.
        digest: Digest that the reference names now.
        pinned: The reference that always names this content.
        bundles: Folders of the bundles.
        entries: One entry per bundle, as in the JSON document.
        error: None: a delivery that fails raises.
    """

    command: str
    reference: str
    digest: str
    pinned: str
    bundles: tuple[Path, ...]
    entries: tuple[Mapping[str, Any], ...]
    error: EdgepackError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of the command's `--json`."""
        return plain(
            document(self.command, self.entries, reference=self.reference, digest=self.digest, pinned=self.pinned)
        )

    def _summary(self) -> str:
        return f"{self.reference}: {', '.join(path.name for path in self.bundles)}"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render

        rows = [
            (entry["target"], str(path), entry["digest"])
            for entry, path in zip(self.entries, self.bundles, strict=True)
        ]
        return render(f"{self.command} {self.pinned}", ("target", "bundle", "digest"), rows)


def push(
    bundles: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reference: str,
    *,
    all: bool = False,
    plain_http: bool = False,
    timeout: float = 300.0,
    memory_limit: Size = "",
    progress: ProgressLike = None,
) -> Delivery:
    """Verify bundles and push them to an OCI registry, with their bill of materials and signature.

    The options are those of `edgepack push`.

    Args:
        bundles: Folders of bundles.
        reference: `oci://registry/repository:tag`.
        all: Push every bundle in the given folders.
        plain_http: Use HTTP without TLS, for a registry on this machine or network.
        timeout: Time limit in seconds of the golden vectors of each bundle.
        memory_limit: Memory that the child process may hold: bytes, or a text such as `8GB`.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Raises:
        EdgepackError: A bundle is not valid, or the registry cannot be reached or refuses it. Its `hint` says what to
            do.
    """
    from edgepack.delivery import push as module

    at_least("timeout", timeout, 1)
    paths = [existing("", path) for path in ([bundles] if isinstance(bundles, str | os.PathLike) else bundles)]
    if all:
        paths = [found for path in paths for found in module.find_bundles(path)]
    return _run("push", module, (paths, reference), timeout, memory_limit, progress, plain_http=plain_http)


def pull(
    reference: str,
    *,
    target: str = "",
    out: str | os.PathLike[str] = ".",
    force: bool = False,
    key: str | os.PathLike[str] | None = None,
    identity: str = "",
    issuer: str = "",
    plain_http: bool = False,
    timeout: float = 300.0,
    memory_limit: Size = "",
    progress: ProgressLike = None,
) -> Delivery:
    """Pull bundles from an OCI registry and verify them; nothing is written before.

    The options are those of `edgepack pull`.

    Args:
        reference: `oci://registry/repository:tag`, or with `@sha256:...` for exactly one content.
        target: Pull only the bundle for this target; empty for all of the reference.
        out: Folder to write the bundles to.
        force: Replace an existing bundle, unless it contains files of yours.
        key: Require a signature that this public key (PEM) verifies.
        identity: Require a Sigstore signature of this identity; needs `issuer`.
        issuer: OpenID Connect provider that vouches for the identity.
        plain_http: Use HTTP without TLS, for a registry on this machine or network.
        timeout: Time limit in seconds of the golden vectors of each bundle.
        memory_limit: Memory that the child process may hold: bytes, or a text such as `8GB`.
        progress: Called with a sentence about each step; False for silence, None to show it in a notebook or terminal.

    Raises:
        EdgepackError: The registry cannot be reached, a bundle is not valid, or the destination may not be replaced.
            Its `hint` says what to do.
    """
    from edgepack.bundle.signers import Verifier
    from edgepack.delivery import pull as module

    at_least("timeout", timeout, 1)
    public = path_or_none(key)
    signer = Verifier(public, identity, issuer) if public is not None or identity or issuer else None
    options = {"target": target, "force": force, "signer": signer, "plain_http": plain_http}
    return _run("pull", module, (reference, Path(out)), timeout, memory_limit, progress, **options)


def _run(
    command: str,
    module: Any,
    arguments: tuple[Any, ...],
    timeout: float,
    memory_limit: Size,
    progress: ProgressLike,
    **options: Any,
) -> Delivery:
    from edgepack.child import Worker

    memory = parse_memory(str(memory_limit), "memory_limit") if memory_limit else None
    with Call(progress) as call, Worker(memory=memory) as worker:
        result = getattr(module, command)(
            *arguments, worker=worker, timeout=float(timeout), progress=call.progress, **options
        )
    return Delivery(
        command,
        str(result.reference),
        result.digest,
        str(result.pinned),
        tuple(bundle.bundle for bundle in result.bundles),
        tuple(bundle.to_json() for bundle in result.bundles),
    )
