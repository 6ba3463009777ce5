"""Why a bundle is built again: what differs from the last build."""

import json
from collections.abc import Mapping
from typing import Any

from edgepack.project.records import Record

#: Words for the parts of a bundle, in the order in which they are named.
_PARTS = {
    "model": "changed model",
    "samples": "changed samples",
    "eval": "changed evaluation samples",
    "train": "changed training samples",
    "labels": "changed labels",
    "metadata": "changed metadata",
    "co-compile": "changed models of --co-compile",
    "target": "changed target profile",
    "edgepack": "new edgepack",
}


def changes(record: Record | None, parts: Mapping[str, str]) -> str:
    """Return what changed since the last build, `never built` without one, empty when nothing did.

    Args:
        record: The last build of the cell.
        parts: What its bundle depends on now.
    """
    if record is None:
        return "never built"
    before = record.parts
    found = [words for name, words in _PARTS.items() if before.get(name) != parts.get(name)]
    if before.get("options") != parts.get("options"):
        found.append(_options(before.get("options", ""), parts.get("options", "")))
    if before.get("packages") != parts.get("packages"):
        found.append(_packages(before.get("packages", ""), parts.get("packages", "")))
    if before.get("compiler") != parts.get("compiler"):
        found.append(f"compiler: {before.get('compiler') or 'none'} -> {parts.get('compiler') or 'none'}")
    return "; ".join(found)


def _options(before: str, now: str) -> str:
    names = [name.replace("_", "-") for name, *_ in _differences(_flat(_document(before)), _flat(_document(now)))]
    return f"changed options: {', '.join(names)}" if names else "changed options"


def _packages(before: str, now: str) -> str:
    pairs = _differences(_flat(_document(before)), _flat(_document(now)))
    return "new packages: " + ", ".join(f"{name} {old or 'none'} -> {new or 'none'}" for name, old, new in pairs)


def _document(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _flat(document: Any) -> dict[str, str]:
    """Return the values of an object and of the objects in it by their own names."""
    if not isinstance(document, dict):
        return {}
    flat: dict[str, str] = {}
    for name, value in document.items():
        # `model` and `target` only group options, and input shapes are one option.
        if isinstance(value, dict) and name in {"model", "target"}:
            flat.update(_flat(value))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (name, before, now) of what differs, sorted."""
    names = sorted({*before, *now})
    return [(name, before.get(name, ""), now.get(name, "")) for name in names if before.get(name) != now.get(name)]
