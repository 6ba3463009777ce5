"""The installed compiler wrappers: entry points of the group `edgepack.compilers`, built-in or from other packages."""

import warnings
from collections.abc import Mapping
from importlib.metadata import EntryPoint

from edgepack.compilers.base import Compiler
from edgepack.entry_points import collect_entry_points
from edgepack.errors import ToolMissingError, UsageError

GROUP = "edgepack.compilers"

#: The entry points of pyproject.toml, for a checkout that is not installed and therefore has no metadata.
_BUILTIN = {
    "edgetpu": "edgepack.compilers.edgetpu:EdgeTpuCompiler",
    "qnn": "edgepack.compilers.qnn:QnnAotCompiler",
}


def compiler_ids() -> tuple[str, ...]:
    """Return the ids of all installed wrappers, sorted, without loading them."""
    return tuple(sorted(_entries()))


def get_compiler(compiler_id: str) -> Compiler:
    """Return the wrapper with this id, without loading any other.

    Raises:
        UsageError: No installed package provides a wrapper with this id.
        ToolMissingError: The package that provides it is broken.
    """
    entries = _entries()
    if compiler_id not in entries:
        raise UsageError(
            f"unknown compiler '{compiler_id}'",
            hint=f"installed compilers are: {', '.join(sorted(entries))}; packages add more with entry points of the "
            f"group '{GROUP}'",
        )
    try:
        return _load(entries[compiler_id])
    except Exception as error:
        raise ToolMissingError(
            f"the compiler '{compiler_id}' could not be loaded: {_cause(entries[compiler_id], error)}",
            hint=f"reinstall or update {_package(entries[compiler_id])}",
        ) from error


def all_compilers() -> dict[str, Compiler]:
    """Return all installed wrappers by id, sorted; a broken plugin is skipped with a warning."""
    compilers: dict[str, Compiler] = {}
    for compiler_id, entry in sorted(_entries().items()):
        try:
            compilers[compiler_id] = _load(entry)
        except Exception as error:
            warnings.warn(
                f"the compiler '{compiler_id}' of {_package(entry)} is skipped: {_cause(entry, error)}", stacklevel=2
            )
    return compilers


def _entries() -> Mapping[str, EntryPoint]:
    points = collect_entry_points(GROUP, _BUILTIN, "compiler")
    for warning in points.warnings:
        warnings.warn(warning, stacklevel=3)
    return points.entries


def _load(entry: EntryPoint) -> Compiler:
    loaded = entry.load()
    compiler = loaded() if isinstance(loaded, type) else loaded
    for method in ("find", "compile"):
        if not callable(getattr(compiler, method, None)):
            raise TypeError(f"it has no method '{method}' (see edgepack.compilers.Compiler)")
    if getattr(compiler, "id", None) != entry.name:
        raise TypeError(f"its id is {getattr(compiler, 'id', None)!r}, expected '{entry.name}', its entry point's name")
    for name in ("supports_segments", "supports_simulation"):
        if not hasattr(compiler, name):
            setattr(compiler, name, getattr(Compiler, name))
    return compiler  # type: ignore[no-any-return]


def _cause(entry: EntryPoint, error: Exception) -> str:
    return f"{entry.value}: {type(error).__name__}: {error}"


def _package(entry: EntryPoint) -> str:
    return f"the package '{entry.dist.name}'" if entry.dist is not None else "edgepack"
