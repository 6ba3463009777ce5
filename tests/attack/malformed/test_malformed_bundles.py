"""Manifests and golden indexes of any content: verify reports problems, inspect gives one BundleError."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bundle"))
from builders import classifier
from bundle_specs import spec_of, write_tree
from hypothesis import given
from malformed_documents import SETTINGS, mutated, plain_values

from edgepack.bundle.render import render
from edgepack.bundle.verify import verify
from edgepack.cache import sha256
from edgepack.child import Worker
from edgepack.errors import EdgepackError
from edgepack.pipeline.inspect import inspect

VALUES = plain_values(None, 10**400, "\ud800")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(render(spec_of(classifier(), "digits", "cpu")), tmp_path_factory.mktemp("malformed") / "bundle")


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


def copies_of_index(bundle: Path) -> list[str]:
    """Return the paths of the golden index, in `golden/` and in the data of the generated project."""
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("golden/index.json"))


def write(bundle: Path, manifest: Any, index: Any) -> None:
    raw = json.dumps(index).encode()
    for path in copies_of_index(bundle):
        (bundle / path).write_bytes(raw)
    if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict):
        hashes = dict.fromkeys(copies_of_index(bundle), sha256(raw))
        manifest = {**manifest, "files": {**manifest["files"], **hashes}}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def documents(bundle: Path) -> Iterator[tuple[Any, Any]]:
    """The manifest and the golden index, which are restored afterwards."""
    files = [bundle / "manifest.json", *(bundle / path for path in copies_of_index(bundle))]
    before = [file.read_bytes() for file in files]
    yield tuple(map(json.loads, before[:2]))
    for file, data in zip(files, before, strict=True):
        file.write_bytes(data)


def test_a_sound_bundle(bundle: Path, documents: tuple[Any, Any], worker: Worker) -> None:
    """The seed has no problems, so that those below come from the mutation."""
    write(bundle, *documents)
    assert verify(bundle, worker=worker).problems == ()


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize("count", [0, 2, 5])
def test_a_case_with_another_number_of_tensors(
    bundle: Path, documents: tuple[Any, Any], worker: Worker, kind: str, count: int
) -> None:
    """A golden case that does not have one array per tensor is a problem with its place."""
    manifest, index = documents
    index["cases"][0][kind] = (index["cases"][0][kind] * 5)[:count]
    if count == len(manifest[kind]):
        pytest.skip("the number of tensors of the model")
    write(bundle, manifest, index)
    whats = [problem.what for problem in verify(bundle, worker=worker).problems]
    assert f"cases.0.{kind}: expected {len(manifest[kind])} entries, got {count}" in whats


@SETTINGS
@given(st.data())
def test_mutated_documents(bundle: Path, worker: Worker, data: st.DataObject) -> None:
    """One to three changes of the manifest or the index: problems with a text, or none; inspect gives one error."""
    files = [bundle / "manifest.json", *(bundle / path for path in copies_of_index(bundle))]
    before = [file.read_bytes() for file in files]
    documents = [json.loads(raw) for raw in before[:2]]
    changed = data.draw(st.integers(0, 1))
    documents[changed] = data.draw(mutated(documents[changed], VALUES))
    try:
        write(bundle, *documents)
        try:
            result = verify(bundle, worker=worker)
            assert all(problem.what.strip() and problem.path for problem in result.problems)
            json.dumps(result.to_json(), allow_nan=False).encode()
            inspect(bundle)
        except EdgepackError as error:
            assert error.message.strip()
    finally:
        for file, raw in zip(files, before, strict=True):
            file.write_bytes(raw)
