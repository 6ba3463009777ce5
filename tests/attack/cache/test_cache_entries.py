"""The cache heals: whatever a disk, a power cut or a stranger made of an entry, it is removed and computed again."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.cache import Cache, cache_size_limit, key_of
from edgepack.cli.main import run
from edgepack.errors import UsageError
from edgepack.pipeline.step_cache import Codec, StepCache

KEY, OTHER = key_of("step", {"n": 1}), key_of("step", {"n": 2})
FILES = {"model.tflite": b"right" * 100, "meta.json": b"{}"}


def _index(folder: Path, document: object) -> None:
    (folder / "index.json").write_text(document if isinstance(document, str) else json.dumps(document))


def _edit(folder: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((folder / "index.json").read_text())
    change(document)
    _index(folder, document)


def _swap(folder: Path) -> None:
    other = folder.parent / OTHER
    folder.rename(folder.parent / "aside")
    other.rename(folder)
    (folder.parent / "aside").rename(other)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing file": lambda f: (f / "meta.json").unlink(),
    "empty file": lambda f: (f / "model.tflite").write_bytes(b""),
    "truncated file": lambda f: os.truncate(f / "model.tflite", 100),
    "longer file": lambda f: os.truncate(f / "model.tflite", 1 << 20),
    "other bytes": lambda f: (f / "model.tflite").write_bytes(b"wrong" * 100),
    "no index": lambda f: (f / "index.json").unlink(),
    "empty index": lambda f: _index(f, ""),
    "index of zeros": lambda f: (f / "index.json").write_bytes(bytes(300)),
    "truncated index": lambda f: os.truncate(f / "index.json", 40),
    "huge index": lambda f: os.truncate(f / "index.json", 1 << 40),
    "deep index": lambda f: _index(f, "[" * 100_000),
    "index not text": lambda f: (f / "index.json").write_bytes(b"\xff\xfe\xff"),
    "index a folder": lambda f: _replace(f / "index.json", Path.mkdir),
    "index a pipe": lambda f: _replace(f / "index.json", os.mkfifo),
    "index a link": lambda f: _replace(f / "index.json", lambda p: p.symlink_to("/dev/zero")),
    "file a folder": lambda f: _replace(f / "meta.json", Path.mkdir),
    "file a pipe": lambda f: _replace(f / "meta.json", os.mkfifo),
    "file a link": lambda f: _replace(f / "meta.json", lambda p: p.symlink_to("model.tflite")),
    "file a dead link": lambda f: _replace(f / "meta.json", lambda p: p.symlink_to("nothing")),
    "extra file": lambda f: (f / "more").write_bytes(b""),
    "nested folder": lambda f: (f / "nested").mkdir(),
    "nested entry": lambda f: shutil.copytree(f.parent / OTHER, f / OTHER),
    "empty folder": lambda f: _replace(f, Path.mkdir),
    "file for the folder": lambda f: _replace(f, lambda p: p.write_bytes(b"x")),
    "pipe for the folder": lambda f: _replace(f, os.mkfifo),
    "link for the folder": lambda f: _replace(f, lambda p: p.symlink_to(f.parent / OTHER)),
    "link to itself": lambda f: _replace(f, lambda p: p.symlink_to(p.name)),
    "swapped entries": _swap,
    "copy of another entry": lambda f: _replace(f, lambda p: shutil.copytree(f.parent / OTHER, p)),
    "another key": lambda f: _edit(f, lambda d: d.update(key=OTHER)),
    "no key": lambda f: _edit(f, lambda d: d.pop("key")),
    "older format": lambda f: _index(f, {"model.tflite": "0" * 64}),
    "no files": lambda f: _edit(f, lambda d: d.update(files={})),
    "path that leaves": lambda f: _edit(f, lambda d: d["files"].update({"../x": {"size": 1, "sha256": ""}})),
    "path of zero byte": lambda f: _edit(f, lambda d: d["files"].update({"a\0b": {"size": 1, "sha256": ""}})),
    "lone surrogate": lambda f: _edit(f, lambda d: d["files"].update({"\ud800": {"size": 1, "sha256": ""}})),
    "index lists itself": lambda f: _edit(f, lambda d: d["files"].update({"index.json": {"size": 1, "sha256": ""}})),
    **{
        f"index {value!r}": lambda f, value=value: _index(f, value)
        for value in ([], {}, None, 0, 1.5, True, "text", [KEY], {"files": {}}, {"files": []}, {"files": None})
    },
    **{
        f"{field} {value!r}": lambda f, field=field, value=value: _edit(
            f, lambda d: d["files"]["meta.json"].update({field: value})
        )
        for field in ("size", "sha256")
        for value in (None, -1, 2.0, True, "2", [], {}, 10**30)
    },
    **{
        f"files {value!r}": lambda f, value=value: _edit(f, lambda d: d.update(files=value))
        for value in ([], None, 1, "x", {"meta.json": None}, {"meta.json": []}, {"meta.json": "x"}, {"": {}})
    },
}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with two entries."""
    cache = Cache(tmp_path / "cache")
    cache.put(KEY, FILES)
    cache.put(OTHER, {"model.tflite": b"other" * 100, "meta.json": b"{}"})
    return cache


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_removed_and_computed_again(
    cache: Cache, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is never returned, ends in no exception, is counted once, and makes room for the new result."""
    DAMAGE[name](cache.root / KEY)
    cache.usage()
    assert cache.get(KEY) is None
    assert not os.path.lexists(cache.root / KEY)
    cache.put(KEY, FILES)
    assert cache.get(KEY) == FILES
    assert sum(cache.usage().dropped.values()) == 1
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(cache.root))
    assert run(["cache", "show"]) == 0
    assert "1 damaged entry was removed" in capsys.readouterr().out


@pytest.mark.parametrize("name", DAMAGE)
def test_a_result_replaces_a_damaged_entry(cache: Cache, name: str) -> None:
    """Also where nobody looked at the entry before; and `clear` removes it."""
    DAMAGE[name](cache.root / KEY)
    cache.put(KEY, FILES)
    assert cache.get(KEY) == FILES
    DAMAGE[name](cache.root / KEY)
    cache.clear()
    assert list(cache.root.iterdir()) == []


def test_an_entry_that_no_step_wrote(tmp_path: Path) -> None:
    """A content of the right hashes that cannot be decoded is computed again."""
    steps = StepCache(Cache(tmp_path))
    text: Codec[str] = Codec(lambda t: {"text": t.encode()}, lambda files: files["text"].decode())
    steps.cache.put(steps.key("step", {}), {"other": b""})
    assert steps.memoize("step", {}, text, lambda: "new") == "new"
    assert StepCache(Cache(tmp_path)).memoize("step", {}, text, lambda: "newer") == "new"


@pytest.mark.parametrize("content", [b"", b"\xff\0\n[]\n{}\nnull\n" + b"[" * 100_000, b'{"reason": "x"}\n' * 200_000])
def test_an_odd_record_of_removals(cache: Cache, content: bytes) -> None:
    """The record of removed entries may be damaged as well."""
    (cache.root / ".damaged").write_bytes(content)
    DAMAGE["empty folder"](cache.root / KEY)
    assert cache.get(KEY) is None
    cache.usage()


@pytest.mark.parametrize("replace", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("/dev/zero")])
def test_something_else_for_the_record(cache: Cache, replace: Callable[[Path], object]) -> None:
    """Nothing blocks when the record is a folder, a named pipe or a link to a device."""
    replace(cache.root / ".damaged")
    DAMAGE["empty folder"](cache.root / KEY)
    assert cache.get(KEY) is None
    assert cache.usage().entries == {"step": 1}


def test_entries_are_synced_before_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file, the folder with their names, then the rename, then the cache's folder."""
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recorded(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "rename", renamed)
    Cache(tmp_path / "cache").put(KEY, {"a": b"1", "b": b"2"})
    temporary = events[3]
    assert temporary.startswith(f".{KEY}.tmp-")
    assert events == ["a", "b", "index.json", temporary, "rename", "cache"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while an entry is written removes what was written."""

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).put(KEY, FILES)
    assert list(tmp_path.iterdir()) == []


def test_clear_spares_hidden_files_of_users(tmp_path: Path) -> None:
    """With a wrong EDGEPACK_CACHE_DIR, neither hidden folders nor folders with an index.json are removed."""
    for name in (".git", ".config", "website", ".venv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text("{}")
    Cache(tmp_path).put(KEY, FILES)
    Cache(tmp_path).clear()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".config", ".git", ".venv", "website"]


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 10**10), ("0", 0), ("123", 123), ("5k", 5000), ("1.5M", 1_500_000), ("2 GB", 2 * 10**9), ("1T", 10**12)],
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    """A number of bytes, or one with a unit."""
    monkeypatch.setenv("EDGEPACK_CACHE_SIZE", text)
    assert cache_size_limit() == size


@pytest.mark.parametrize("text", ["x", "-1", "1e9", "nan", "inf", "10 G G", "٣", "9" * 400, "1..5M", "0x10", "1_0"])
def test_no_sizes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Anything else is one error with the documented code."""
    monkeypatch.setenv("EDGEPACK_CACHE_SIZE", text)
    with pytest.raises(UsageError):
        cache_size_limit()
    assert run(["cache", "show"]) == 2
    assert "EDGEPACK_CACHE_SIZE" in capsys.readouterr().err


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """The cache stays below its limit, and keeps what was read last."""
    cache = Cache(tmp_path, limit=100_000)
    keys = [key_of("step", {"n": n}) for n in range(40)]
    for number, key in enumerate(keys):
        cache.put(key, {"data": bytes(9_000)})
        os.utime(tmp_path / key, (number, number))
        if number >= 1:
            assert cache.get(keys[0]) is not None
            os.utime(tmp_path / keys[0], (1000 + number, 1000 + number))
    kept = [key for key in keys if (tmp_path / key).is_dir()]
    assert sum(cache.usage().bytes.values()) <= 100_000
    assert keys[0] in kept
    assert keys[-1] in kept
    assert kept[1:] == keys[len(keys) - len(kept) + 1 :]
    assert cache.usage().dropped == {}


def test_no_limit(tmp_path: Path) -> None:
    """0 keeps everything."""
    cache = Cache(tmp_path, limit=0)
    for number in range(20):
        cache.put(key_of("step", {"n": number}), {"data": bytes(100_000)})
    assert cache.usage().entries == {"step": 20}


def test_remains_of_killed_writers_go_after_a_day(tmp_path: Path) -> None:
    """What a killed process left is removed; what one is writing, and the state of a training, stays."""
    old, new, training = (tmp_path / f".{KEY}.{kind}" for kind in ("tmp-aaaaaaaa", "tmp-bbbbbbbb", "checkpoint"))
    for folder in (old, new, training):
        folder.mkdir()
        (folder / "x").write_bytes(b"x")
    for folder in (old, training):
        os.utime(folder, (time.time() - 2 * 86400,) * 2)
    Cache(tmp_path).put(KEY, FILES)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([new.name, training.name, KEY])


# -- many processes ----------------------------------------------------------------------------------------------------

_STEP = """
import random, sys
from pathlib import Path
from edgepack.cache import Cache
from edgepack.pipeline.step_cache import Codec, StepCache
chance = random.Random(int(sys.argv[2]))
codec = Codec(lambda n: {"n": bytes([n]) * 4000, "meta": b"%d" % n}, lambda f: int(f["meta"]))
for turn in range(int(sys.argv[3])):
    steps = StepCache(Cache(Path(sys.argv[1]), limit=60_000))
    n = chance.randrange(30)
    assert steps.memoize("step", {"n": n}, codec, lambda: n) == n
    if chance.random() < 0.02:
        steps.cache.clear()
    steps.cache.usage()
"""


def _damage_something(root: Path, chance: random.Random) -> bool:
    """Damage one entry in one of the known ways; return whether it was there."""
    entries = [p for p in sorted(root.glob("step-*")) if p.is_dir()]
    if not entries:
        return False
    entry = chance.choice(entries)
    try:
        kind = chance.choice(["truncate", "flip", "swap", "index", "remove", "file"])
        if kind == "truncate":
            os.truncate(entry / "n", chance.randrange(4000))
        elif kind == "flip":
            data = bytearray((entry / "n").read_bytes())
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            (entry / "n").write_bytes(data)
        elif kind == "swap":
            other = chance.choice(entries)
            entry.rename(root / ".x.tmp-swapping")
            other.rename(entry)
            (root / ".x.tmp-swapping").rename(other)
        elif kind == "index":
            (entry / "index.json").write_text(chance.choice(["", "[]", "null", "{}", '{"files": 3}']))
        elif kind == "remove":
            (entry / chance.choice(["n", "meta", "index.json"])).unlink()
        else:
            shutil.rmtree(entry)
            entry.write_bytes(b"x")
    except OSError:
        return False
    return True


def test_twenty_builds_share_a_failing_disk(tmp_path: Path) -> None:
    """Twenty processes read, write, clear and shrink one cache while entries are damaged: every result is right."""
    builds = [
        subprocess.Popen(
            [sys.executable, "-c", _STEP, str(tmp_path), str(seed), "40"], stderr=subprocess.PIPE, text=True
        )
        for seed in range(20)
    ]
    chance = random.Random(11)
    damaged = 0
    while any(build.poll() is None for build in builds):
        damaged += _damage_something(tmp_path, chance)
        time.sleep(0.002)
    for build in builds:
        _, errors = build.communicate()
        assert build.returncode == 0, errors
    assert damaged > 20
    cache = Cache(tmp_path, limit=60_000)
    for path in list(tmp_path.glob("step-*")):
        cache.get(path.name)
    assert cache.usage().damaged == 0
    cache.put(key_of("last", {}), {"x": b""})
    assert sum(cache.usage().bytes.values()) <= 60_000 * 1.2
    cache.clear()
    assert list(tmp_path.iterdir()) == []
