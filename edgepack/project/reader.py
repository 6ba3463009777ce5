"""Reads `edgepack.toml` into a `Project`: defaults, models, targets and the flags of the command line are merged.

Reading runs nothing that the file names, and opens no model and no samples. Of the values of an option the last one
counts, in this order: `[defaults]`, `[defaults.target.ID]`, `[[model]]`, `[model.target.ID]`, the command line. A table
for a target and chip, `[model.target."hexagon@SM8550"]`, comes after the one for the target.
"""

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from edgepack.bundle.names import file_stem
from edgepack.documents import DocumentError, read_toml
from edgepack.errors import EdgepackError, ProjectError, UsageError
from edgepack.profiles.registry import get_target, resolve_targets
from edgepack.profiles.variants import soc_model
from edgepack.project.cells import Cell, Project
from edgepack.project.document import Fault, check_document, title
from edgepack.project.lines import KeyPath, key_lines, line_of
from edgepack.project.option_table import BY_NAME, MODEL_KEYS, OPTIONS
from edgepack.project.values import NAME, build_options, fits, stored_value
from edgepack.remote_cache import shared_cache_url

#: Folder of bundles when the file names none.
OUT = "out"
#: Faults that are listed: more of them are usually one fault, many times.
_LISTED = 10


def read_project(
    file: Path,
    *,
    values: Mapping[str, Any] | None = None,
    targets: Sequence[str] = (),
    out: Path | None = None,
) -> Project:
    """Read a project file.

    Args:
        file: The file.
        values: Options of the command line by name, as `BuildOptions` needs them; they win over the file.
        targets: Targets in place of those of the file: `edgetpu`, `hexagon@SM8550` or `all`.
        out: Folder in place of the file's `out`.

    Raises:
        ProjectError: The file cannot be read, or has faults: the message has each with its line.
        UsageError: One of `targets` is unknown.
    """
    root = file.absolute().parent
    try:
        document, data = read_toml(file)
    except DocumentError as error:
        raise ProjectError(f"'{file}': {error}") from error
    if faults := check_document(document):
        raise _error(file, data, faults)
    settings = document.get("project", {})
    folder = root / settings.get("out", OUT) if out is None else out.absolute()
    wanted = tuple(dict.fromkeys(cell for target in targets for cell in resolve(target)))
    merge = _Merge(document, root, folder, dict(values or {}), wanted)
    merge.flags.setdefault("cache", merge.cache_url(settings.get("cache", "")))
    cells = tuple(merge.cells())
    if merge.faults:
        raise _error(file, data, merge.faults)
    return Project(file.absolute(), settings.get("name") or root.name, folder, settings.get("cache", ""), cells)


@cache
def resolve(text: str) -> tuple[tuple[str, str], ...]:
    """Return the targets and chips that a text names: `edgetpu`, `hexagon@SM8550`, `all`.

    Raises:
        UsageError: No such target is installed, or it has no such chip.
    """
    target, _, chip = text.partition("@")
    if target == "all" and not chip:
        return tuple((profile.id, "") for profile in resolve_targets([target]))
    profile = get_target(target)
    if chip and not profile.socs:
        raise UsageError(f"'{text}': target {target} has no chips to choose from", hint=f"give '{target}'")
    return ((target, soc_model(profile, chip)),)


