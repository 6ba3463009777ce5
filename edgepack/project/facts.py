"""Reads what a plan depends on: digests of files, the cache, the last builds, and the bundles that are there."""

import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from edgepack.convert.importers.registry import importer_for
from edgepack.digests import Snapshot, sha256
from edgepack.errors import EdgepackError
from edgepack.pipeline.float_model import CONVERT, conversion_inputs
from edgepack.pipeline.option_validation import bundle_folder
from edgepack.pipeline.options import BuildOptions, TargetOptions
from edgepack.pipeline.search.candidates import resolve_profile
from edgepack.pipeline.step_cache import StepCache, to_json_bytes
from edgepack.profiles.registry import get_target
from edgepack.profiles.variants import choose_variant
from edgepack.project.cells import Cell, Project
from edgepack.project.parts import Machine, inputs_of, machine_for, take_snapshots
from edgepack.project.plan import Facts
from edgepack.project.records import Records, mark_of
from edgepack.project.store import Store


def gather(
    project: Project, store: Store, records: Records, machine: Machine | None = None
) -> tuple[Facts, dict[Path, Snapshot], dict[str, EdgepackError]]:
    """Read everything that a plan depends on.

    Args:
        project: The project, or a selection of its cells.
        store: The cache.
        records: The last builds.
        machine: Where the cells are built; None for this machine.

    Returns:
        The facts; the snapshot of each input by its path; and the error of each cell that has an input that cannot be
        read or names something that does not exist, by the cell's id.
    """
    snapshots, unreadable = take_snapshots(project.cells)
    if machine is None:
        machine = machine_for(project)
    errors: dict[str, EdgepackError] = {}
    conversions: dict[str, str] = {}
    profiles: dict[str, str] = {}
    steps = StepCache(store.cache)
    for cell in project.cells:
        try:
            profiles[cell.id] = _profile_digest(cell)
            for entry in inputs_of(cell):
                if entry.path in unreadable:
                    raise unreadable[entry.path]
            if key := _conversion(cell, snapshots[cell.path], steps):
                conversions[cell.id] = key
        except EdgepackError as error:
            errors[cell.id] = error
    facts = Facts(
        digests={path: snapshot.digest for path, snapshot in snapshots.items()},
        sizes={path: snapshot.size for path, snapshot in snapshots.items()},
        conversions=conversions,
        profiles=profiles,
        machine=machine,
        entries=store.keys(),
        records=records.by_cell,
        marks=_marks(project),
        salt=secrets.token_hex(8),
    )
    return facts, snapshots, errors


def _conversion(cell: Cell, snapshot: Snapshot, steps: StepCache) -> str:
    """Return the key of the conversion, empty where TensorFlow converts nothing or no key covers the conversion."""
    if cell.options.model.allow_code or not importer_for(cell.path).needs_tensorflow:
        return ""
    return steps.key(CONVERT, conversion_inputs(cell.path, snapshot, cell.options.model))


def _profile_digest(cell: Cell) -> str:
    target = cell.options.target
    return _resolved(cell.target, target.variant, target.soc, cell.options.per_tensor)


@cache
def _resolved(target: str, variant: str, soc: str, per_tensor: bool) -> str:
    """Return a digest of what a target, a variant and a chip select: the op table and the schemes."""
    profile = get_target(target)
    options = BuildOptions(target=TargetOptions(variant=variant, socs=(soc,) if soc else ()), per_tensor=per_tensor)
    schemes = [repr(rule) for rule in resolve_profile(profile, options).schemes]
    chosen = choose_variant(profile, variant=variant, soc=soc).id
    return sha256(to_json_bytes([profile.id, profile.sha256, chosen, schemes]))


def _marks(project: Project) -> Mapping[str, str]:
    marks = {cell.id: mark_of(bundle_folder(cell.path, cell.target, cell.options)) for cell in project.cells}
    return {cell: mark for cell, mark in marks.items() if mark}
