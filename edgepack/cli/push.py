"""`edgepack push`."""

from pathlib import Path

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.errors import UsageError
from edgepack.text import readable_size

PLAIN_HTTP = arguments.flag(
    panels.REGISTRY, "--plain-http", "Use HTTP without TLS, for a registry on this machine or network."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("push", cls=panels.Command)(push)


def push(
    words: list[str] = typer.Argument(
        ...,
        metavar="BUNDLE... REFERENCE",
        help="Folders of bundles, and where to push them: oci://registry/repository:tag.",
        show_default=False,
    ),
    all_: bool = arguments.flag(
        panels.REGISTRY, "--all", "Push every bundle in the given folders, by default the current one."
    ),
    plain_http: bool = PLAIN_HTTP,
    timeout: float = arguments.VECTORS_TIMEOUT,
    memory_limit: str = arguments.MEMORY_LIMIT,
    json_: bool = arguments.JSON,
) -> int:
    """Verify bundles and push them to an OCI registry, with their bill of materials and signature."""
    *places, reference = words
    if "://" not in reference:
        raise UsageError(
            f"'{reference}' is not a reference to a registry", hint="name it last: oci://registry/repository:tag"
        )
    from edgepack.child import Worker
    from edgepack.delivery.push import find_bundles
    from edgepack.delivery.push import push as run
    from edgepack.limits import parse_memory

    paths = [arguments.require_path(Path(place)) for place in places]
    if all_:
        paths = [found for path in paths or [Path()] for found in find_bundles(path)]
    with Worker(memory=parse_memory(memory_limit) if memory_limit else None) as worker:
        result = run(
            paths,
            reference,
            plain_http=plain_http,
            worker=worker,
            timeout=timeout,
            progress=arguments.progress(json_),
        )
    if json_:
        entries = [bundle.to_json() for bundle in result.bundles]
        output.document(
            "push", entries, reference=str(result.reference), digest=result.digest, pinned=str(result.pinned)
        )
        return 0
    rows = [
        (bundle.target, str(bundle.files), readable_size(bundle.bytes), readable_size(bundle.uploaded))
        for bundle in result.bundles
    ]
    lines = output.table(("target", "files", "size", "uploaded"), rows, right=(1, 2, 3)).splitlines()
    output.out("\n".join(lines[:2]))
    for bundle, line in zip(result.bundles, lines[2:], strict=True):
        output.out(line)
        output.out(f"  {bundle.bundle}")
        output.out(f"  {bundle.digest}")
    output.out()
    output.out(f"pushed: {result.reference}")
    output.out(f"digest: {result.digest}")
    return 0
