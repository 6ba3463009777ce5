"""Which compilers there are: entry points of the group `edgepack.compilers`, built-in or not, through the same door."""

import warnings
from importlib.metadata import EntryPoint, entry_points

from edgepack.compilers.base import Compiler
from edgepack.errors import ToolMissingError, UsageError

GROUP = "edgepack.compilers"

#: What pyproject.toml declares, for a checkout on sys.path that was never installed and so has no metadata.
_BUILTIN = {
    "edgetpu": "edgepack.compilers.edgetpu:EdgeTpuCompiler",
    "qnn": "edgepack.compilers.qnn:QnnAotCompiler",
}


def compiler_ids() -> tuple[str, ...]:
    """Return the ids of all installed compilers, sorted; loads none of them."""
    return tuple(sorted(_entries()))


def get_compiler(compiler_id: str) -> Compiler:
    """Return the wrapper called `compiler_id`; no other wrapper is loaded.

    Raises:
        UsageError: No installed package offers one of that id.
        ToolMissingError: The package that offers it is broken.
    """
    entries = _entries()
    if compiler_id not in entries:
        raise UsageError(
            f"unknown compiler '{compiler_id}'",
            hint=f"installed compilers are: {', '.join(sorted(entries))}; a package adds one in the group '{GROUP}'",
        )
    try:
        return _load(entries[compiler_id])
    except Exception as error:
        raise ToolMissingError(
            f"the compiler '{compiler_id}' could not be loaded: {_cause(entries[compiler_id], error)}",
            hint=f"reinstall or update {_package(entries[compiler_id])}",
        ) from error


def all_compilers() -> dict[str, Compiler]:
    """Return every installed wrapper by id, sorted; a broken plugin is a warning and is left out."""
    found: dict[str, Compiler] = {}
    for compiler_id, entry in sorted(_entries().items()):
        try:
            found[compiler_id] = _load(entry)
        except Exception as error:
            warnings.warn(
                f"the compiler '{compiler_id}' of {_package(entry)} is left out: {_cause(entry, error)}", stacklevel=2
            )
    return found


def _entries() -> dict[str, EntryPoint]:
    entries = {name: EntryPoint(name, value, GROUP) for name, value in _BUILTIN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        known = entries.setdefault(entry.name, entry)
        if known.value == entry.value:
            # The installed one knows its package's name, which messages show.
            entries[entry.name] = entry
        else:
            warnings.warn(
                f"two packages offer the compiler '{entry.name}': {known.value} is used, {entry.value} of "
                f"{_package(entry)} is not",
                stacklevel=3,
            )
    return entries


def _load(entry: EntryPoint) -> Compiler:
    loaded = entry.load()
    compiler = loaded() if isinstance(loaded, type) else loaded
    for method in ("find", "compile"):
        if not callable(getattr(compiler, method, None)):
            raise TypeError(f"it has no method '{method}' (see edgepack.compilers.Compiler)")
    if getattr(compiler, "id", None) != entry.name:
        raise TypeError(f"its id is {getattr(compiler, 'id', None)!r}, expected '{entry.name}' as its entry point says")
    return compiler  # type: ignore[no-any-return]


def _cause(entry: EntryPoint, error: Exception) -> str:
    return f"{entry.value}: {type(error).__name__}: {error}"


def _package(entry: EntryPoint) -> str:
    return f"the package '{entry.dist.name}'" if entry.dist is not None else "edgepack"
