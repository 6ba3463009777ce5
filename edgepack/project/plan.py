"""From a project and what is known about it to a graph of work; pure, so that a plan can be shown and tested.

A bundle whose cache entry exists needs no work. The others need a node each, and what several of them share becomes a
node of its own:

- a model that TensorFlow converts, for all cells that read it in the same way (`convert`);
- the search for the quantized file, for cells that differ in the chip only (`search`).

Targets of one model share further steps wherever their rewritten models are equal, which nobody knows before they were
rewritten. So the first search of a model with its samples goes ahead, and the others find what it left in the cache.
"""

import json
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.cache import key_of
from edgepack.choices import Effort
from edgepack.errors import UsageError
from edgepack.pipeline.option_validation import bundle_folder
from edgepack.project.cells import Cell, Project
from edgepack.project.graph import Kind, Node, Plan, PlannedCell, State
from edgepack.project.parts import Machine, cell_parts, compiler_of, volatile_reason
from edgepack.project.reasons import changes
from edgepack.project.records import Record

#: Memory of a node: what its processes hold on small models, and how often they hold the model. Generous estimates:
#: `scripts/bench matrix` measured 133 MB without TensorFlow; the factor is that of `edgepack.limits`.
BASE_MEMORY, TENSORFLOW_MEMORY, MODEL_COPIES = 400 << 20, 900 << 20, 8

#: Options that change the bundle but not its quantized file.
_BUNDLE_OPTIONS = (
    "name",
    "package",
    "language",
    "delivery",
    "runtime",
    "sample_app",
    "platform",
    "compile",
    "segments",
    "signed",
)
#: Parts that the search for the quantized file does not depend on.
_BUNDLE_PARTS = ("compiler", "co-compile", "target", "options")


@dataclass(frozen=True)
class Facts:
    """What a plan depends on beside the project.

    Attributes:
        digests: Digest of each file and folder that cells read, by path; missing where it cannot be read.
        sizes: Bytes of each model, by path.
        conversions: Key of the conversion of a cell's model by the cell's id; missing where TensorFlow converts nothing
            or where no key covers the conversion.
        profiles: Digest of the variant and the schemes that a cell's target and chip select, by the cell's id.
        machine: Where the cells are built.
        entries: Keys of the cache.
        shared: Keys of the shared cache that are not there, as far as it was asked.
        records: The last builds, by the cell's id.
        marks: Identity of the bundle in the output folder by the cell's id, missing where there is none.
        salt: Distinguishes this run from others, for cells whose result no key covers.
    """

    digests: Mapping[Path, str]
    sizes: Mapping[Path, int]
    conversions: Mapping[str, str]
    profiles: Mapping[str, str]
    machine: Machine
    entries: Container[str] = ()
    shared: Container[str] = ()
    records: Mapping[str, Record] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    salt: str = ""

    def has(self, key: str) -> bool:
        """Return whether an entry is in the cache or in the shared one."""
        return key in self.entries or key in self.shared


def make_plan(project: Project, facts: Facts) -> Plan:
    """Return what has to be done for each cell of a project.

    Args:
        project: The project; `cells` may be a selection.
        facts: What is known.

    Raises:
        UsageError: Two cells have the same id or would be written to the same folder.
    """
    _require_distinct(project)
    planned = tuple(_plan_cell(cell, facts) for cell in project.cells)
    return Plan(planned, _nodes([entry for entry in planned if entry.state == State.BUILD], facts))


def memory_of(size: int, *, tensorflow: bool) -> int:
    """Return an estimate of the bytes that a node holds.

    Args:
        size: Bytes of its model.
        tensorflow: Whether it loads TensorFlow.
    """
    return (TENSORFLOW_MEMORY if tensorflow else BASE_MEMORY) + MODEL_COPIES * size


def _require_distinct(project: Project) -> None:
    ids: set[str] = set()
    folders: dict[Path, str] = {}
    for cell in project.cells:
        if cell.id in ids:
            raise UsageError(f"{project.path.name}: the cell {cell.id} is there twice", hint="name a model once")
        ids.add(cell.id)
        folder = bundle_folder(cell.path, cell.target, cell.options)
        other = folders.setdefault(folder, cell.id)
        if other != cell.id:
            raise UsageError(
                f"{project.path.name}: {other} and {cell.id} would be written to the same folder '{folder}'",
                hint="give one of them another `name` or `out`",
            )


