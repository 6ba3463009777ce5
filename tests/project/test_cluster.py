"""A Dask cluster builds the same bytes as one machine, from inputs that its workers find in the cache only."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders import classifier, two_in_two_out

from edgepack.digests import Snapshot, hash_path
from edgepack.errors import EdgepackError
from edgepack.pipeline.build import build
from edgepack.pipeline.options import BuildOptions
from edgepack.project.cells import Cell, Project
from edgepack.project.cluster import LOCAL, DaskExecutor
from edgepack.project.cluster_resources import resources_of
from edgepack.project.graph import Kind, Node
from edgepack.project.matrix import build_matrix
from edgepack.project.node import relocate
from edgepack.project.store import Store, StoredBundle


@pytest.mark.slow
def test_a_cluster_builds_the_same_bytes(tmp_path: Path) -> None:
    """Two models on a local cluster; the second run builds nothing."""
    pytest.importorskip("distributed")
    (tmp_path / "one.tflite").write_bytes(classifier())
    (tmp_path / "two.tflite").write_bytes(two_in_two_out())
    options = BuildOptions(out=tmp_path / "out")
    cells = tuple(Cell(name, tmp_path / f"{name}.tflite", "cpu", "", options) for name in ("one", "two"))
    function = replace(cells[0], model="function", options=replace(options, name="f", samples="module:function"))
    project = Project(tmp_path / "edgepack.toml", "zoo", tmp_path / "out", "", (*cells, function))
    executor = DaskExecutor(LOCAL, 2)
    try:
        result = build_matrix(project, executor=executor)
        assert [entry.state for entry in result.results] == ["built", "built", "failed"]
        assert result.results[2].error is not None
        assert "this machine only" in result.results[2].error.message
        again = build_matrix(replace(project, cells=cells), executor=executor)
        assert ([entry.state for entry in again.results], again.executed) == (["current", "current"], 0)
    finally:
        executor.close()
    for name in ("one", "two"):
        build(tmp_path / f"{name}.tflite", ["cpu"], BuildOptions(out=tmp_path / "single"))
        assert hash_path(tmp_path / "out" / f"{name}-cpu") == hash_path(tmp_path / "single" / f"{name}-cpu")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_input_travels_through_the_cache(
    kind: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker gets the same names and bytes, in parts where they are large, and nothing but what the digest says."""
    monkeypatch.setattr("edgepack.project.store._PART_BYTES", 1000)
    source = tmp_path / "samples"
    if kind == "file":
        source.write_bytes(bytes(range(256)) * 10)
    else:
        for name, size in (("a/1.png", 2500), ("a/2.png", 0), ("b/1.png", 10)):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(name.encode() * size)
    snapshot = Snapshot.take(source)
    store.put_input(snapshot)
    place = store.get_input(snapshot.digest, "samples", tmp_path / "worker")
    assert place.name == "samples"
    assert hash_path(place) == snapshot.digest
    assert store.get_input(snapshot.digest, "samples", tmp_path / "worker") == place

    shutil.rmtree(store.cache.root)
    with pytest.raises(EdgepackError, match="not in the cache"):
        store.get_input(snapshot.digest, "samples", tmp_path / "other worker")


def test_an_input_that_changes_while_it_is_stored_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "model.tflite").write_bytes(b"before")
    snapshot = Snapshot.take(tmp_path / "model.tflite")
    (tmp_path / "model.tflite").write_bytes(b"afterwards")
    with pytest.raises(EdgepackError, match="changed"):
        store.put_input(snapshot)


def test_a_bundle_travels_through_the_cache(store: Store) -> None:
    """Equal files are stored once; order, names and bytes come back."""
    bundle = StoredBundle({"b/x": b"same", "a": b"", "c": b"same", "d": b"other"}, {"result": {"scheme": "int8"}})
    store.put_bundle("bundle-x", bundle)
    assert store.get_bundle("bundle-x") == bundle
    assert len((store.cache.root / "bundle-x" / "contents").read_bytes()) == len(b"sameother")
    assert store.get_bundle("bundle-y") is None


def test_resources_of_a_node() -> None:
    """A worker must have the memory, TensorFlow for conversions, and the compiler of the target."""
    cell = Cell("a", Path("a.keras"), "hexagon", "SM8550", BuildOptions())
    node = Node("build:a", Kind.BUILD, "key", cell, memory=5, tensorflow=True, compiler="qnn")
    assert resources_of(node) == {"MEMORY": 5, "TENSORFLOW": 1, "QNN": 1}


def test_relocated_cells_keep_their_names() -> None:
    """Only paths change, and every path does."""
    options = BuildOptions(samples="/here/s.npz", eval="m:f", labels=Path("/here/l.txt"), co_compile=(Path("/here/c"),))
    cell = Cell("a", Path("/here/a.keras"), "cpu", "", options)
    names = ("a.keras", "s.npz", "l.txt", "c")
    moved = relocate(cell, {Path("/here") / name: Path("/there") / name for name in names})
    assert moved.path == Path("/there/a.keras")
    assert moved.options == replace(
        options, samples="/there/s.npz", labels=Path("/there/l.txt"), co_compile=(Path("/there/c"),)
    )
