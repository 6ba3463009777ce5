"""`edgepack pull`."""

from pathlib import Path

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.cli.push import PLAIN_HTTP
from edgepack.text import readable_size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pull", cls=panels.Command)(pull)


def pull(
    reference: str = typer.Argument(
        ...,
        metavar="REFERENCE",
        help="oci://registry/repository:tag, or @sha256:... for exactly one content.",
        show_default=False,
    ),
    target: str = arguments.option(
        panels.TARGET,
        "-t, --target",
        "ID",
        "Pull only the bundle for this target.",
        default="",
        show_default="all of the reference",
    ),
    out: Path = arguments.option(
        panels.BUNDLE,
        "-o, --out",
        "DIR",
        "Folder to write the bundles to.",
        default=Path(),
        show_default="the current folder",
    ),
    force: bool = arguments.flag(
        panels.BUNDLE, "--force", "Replace an existing bundle, unless it contains files of yours."
    ),
    key: Path | None = arguments.KEY,
    identity: str = arguments.IDENTITY,
    issuer: str = arguments.ISSUER,
    plain_http: bool = PLAIN_HTTP,
    timeout: float = arguments.VECTORS_TIMEOUT,
    memory_limit: str = arguments.MEMORY_LIMIT,
    json_: bool = arguments.JSON,
) -> int:
    """Pull bundles from an OCI registry, verify them, and write each into a folder."""
    from edgepack.bundle.signers import Verifier
    from edgepack.child import Worker
    from edgepack.delivery.pull import pull as run
    from edgepack.limits import parse_memory

    signer = Verifier(key, identity, issuer) if key is not None or identity or issuer else None
    with Worker(memory=parse_memory(memory_limit) if memory_limit else None) as worker:
        result = run(
            reference,
            out,
            target=target,
            force=force,
            signer=signer,
            plain_http=plain_http,
            worker=worker,
            timeout=timeout,
            progress=arguments.progress(json_),
        )
    if json_:
        entries = [bundle.to_json() for bundle in result.bundles]
        output.document(
            "pull", entries, reference=str(result.reference), digest=result.digest, pinned=str(result.pinned)
        )
        return 0
    rows = [
        (
            bundle.target,
            str(bundle.files),
            readable_size(bundle.bytes),
            readable_size(bundle.downloaded),
            bundle.signature.value,
        )
        for bundle in result.bundles
    ]
    header = ("target", "files", "size", "downloaded", "signature")
    lines = output.table(header, rows, right=(1, 2, 3)).splitlines()
    output.out("\n".join(lines[:2]))
    for bundle, line in zip(result.bundles, lines[2:], strict=True):
        output.out(line)
        output.out(f"  {bundle.bundle}")
        for note in bundle.notes:
            output.out(output.wrap(f"  note: {note}", "    "))
    output.out()
    output.out(f"pulled and verified: {result.reference}")
    output.out(f"digest: {result.digest}")
    return 0
