"""The cache returns what was stored or nothing, with concurrent writers and after kills."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepack.cache import Cache, default_cache_dir, hash_path, key_of


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    """An entry's files are returned byte for byte; an unknown key is a miss."""
    cache = Cache(tmp_path)
    cache.put("convert-1", {"a.bin": b"\0\1", "b.json": b"{}"})
    assert cache.get("convert-1") == {"a.bin": b"\0\1", "b.json": b"{}"}
    assert cache.get("convert-2") is None


def test_a_damaged_entry_is_a_miss(tmp_path: Path) -> None:
    """Bytes that do not match their hash are never returned."""
    cache = Cache(tmp_path)
    cache.put("k-1", {"a.bin": b"right"})
    (tmp_path / "k-1" / "a.bin").write_bytes(b"wrong")
    assert cache.get("k-1") is None
    cache.put("k-1", {"a.bin": b"right"})
    assert cache.get("k-1") == {"a.bin": b"right"}


def test_disabled_cache_keeps_nothing(tmp_path: Path) -> None:
    """--no-cache neither reads nor writes."""
    cache = Cache(tmp_path / "c", enabled=False)
    cache.put("k-1", {"a": b"1"})
    assert cache.get("k-1") is None
    assert not (tmp_path / "c").exists()


def test_keys_depend_on_every_part() -> None:
    """Another value of a part gives another key; the order of the parts does not matter."""
    assert key_of("convert", {"a": 1, "b": 2}) == key_of("convert", {"b": 2, "a": 1})
    assert len({key_of("convert", {"a": 1}), key_of("convert", {"a": 2}), key_of("measure", {"a": 1})}) == 3


def test_a_folder_hashes_names_and_contents(tmp_path: Path) -> None:
    """Renaming or changing a file of a SavedModel changes its hash."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_bytes(b"1")
    first = hash_path(tmp_path / "m")
    (tmp_path / "m" / "a").rename(tmp_path / "m" / "b")
    second = hash_path(tmp_path / "m")
    (tmp_path / "m" / "b").write_bytes(b"2")
    assert len({first, second, hash_path(tmp_path / "m")}) == 3


def _hammer(root: str, number: int) -> None:
    cache = Cache(Path(root))
    for i in range(60):
        key = f"k-{i % 5}"
        cache.put(key, {"data": bytes([i % 5]) * 50_000})
        files = cache.get(key)
        assert files is None or files == {"data": bytes([i % 5]) * 50_000}
    assert cache.get("k-0") is not None, number


def test_two_processes_share_it(tmp_path: Path) -> None:
    """Concurrent writers and readers of the same keys see complete entries only."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_hammer, args=(str(tmp_path), n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_killed_writer_leaves_no_half_entry(tmp_path: Path) -> None:
    """After SIGKILL at many moments every entry is complete; clear removes the leftovers."""
    code = (
        "import sys; from pathlib import Path; from edgepack.cache import Cache\n"
        "c = Cache(Path(sys.argv[1]))\n"
        "print('go', flush=True)\n"
        "for i in range(100000): c.put(f'k-{i}', {'a': b'x' * 300000, 'b': b'y' * 300000})\n"
    )
    for attempt in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ}
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 + 0.007 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    cache = Cache(tmp_path)
    keys = [folder.name for folder in tmp_path.iterdir() if not folder.name.startswith(".")]
    assert keys
    for key in keys:
        assert cache.get(key) == {"a": b"x" * 300000, "b": b"y" * 300000}
    assert cache.usage().entries == {"k": len(keys)}
    cache.clear()
    assert list(tmp_path.iterdir()) == []


def test_clear_spares_what_is_not_its_own(tmp_path: Path) -> None:
    """With a wrong EDGEPACK_CACHE_DIR, clear does not delete the user's files."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"1")
    Cache(tmp_path).put("k-1", {"a": b"1"})
    Cache(tmp_path).clear()
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """EDGEPACK_CACHE_DIR overrides XDG_CACHE_HOME, which overrides the home folder."""
    monkeypatch.setenv("EDGEPACK_CACHE_DIR", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_cache_dir() == tmp_path / "a"
    monkeypatch.delenv("EDGEPACK_CACHE_DIR")
    assert default_cache_dir() == tmp_path / "b" / "edgepack"
