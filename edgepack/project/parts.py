"""What the bundle of a cell depends on, part by part, and what this machine contributes to it.

The parts make the key of the cache entry with the bundle, and a part that differs from the last build is the reason
for a new one. An option that is added to edgepack is a part unless it is listed here as one that changes nothing.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from edgepack.choices import CompilePolicy
from edgepack.compilers import get_compiler
from edgepack.digests import Snapshot, hash_path
from edgepack.errors import EdgepackError, ModelFileError, SamplesError, UsageError
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.rendering import writer_versions
from edgepack.pipeline.step_cache import component_versions
from edgepack.profiles.registry import get_target
from edgepack.project.cells import Cell, Project
from edgepack.resources import templates_dir
from edgepack.samples import SampleSource

#: Fields of the options that change no file of a bundle, or that stand for files, whose digests are parts.
_NO_PART = frozenset(
    {
        ("BuildOptions", "out"),
        ("BuildOptions", "force"),
        ("BuildOptions", "dry_run"),
        ("BuildOptions", "samples"),
        ("BuildOptions", "eval"),
        ("BuildOptions", "train"),
        ("BuildOptions", "labels"),
        ("BuildOptions", "metadata"),
        ("BuildOptions", "co_compile"),
        # The method of signing is a part; who holds the key is not.
        ("BuildOptions", "sign"),
        ("BuildOptions", "sign_key"),
        ("BuildOptions", "compile_timeout"),
        ("ModelOptions", "timeout"),
        ("ModelOptions", "cache"),
        ("ModelOptions", "cache_url"),
        ("ModelOptions", "memory_limit"),
    }
)


@dataclass(frozen=True)
class Input:
    """A file or folder that a cell reads.

    Attributes:
        role: `model`, `samples`, `eval`, `train`, `labels`, `metadata` or `co-compile`.
        path: The file or folder.
    """

    role: str
    path: Path


@dataclass(frozen=True)
class Machine:
    """What a machine contributes to the bundles that it builds.

    Attributes:
        edgepack: Version of edgepack, with digests of its code and its templates.
        packages: Versions of the packages that results depend on, by name.
        targets: Digest of each target's profile, by id.
        compilers: Version of each vendor's compiler, by id; empty for one that is not installed.
    """

    edgepack: str
    packages: Mapping[str, str]
    targets: Mapping[str, str] = field(default_factory=dict)
    compilers: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def package_text(self) -> str:
        """The versions of the packages as JSON."""
        return json.dumps(self.packages, sort_keys=True)


def inputs_of(cell: Cell) -> Iterator[Input]:
    """Iterate over the files and folders that a cell reads; a function that yields samples is none."""
    options = cell.options
    yield Input("model", cell.path)
    for role, source in (("samples", options.samples), ("eval", options.eval), ("train", options.train)):
        if isinstance(source, str) and source and not is_function(source):
            yield Input(role, Path(source))
    for role, path in (("labels", options.labels), ("metadata", options.metadata)):
        if path is not None:
            yield Input(role, path)
    for path in options.co_compile:
        yield Input("co-compile", path)


def is_function(source: SampleSource) -> bool:
    """Return whether a source of samples is `module:function` or an object: no digest of a file covers its result."""
    return not isinstance(source, str) or (":" in source and not Path(source).exists())


def volatile_reason(cell: Cell) -> str:
    """Return why no key covers everything that a cell depends on, empty for a cell whose parts are complete."""
    if cell.options.model.allow_code:
        return "runs code of the model"
    sources = (cell.options.samples, cell.options.eval, cell.options.train)
    return "samples from a function" if any(map(is_function, sources)) else ""


def take_snapshots(cells: Iterable[Cell]) -> tuple[dict[Path, Snapshot], dict[Path, EdgepackError]]:
    """Return the snapshot of every file and folder that cells read, and the errors of those that cannot be read."""
    snapshots: dict[Path, Snapshot] = {}
    errors: dict[Path, EdgepackError] = {}
    for cell in cells:
        for entry in inputs_of(cell):
            if entry.path in snapshots or entry.path in errors:
                continue
            try:
                snapshots[entry.path] = Snapshot.take(entry.path)
            except OSError as error:
                errors[entry.path] = _unreadable(entry, error)
    return snapshots, errors


def _unreadable(entry: Input, error: OSError) -> EdgepackError:
    """Return the error of an input, with the exit code that a build of this model alone has."""
    missing = isinstance(error, FileNotFoundError)
    samples = dict.fromkeys(("samples", "eval", "train"), SamplesError)
    kinds = {"model": UsageError if missing else ModelFileError, **samples}
    what = "does not exist" if missing else f"cannot be read: {error.strerror or error}"
    return kinds.get(entry.role, UsageError)(
        f"{entry.role}: '{os.fsdecode(error.filename or entry.path)}' {what}", hint="check the path in the project file"
    )


def cell_parts(cell: Cell, digests: Mapping[Path, str], machine: Machine) -> dict[str, str]:
    """Return what the bundle of a cell depends on.

    Args:
        cell: The cell.
        digests: Digest of each file and folder that it reads; a missing one is empty.
        machine: Where it is built.
    """
    inputs: dict[str, list[str]] = {}
    for entry in inputs_of(cell):
        # The name goes into the bundle, or decides how a file is read.
        inputs.setdefault(entry.role, []).append(f"{entry.path.name} {digests.get(entry.path, '')}")
    options, compiler = cell.options, compiler_of(cell)
    return {
        **{role: ", ".join(texts) for role, texts in inputs.items()},
        "options": json.dumps(options_form(options), sort_keys=True),
        "target": f"{cell.target} {machine.targets.get(cell.target, '')}",
        "edgepack": machine.edgepack,
        "packages": machine.package_text,
        **({"compiler": f"{compiler} {machine.compilers.get(compiler, '')}".strip()} if compiler else {}),
    }


def options_form(options: BuildOptions) -> dict[str, Any]:
    """Return the options that a bundle depends on as JSON values."""
    form: dict[str, Any] = _form(options)
    signer = options.signer
    form["signed"] = "" if signer is None else signer.method
    # A function's name stands for its samples, though not for their values.
    form["functions"] = [str(text) for text in (options.samples, options.eval, options.train) if is_function(text)]
    return form


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """Return the fields of a class of options that a bundle depends on."""
    return tuple(entry.name for entry in fields(kind) if (kind.__name__, entry.name) not in _NO_PART)


def _form(value: Any) -> Any:
    # First what most options are: a project of a thousand models has a million of them.
    if value is None or type(value) in {str, bool, int, float}:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _form(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _form(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_form(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def compiler_of(cell: Cell) -> str:
    """Return the id of the vendor's compiler that may run for a cell, empty for none."""
    if cell.options.compile == CompilePolicy.NEVER:
        return ""
    return _compiler_of_target(cell.target)


