"""Results of steps: computed once, and never taken from what other code or other inputs computed."""

import shutil
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgepack import interrupts
from edgepack.cache import Cache, sha256
from edgepack.pipeline import step_cache
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, StepCache, code_digest

PACKAGE = Path(step_cache.__file__).resolve().parents[1]
FOLDERS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
TEXT: Codec[str] = Codec(lambda text: {"text": text.encode()}, lambda files: files["text"].decode())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of edgepack's own code."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "edgepack", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_new_file_changes_every_key(package: Path, folder: str) -> None:
    """The digest covers every module: one that is added anywhere, even empty, changes it."""
    before = code_digest(package)
    (package / folder / "added").mkdir()
    (package / folder / "added" / "module.py").touch()
    assert code_digest(package) != before


def test_a_changed_or_renamed_module_changes_every_key(package: Path) -> None:
    """A change of any module counts, also a move of its text to another name."""
    digests = {code_digest(package)}
    module = package / "training" / "losses.py"
    module.rename(module.with_name("loss.py"))
    digests.add(code_digest(package))
    with (package / "bundle" / "names.py").open("a") as stream:
        stream.write("# changed\n")
    digests.add(code_digest(package))
    assert len(digests) == 3


def test_the_key_holds_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of other code is a miss."""
    steps = StepCache(Cache(tmp_path))
    assert steps.memoize("step", {}, TEXT, lambda: "old") == "old"
    assert steps.memoize("step", {}, TEXT, lambda: "new") == "old"
    monkeypatch.setattr(step_cache, "component_versions", lambda: {"code": "another"})
    assert steps.memoize("step", {}, TEXT, lambda: "new") == "new"


@dataclass(frozen=True)
class Samples:
    digest: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"a", b"b"),
        (Samples("a"), Samples("b")),
        ({"x": (1, 2)}, {"x": (1, 3)}),
        (None, ""),
        ([b"a", None], [b"a", 0]),
        (b"a", sha256(b"b")),
    ],
)
def test_inputs_tell_keys_apart(tmp_path: Path, one: Any, other: Any) -> None:
    """Different inputs have different keys, equal ones the same."""
    steps = StepCache(Cache(tmp_path))
    assert steps.key("step", {"input": one}) == steps.key("step", {"input": one})
    assert steps.key("step", {"input": one}) != steps.key("step", {"input": other})


def test_a_path_counts_by_its_content(tmp_path: Path) -> None:
    """Renamed is the same input, rewritten is another."""
    steps = StepCache(Cache(tmp_path / "cache"))
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("x")
    second.write_text("x")
    assert steps.key("step", {"input": first}) == steps.key("step", {"input": second})
    second.write_text("y")
    assert steps.key("step", {"input": first}) != steps.key("step", {"input": second})


@pytest.mark.parametrize("enabled", [True, False])
def test_a_step_runs_once(tmp_path: Path, enabled: bool) -> None:
    """Also without a cache on disk, for as long as the command runs; then nothing is written."""
    runs: list[int] = []

    def compute() -> str:
        runs.append(1)
        return "result"

    steps = StepCache(Cache(tmp_path / "cache", enabled=enabled))
    assert [steps.memoize("step", {}, TEXT, compute) for _ in range(3)] == ["result"] * 3
    assert len(runs) == 1
    assert (tmp_path / "cache").exists() == enabled


@pytest.mark.parametrize("limit", [0, step_cache._RECENT_BYTES])
def test_entries_are_written_beside_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """A step does not wait for the disk; whoever reads the entry does, and at the end all are there."""
    monkeypatch.setattr(step_cache, "_RECENT_BYTES", limit)
    begin, end, put = threading.Event(), threading.Event(), Cache.put

    def slow(self: Cache, key: str, files: Mapping[str, bytes]) -> None:
        begin.set()
        assert end.wait(20)
        put(self, key, files)

    monkeypatch.setattr(Cache, "put", slow)
    steps = StepCache(Cache(tmp_path))
    steps.write_in_background()
    assert steps.memoize("step", {}, TEXT, lambda: "result") == "result"
    assert begin.wait(20) and StepCache(Cache(tmp_path)).cache.get(steps.key("step", {})) is None
    threading.Timer(0.0 if limit == 0 else 0.2, end.set).start()
    assert steps.memoize("step", {}, TEXT, lambda: "again") == "result"
    steps.finish_writing()
    assert StepCache(Cache(tmp_path)).memoize("step", {}, TEXT, lambda: "again") == "result"
    assert steps.memoize("other", {}, TEXT, lambda: "other") == "other"
    assert StepCache(Cache(tmp_path)).memoize("other", {}, TEXT, lambda: "again") == "other"


def test_a_session_ends_when_everything_is_written(own_cache: Path) -> None:
    """Also a session that fails: what was computed before is there for the next command."""
    with pytest.raises(ZeroDivisionError), Session(ModelOptions()) as session:
        session.steps.memoize("step", {}, TEXT, lambda: "result")
        raise ZeroDivisionError
    assert StepCache(Cache(own_cache)).memoize("step", {}, TEXT, lambda: "again") == "result"


def test_only_the_main_thread_delays_signals() -> None:
    """A thread that writes an entry neither delays Ctrl-C nor receives it."""
    with interrupts.hold():
        held = interrupts._held
        thread = threading.Thread(target=lambda: held_in_thread.append(_hold()))
        held_in_thread: list[int] = []
        thread.start()
        thread.join()
    assert held_in_thread == [held] and interrupts._held == held - 1


def _hold() -> int:
    with interrupts.hold():
        return interrupts._held
