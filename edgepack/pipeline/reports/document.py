"""The JSON document of a command: what `--json` prints, and what a result of the library returns."""

import json
from collections.abc import Sequence
from typing import Any

from edgepack.errors import EdgepackError


def document(command: str, results: Sequence[Any], problem: EdgepackError | None = None, **more: Any) -> dict[str, Any]:
    """Return the document of a command.

    Args:
        command: Name of the command.
        results: One entry per result, of JSON values.
        problem: The error that decides about the exit code, None without one.
        **more: Further keys, behind the others.
    """
    return {
        "schema": 1,
        "command": command,
        "ok": problem is None,
        "error": None if problem is None else problem.to_json(),
        "results": list(results),
        **more,
    }


def json_text(document: Any) -> str:
    """Return a document as JSON; infinities and NaN, which JSON does not have, become null."""
    try:
        return json.dumps(document, indent=2, allow_nan=False)
    except ValueError:
        from edgepack.bundle.manifest import plain

        return json.dumps(plain(document), indent=2, allow_nan=False)