@cache
def _compiler_of_target(target: str) -> str:
    try:
        rule = get_target(target).compiler
    except EdgepackError:
        return ""
    return "" if rule is None else rule.id


def describe_machine(targets: Iterable[str], compilers: Iterable[str]) -> Machine:
    """Return what this machine contributes to bundles.

    Args:
        targets: Ids of the targets that are built.
        compilers: Ids of the compilers that may run.
    """
    versions = {**component_versions(), **writer_versions()}
    edgepack = f"{versions.pop('edgepack')} {versions.pop('code')} {hash_path(templates_dir())[:16]}"
    return Machine(
        edgepack,
        versions,
        {target: digest for target in sorted(set(targets)) if (digest := _profile_digest(target))},
        {compiler: _version(compiler) for compiler in sorted(set(compilers))},
    )


def machine_for(project: Project) -> Machine:
    """Return what this machine contributes to the bundles of a project."""
    cells = project.cells
    return describe_machine({cell.target for cell in cells}, {compiler_of(cell) for cell in cells} - {""})


def _profile_digest(target: str) -> str:
    try:
        return get_target(target).sha256
    except EdgepackError:
        return ""


@cache
def _version(compiler: str) -> str:
    try:
        found = get_compiler(compiler).find()
    except EdgepackError:
        return ""
    return (found.version or "installed") if found.found else ""