def _plan_cell(cell: Cell, facts: Facts) -> PlannedCell:
    parts = cell_parts(cell, facts.digests, facts.machine)
    volatile = volatile_reason(cell)
    key = key_of("bundle", {"parts": parts, "salt": facts.salt if volatile else ""})
    record = facts.records.get(cell.id)
    changed = changes(record, parts)
    if not volatile and key not in facts.entries and key in facts.shared:
        return PlannedCell(cell, key, State.CACHED, f"{changed or 'not built here'}; in the shared cache", parts)
    if volatile or key not in facts.entries:
        return PlannedCell(cell, key, State.BUILD, changed or volatile or _lost(record), parts)
    mark = facts.marks.get(cell.id, "")
    if record is not None and record.key == key and mark and mark == record.mark:
        return PlannedCell(cell, key, State.CURRENT, "", parts)
    missing = "the bundle was changed" if mark and record is not None else "the bundle is missing"
    return PlannedCell(cell, key, State.CACHED, (record and changed) or missing, parts)


def _lost(record: Record | None) -> str:
    if record is not None and record.error:
        return f"failed last time: {record.error}"
    return "not in the cache"


def _nodes(cells: list[PlannedCell], facts: Facts) -> tuple[Node, ...]:
    """Return the nodes of cells that have to be built, in the order of the cells."""
    conversions = [facts.conversions.get(entry.cell.id, "") for entry in cells]
    # What no key covers is not in the cache for others to find: such a cell does everything itself.
    searches = ["" if volatile_reason(entry.cell) else _search_key(entry, facts) for entry in cells]
    sharing = Counter(searches)
    nodes: dict[str, Node] = {}
    converting: dict[str, str] = {}
    leaders: dict[str, str] = {}
    for entry, conversion, search in zip(cells, conversions, searches, strict=True):
        cell, size = entry.cell, facts.sizes.get(entry.cell.path, 0)
        heavy = cell.options.effort != Effort.LOW or bool(cell.options.train)
        memory = memory_of(size, tensorflow=heavy)
        needs: tuple[str, ...] = ()
        if conversion and not facts.has(conversion):
            if conversion not in converting:
                converting[conversion] = name = _free_name(nodes, f"{Kind.CONVERT}:{cell.model}")
                held = memory_of(size, tensorflow=True)
                nodes[name] = Node(name, Kind.CONVERT, conversion, cell, memory=held, tensorflow=True)
            needs = (converting[conversion],)
        after: tuple[str, ...] = ()
        group = _group(entry, conversion) if search else ""
        if search and sharing[search] > 1:
            name = f"{Kind.SEARCH}:{search.rpartition('-')[2][:12]}"
            if name not in nodes and not facts.has(search):
                ahead = (leaders[group],) if group in leaders else ()
                nodes[name] = Node(name, Kind.SEARCH, search, cell, needs, ahead, memory, heavy)
                leaders.setdefault(group, name)
            after = (name,) if name in nodes else ()
        elif group in leaders:
            after = (leaders[group],)
        name = f"{Kind.BUILD}:{cell.id}"
        nodes[name] = Node(name, Kind.BUILD, entry.key, cell, needs, after, memory, heavy, compiler_of(cell))
        if search:
            leaders.setdefault(group, name)
    return tuple(nodes.values())


def _free_name(nodes: Mapping[str, Node], name: str) -> str:
    """Return a name for the conversion of a model; targets of one model may read it in different ways."""
    number, free = 1, name
    while free in nodes:
        number += 1
        free = f"{name}#{number}"
    return free


def _search_key(entry: PlannedCell, facts: Facts) -> str:
    """Return the key of the search for a cell's quantized file: of its parts without the chip and the bundle's own."""
    options = json.loads(entry.parts["options"])
    for name in _BUNDLE_OPTIONS:
        options.pop(name, None)
    options["target"].pop("socs", None)
    parts = {name: text for name, text in entry.parts.items() if name not in _BUNDLE_PARTS}
    return key_of("search", {**parts, "options": options, "profile": facts.profiles.get(entry.cell.id, entry.cell.id)})


def _group(entry: PlannedCell, conversion: str) -> str:
    """Return what cells have in common that read the same model with the same samples in the same way."""
    options = entry.cell.options
    names = ("model", "samples", "eval", "train", "labels", "metadata")
    texts = [entry.parts.get(name, "") for name in names]
    return json.dumps([conversion, *texts, options.preprocess, options.resize, options.calibration_samples])