@dataclass
class _Merge:
    """The merging of a document whose structure is right; `faults` has what a schema cannot state."""

    document: Mapping[str, Any]
    root: Path
    out: Path
    flags: dict[str, Any]
    wanted: tuple[tuple[str, str], ...]
    faults: list[Fault] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    bundles: dict[str, str] = field(default_factory=dict)

    def cells(self) -> Iterator[Cell]:
        """Yield the cells of all models."""
        defaults = self.document.get("defaults", {})
        base: dict[str, Any] = {option.name: option.in_project for option in OPTIONS if option.in_project is not None}
        base |= self._options(defaults, ("defaults",), "[defaults]")
        by_target = self._by_target(defaults, ("defaults",), "[defaults]")
        usual = self._targets(defaults, ("defaults",), "[defaults]")
        for number, model in enumerate(self.document["model"]):
            place, where = ("model", number), title(("model", number), model)
            path = self.root / model["path"]
            name = self._name(model, path, place, where)
            values = self._options(model, place, where)
            own = self._by_target(model, place, where)
            wanted = self.wanted or self._targets(model, place, where) or usual
            if not wanted:
                self._add(place, f"{where}: no targets: add targets = [...] here or to [defaults], or give -t TARGET")
            if not self.wanted:
                self._require_used(own, wanted, place, where)
            for target, soc in wanted:
                layers = (base, *_layers(by_target, target, soc), values, *_layers(own, target, soc), self.flags)
                merged = {key: value for layer in layers for key, value in layer.items()}
                if soc:
                    merged["soc"] = (soc,)
                options = build_options(merged, out=self.out / soc if soc else self.out, name=name)
                cell = Cell(name, path, target, soc, options)
                self._require_own_bundle(cell, place, where)
                yield cell

    def cache_url(self, url: str) -> str:
        """Return the URL of the shared cache where no flag has one: EDGEPACK_CACHE_URL, else that of the file."""
        try:
            return shared_cache_url("", url)
        except UsageError as error:
            self._add(("project", "cache"), f"[project]: cache: {error.message}")
            return ""

    def _add(self, place: KeyPath, message: str) -> None:
        self.faults.append(Fault(place, message))

    def _options(self, table: Mapping[str, Any], place: KeyPath, where: str) -> dict[str, Any]:
        """Return the options of a table, as `BuildOptions` needs them."""
        values = {}
        for key in table:
            if key in MODEL_KEYS:
                try:
                    values[key] = stored_value(BY_NAME[key], table[key], self.root)
                except UsageError as error:
                    self._add((*place, key), f"{where}: {error.message.removeprefix('--')}")
        return values

    def _by_target(self, table: Mapping[str, Any], place: KeyPath, where: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the options of the `target` tables of a table."""
        tables: dict[tuple[str, str], dict[str, Any]] = {}
        for text, inner in table.get("target", {}).items():
            spot: KeyPath = (*place, "target", text)
            if text == "all":
                self._add(spot, f"{where}: target.all: options for all targets are keys of {where} itself")
            elif pair := self._resolve(text, spot, where):
                if pair[0] in tables:
                    self._add(spot, f"{where}: target.{text}: this target has a table already")
                tables[pair[0]] = self._options(inner, spot, title(spot, inner))
        return tables

    def _targets(self, table: Mapping[str, Any], place: KeyPath, where: str) -> tuple[tuple[str, str], ...]:
        """Return the targets of a model or of the defaults."""
        cells = [cell for text in table.get("targets", ()) for cell in self._resolve(text, (*place, "targets"), where)]
        for cell in dict.fromkeys(cell for cell in cells if cells.count(cell) > 1):
            self._add((*place, "targets"), f"{where}: targets: '{_text(cell)}' is listed twice")
        return tuple(dict.fromkeys(cells))

    def _resolve(self, text: str, place: KeyPath, where: str) -> tuple[tuple[str, str], ...]:
        try:
            return resolve(text)
        except EdgepackError as error:
            self._add(place, f"{where}: {error.message}")
            return ()

    def _name(self, model: Mapping[str, Any], path: Path, place: KeyPath, where: str) -> str:
        """Return the name of a model, its file's by default."""
        name = str(model.get("name") or default_name(path))
        if name.casefold() in self.names:
            how = "" if "name" in model else '; give it a name of its own: name = "..."'
            self._add((*place, "name"), f"{where}: another model has the name '{name}'{how}")
        self.names.add(name.casefold())
        return name

    def _require_used(
        self, tables: Mapping[tuple[str, str], Any], wanted: Sequence[tuple[str, str]], place: KeyPath, where: str
    ) -> None:
        """Refuse options for a target that the model is not built for."""
        for target, soc in tables:
            if wanted and not any(target == other and soc in ("", chip) for other, chip in wanted):
                text = _text((target, soc))
                listed = ", ".join(map(_text, wanted))
                self._add((*place, "target", text), f"{where}: target.{text}: the model's targets are {listed}")

    def _require_own_bundle(self, cell: Cell, place: KeyPath, where: str) -> None:
        """Refuse two cells that would write the same folder; names of files are compared without case."""
        folder = str(cell.options.out / f"{file_stem(cell.model)}-{cell.target}").casefold()
        other = self.bundles.setdefault(folder, cell.id)
        if other != cell.id:
            self._add(place, f"{where}: '{cell.id}' and '{other}' would be written to one folder; give it another name")


def default_name(path: Path) -> str:
    """Return the name of a model file or folder without its suffix, in the characters that a name may have."""
    text = Path(os.path.normpath(path)).name.rsplit(".", 1)[0]
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    kept = re.sub(r"[^A-Za-z0-9_.+-]+", "-", plain).strip("-.+")[:100]
    return kept if fits(kept, NAME) else file_stem(text)


def _layers(tables: Mapping[tuple[str, str], dict[str, Any]], target: str, soc: str) -> Iterator[dict[str, Any]]:
    """Yield the options for a target, then those for its chip."""
    for key in dict.fromkeys([(target, ""), (target, soc)]):
        if key in tables:
            yield tables[key]


def _text(cell: tuple[str, str]) -> str:
    return "@".join(part for part in cell if part)


def _error(file: Path, data: bytes, faults: Sequence[Fault]) -> ProjectError:
    """Return the error that lists faults with their lines."""
    lines = key_lines(data.decode("utf-8-sig"))
    placed = sorted({(line_of(lines, fault.path), fault.message): None for fault in faults})
    listed = [f"{file.name}:{line}: {message}" for line, message in placed]
    head = [f"'{file.name}' has {len(listed)} faults"] if len(listed) > 1 else []
    more = [f"and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
    return ProjectError(
        "\n".join([*head, *listed[:_LISTED], *more]), details={"faults": [{"line": n, "message": m} for n, m in placed]}
    )
