"""A plan names what has to be done and why, shares work between cells, and is fast for thousands of cells."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgepack.errors import UsageError
from edgepack.pipeline.options import BuildOptions, ModelOptions, TargetOptions
from edgepack.project.cells import Cell, Project
from edgepack.project.graph import Frontier, Kind, Plan, State
from edgepack.project.parts import Machine
from edgepack.project.plan import Facts, make_plan
from edgepack.project.records import Record

MACHINE = Machine("1.0 aaaa bbbb", {"numpy": "2.0"}, {"cpu": "p1", "edgetpu": "p2", "hexagon": "p3"}, {"qnn": "2.4"})
TARGETS = (("cpu", ""), ("edgetpu", ""), ("hexagon", "SM8550"), ("hexagon", "SM8650"))


def cell(name: str, target: str, soc: str = "", **options: object) -> Cell:
    own = BuildOptions(
        out=Path("out") / name / (soc or "any"),
        target=TargetOptions(socs=(soc,) if soc else ()),
        **{"samples": "samples.npz", **options},  # type: ignore[arg-type]
    )
    return Cell(name, Path(f"{name}.keras"), target, soc, own)


def project(*cells: Cell) -> Project:
    return Project(Path("edgepack.toml"), "zoo", Path("out"), "", cells)


def matrix(*models: str) -> Project:
    return project(*(cell(model, target, soc) for model in models for target, soc in TARGETS))


def facts(described: Project, **known: object) -> Facts:
    """Return facts about models that nothing was built of."""
    base = Facts(
        digests={Path("samples.npz"): "s1", **{one.path: f"m-{one.model}" for one in described.cells}},
        sizes={one.path: 1000 for one in described.cells},
        conversions={one.id: f"convert-{one.model}" for one in described.cells},
        profiles={one.id: one.target for one in described.cells},
        machine=MACHINE,
    )
    return replace(base, **known)  # type: ignore[arg-type]


def built(described: Project, known: Facts) -> Facts:
    """Return the facts after every cell was built."""
    plan = make_plan(described, known)
    records = {one.cell.id: Record(one.cell.id, one.key, one.parts, f"mark {one.cell.id}") for one in plan.cells}
    return replace(
        known,
        entries={one.key for one in plan.cells},
        records=records,
        marks={name: record.mark for name, record in records.items()},
    )


def states(plan: Plan) -> list[tuple[str, str]]:
    return [(str(one.state), one.reason) for one in plan.cells]


def test_shared_work_is_one_node() -> None:
    """A model is converted once, and cells that differ in the chip only have one search."""
    described = matrix("a", "b")
    plan = make_plan(described, facts(described))
    kinds = [node.kind for node in plan.nodes]
    assert (kinds.count(Kind.CONVERT), kinds.count(Kind.SEARCH), kinds.count(Kind.BUILD)) == (2, 2, 8)
    nodes = {node.id: node for node in plan.nodes}
    search = next(node for node in plan.nodes if node.kind == Kind.SEARCH and node.cell.model == "a")
    for soc in ("SM8550", "SM8650"):
        assert nodes[f"build:a/hexagon@{soc}"].after == (search.id,)
        assert nodes[f"build:a/hexagon@{soc}"].needs == ("convert:a",)
        assert nodes[f"build:a/hexagon@{soc}"].compiler == "qnn"
    # The first search of a model goes ahead of those that may find its results.
    assert nodes["build:a/cpu"].after == ()
    assert nodes["build:a/edgetpu"].after == search.after == ("build:a/cpu",)
    assert states(plan) == [("build", "never built")] * 8


def test_two_names_of_one_file_share_the_conversion() -> None:
    described = project(cell("a", "cpu"), cell("b", "cpu"))
    known = facts(described, conversions={"a/cpu": "convert-x", "b/cpu": "convert-x"})
    plan = make_plan(described, known)
    assert [node.id for node in plan.nodes] == ["convert:a", "build:a/cpu", "build:b/cpu"]
    assert plan.nodes[2].needs == ("convert:a",)


def test_every_node_comes_after_those_that_it_waits_for() -> None:
    """The order is one in which a single worker can run the graph, and a frontier ends every node once."""
    described = matrix("a", "b", "c")
    nodes = make_plan(described, facts(described)).nodes
    seen: set[str] = set()
    for node in nodes:
        assert seen.issuperset((*node.needs, *node.after)), node.id
        seen.add(node.id)
    frontier, order = Frontier(nodes), []
    while ready := next(frontier.ready(), None):
        frontier.take(ready)
        frontier.finish(ready)
        order.append(ready.id)
    assert sorted(order) == sorted(seen)


def test_nothing_is_done_twice() -> None:
    described = matrix("a")
    plan = make_plan(described, built(described, facts(described)))
    assert plan.nodes == ()
    assert states(plan) == [("current", "")] * 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digests": {Path("a.keras"): "other", Path("samples.npz"): "s1"}}, "changed model"),
        ({"digests": {Path("a.keras"): "m-a", Path("samples.npz"): "s2"}}, "changed samples"),
        ({"machine": replace(MACHINE, edgepack="1.1 cccc bbbb")}, "new edgepack"),
        ({"machine": replace(MACHINE, packages={"numpy": "2.1"})}, "new packages: numpy 2.0 -> 2.1"),
        ({"machine": replace(MACHINE, targets={**MACHINE.targets, "cpu": "new"})}, "changed target profile"),
        ({"entries": ()}, "not in the cache"),
    ],
)
def test_the_reason_of_a_build(change: dict[str, object], reason: str) -> None:
    """What differs from the last build is named."""
    described = project(cell("a", "cpu"))
    plan = make_plan(described, replace(built(described, facts(described)), **change))  # type: ignore[arg-type]
    assert states(plan) == [("build", reason)]


def test_changed_options_are_named() -> None:
    before = project(cell("a", "cpu"))
    now = project(cell("a", "cpu", effort="high", strict=True))
    assert states(make_plan(now, built(before, facts(before)))) == [("build", "changed options: effort, strict")]


def test_options_that_change_no_file_are_no_reason() -> None:
    """Time limits, places and the permission to replace a bundle do not reach its files."""
    before = project(cell("a", "cpu"))
    one = before.cells[0]
    options = replace(
        one.options, force=True, compile_timeout=1.0, model=ModelOptions(timeout=5.0, memory_limit=1 << 30)
    )
    now = replace(before, cells=(replace(one, options=options),))
    assert states(make_plan(now, built(before, facts(before)))) == [("current", "")]


def test_a_bundle_that_is_missing_or_changed_comes_from_the_cache() -> None:
    described = project(cell("a", "cpu"))
    known = built(described, facts(described))
    assert states(make_plan(described, replace(known, marks={}))) == [("cached", "the bundle is missing")]
    changed = replace(known, marks={"a/cpu": "other"})
    assert states(make_plan(described, changed)) == [("cached", "the bundle was changed")]
    # Another machine has built it.
    assert states(make_plan(described, replace(known, marks={}, records={}))) == [("cached", "the bundle is missing")]


def test_a_failed_build_is_tried_again() -> None:
    described = project(cell("a", "cpu"))
    known = facts(described)
    planned = make_plan(described, known).cells[0]
    record = Record("a/cpu", planned.key, planned.parts, "", "conversion")
    plan = make_plan(described, replace(known, records={"a/cpu": record}))
    assert states(plan) == [("build", "failed last time: conversion")]


@pytest.mark.parametrize("options", [{"model": ModelOptions(allow_code=True)}, {"samples": "module:function"}])
def test_what_no_key_covers_is_built_each_time(options: dict[str, object]) -> None:
    """Code of the model, or a function that yields samples, may give something else each time."""
    described = project(cell("a", "cpu", **options))
    known = built(described, facts(described))
    assert make_plan(described, replace(known, salt="next run")).cells[0].state == State.BUILD


def test_two_cells_in_one_folder_are_refused() -> None:
    clash = cell("a", "cpu")
    with pytest.raises(UsageError, match="same folder"):
        make_plan(project(clash, replace(clash, model="b")), facts(project(clash)))
    with pytest.raises(UsageError, match="twice"):
        make_plan(project(clash, clash), facts(project(clash)))


def test_the_document_of_a_dry_run() -> None:
    described = matrix("a")
    document = make_plan(described, facts(described)).to_json()
    assert document["cells"][2] == {
        "id": "a/hexagon@SM8550",
        "model": "a",
        "target": "hexagon",
        "soc": "SM8550",
        "state": "build",
        "reason": "never built",
        "node": "build:a/hexagon@SM8550",
    }
    assert {node["kind"] for node in document["nodes"]} == {"convert", "search", "build"}


def test_a_dry_run_knows_the_shared_cache() -> None:
    """A bundle that another machine has built is fetched, not built, and its conversion is not planned either."""
    described = project(cell("a", "cpu"))
    alone = make_plan(described, facts(described))
    assert alone.cells[0].state == State.BUILD
    there = make_plan(described, replace(facts(described), shared={alone.cells[0].key}))
    assert (there.cells[0].state, there.nodes) == (State.CACHED, ())
    assert there.cells[0].reason == "never built; in the shared cache"
