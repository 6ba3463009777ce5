"""Whoever can write to a shared cache can make builds slower, and nothing else: entries are checked before any use."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.cache import Cache, key_of
from edgepack.cache_entries import DamagedError
from edgepack.cache_packing import HEADER_BYTES, MAGIC, MAX_ENTRY, pack, unpack
from edgepack.pipeline.step_cache import Codec, StepCache
from edgepack.redaction import describe, redact
from edgepack.remote_cache import RemoteCache
from edgepack.remote_stores import platform_folder

KEY, OTHER = key_of("step", {"n": 1}), key_of("step", {"n": 2})
FILES = {"model.tflite": b"right" * 100, "meta.json": b"{}"}
GOOD = pack(KEY, FILES)


def packed(index: object, payload: bytes = b"") -> bytes:
    """An entry with any index, as an attacker writes it."""
    raw = index if isinstance(index, bytes) else json.dumps(index).encode()
    return MAGIC + len(raw).to_bytes(4, "big") + bytes(32) + raw + payload


def described(*files: tuple[str, bytes], key: str = KEY, **more: Any) -> bytes:
    listed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files}
    return packed({"format": 2, "key": key, "files": listed, **more}, b"".join(data for _, data in sorted(files)))


def claiming(size: Any, digest: Any = "0" * 64) -> bytes:
    return packed({"format": 2, "key": KEY, "files": {"data": {"size": size, "sha256": digest}}}, b"x" * 100)


ENTRIES: dict[str, bytes] = {
    "empty": b"",
    "text": b"not an entry",
    "magic only": MAGIC,
    "truncated head": GOOD[: HEADER_BYTES - 1],
    "truncated index": GOOD[: HEADER_BYTES + 20],
    "truncated file": GOOD[:-1],
    "longer": GOOD + b"x",
    "other bytes": GOOD[:-1] + b"?",
    "another key": pack(OTHER, FILES),
    "another format": described(("data", b"x"), format=1),
    "huge index": MAGIC + (1 << 31).to_bytes(4, "big") + bytes(32) + b"{" * 100,
    "deep index": packed(b"[" * 100_000),
    "index not text": packed(b"\xff\xfe"),
    "index a list": packed([]),
    "no files": packed({"format": 2, "key": KEY}),
    "files a list": packed({"format": 2, "key": KEY, "files": ["a"]}),
    "size negative": claiming(-1),
    "size a float": claiming(100.0),
    "size a text": claiming("100"),
    "size true": claiming(True),
    "size huge": claiming(1 << 60),
    "size above the limit": claiming(MAX_ENTRY),
    "size of many digits": packed(
        b'{"format": 2, "key": "%s", "files": {"data": {"size": %s, "sha256": ""}}}' % (KEY.encode(), b"9" * 5000)
    ),
    "digest a number": claiming(100, 1),
    "digest short": claiming(100, "00"),
    "digest of others": claiming(100, "1" * 64),
    "path up": described(("../../../escaped", b"x")),
    "path absolute": described(("/tmp/escaped", b"x")),
    "path of a folder": described(("a/b", b"x")),
    "path with backslash": described(("..\\escaped", b"x")),
    "path empty": described(("", b"x")),
    "path a dot": described((".", b"x")),
    "path two dots": described(("..", b"x")),
    "path hidden": described((".hidden", b"x")),
    "path with zero": described(("a\0b", b"x")),
    "path the index": described(("index.json", b"x")),
    "path a device": described(("a:b", b"x")),
    "path too long": described(("a" * 300, b"x")),
    "two paths of one name": described(("Data", b"x"), ("data", b"x")),
}


def misses(cache: Cache) -> str:
    """Look an entry up twice; return the one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert cache.get(KEY) is None
        assert cache.get(KEY) is None
        # The store itself works: other entries are found.
        assert cache.get(OTHER) == FILES
    assert len(caught) == 1, [str(entry.message) for entry in caught]
    return str(caught[0].message)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """The folder of the entries of a shared folder, with one good entry."""
    folder = tmp_path / "shared" / platform_folder()
    folder.mkdir(parents=True)
    (folder / OTHER).write_bytes(pack(OTHER, FILES))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "local", limit=0, remote=RemoteCache(f"file://{tmp_path}/shared"))


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_entry_is_a_miss(name: str, shared: Path, cache: Cache, tmp_path: Path) -> None:
    """The entry is not used, nothing of it is written anywhere, the warning names it, and the build goes on."""
    (shared / KEY).write_bytes(ENTRIES[name])
    assert KEY in misses(cache)
    assert not (cache.root / KEY).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["local", "shared"]
    # The result that is computed instead is kept here; entries there are never replaced.
    cache.put(KEY, FILES)
    cache.finish()
    assert cache.get(KEY) == FILES
    assert (shared / KEY).read_bytes() == ENTRIES[name]


PLACES: dict[str, Callable[[Path], object]] = {
    "link": lambda p: p.symlink_to(p.parent / "elsewhere"),
    "dead link": lambda p: p.symlink_to("nothing"),
    "link to a device": lambda p: p.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "folder of files": lambda p: (p.mkdir(), (p / "index.json").write_bytes(GOOD)),
}


@pytest.mark.parametrize("name", PLACES)
def test_nothing_but_a_file_is_read_from_a_shared_folder(name: str, shared: Path, cache: Cache) -> None:
    """A link, even to a good entry, a pipe and a folder are not followed, and nothing waits for them."""
    (shared / "elsewhere").write_bytes(GOOD)
    PLACES[name](shared / KEY)
    assert KEY in misses(cache)


@pytest.mark.parametrize("name", ["empty", "truncated file", "longer"])
@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_hostile_object_is_a_miss(name: str, scheme: str, bucket: Callable[[str], str], tmp_path: Path) -> None:
    """The same in real stores, whose answers to requests for parts differ."""
    remote = RemoteCache(bucket(scheme))
    remote.put(OTHER, FILES)
    assert remote.finish() == 0
    store = remote._store
    assert store is not None and store.create(KEY, ENTRIES[name])
    assert KEY in misses(Cache(tmp_path / "local", limit=0, remote=remote))


def test_no_more_is_read_than_the_index_announces() -> None:
    """An object without end is given up after one byte too many; a wrong key after the first block."""
    read: list[int] = []

    def endless(start: int, end: int) -> bytes:
        read.append(end)
        return (GOOD + bytes(max(0, end - len(GOOD))))[start:end]

    with pytest.raises(DamagedError):
        unpack(endless, KEY, block=64)
    assert max(read) == len(GOOD) + 1
    read.clear()
    with pytest.raises(DamagedError):
        unpack(endless, OTHER, block=1000)
    assert read == [1000]


def test_every_truncation_and_every_changed_byte_is_noticed() -> None:
    """Of an entry no prefix, and no copy with one other byte outside the unused HMAC, is accepted."""
    entry = pack(KEY, {"a": b"12", "b": b""})

    def read(data: bytes) -> dict[str, bytes]:
        return unpack(lambda start, end: data[start:end], KEY, block=50)

    assert read(entry) == {"a": b"12", "b": b""}
    for length in range(len(entry)):
        with pytest.raises(DamagedError):
            read(entry[:length])
    unused = range(len(MAGIC) + 4, HEADER_BYTES)
    for place in set(range(len(entry))) - set(unused):
        changed = bytearray(entry)
        changed[place] ^= 0x01
        try:
            files = read(bytes(changed))
        except DamagedError:
            continue
        # A changed name of a file is the only thing without a digest: the decoder of the step misses the file.
        assert set(files) != {"a", "b"}


def test_only_holders_of_the_secret_write_what_is_used(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EDGEPACK_CACHE_SECRET, an entry without its HMAC, or with that of another secret, is a miss."""
    url = f"file://{tmp_path}/shared"
    monkeypatch.setenv("EDGEPACK_CACHE_SECRET", "the secret of this team")
    team = RemoteCache(url)
    team.put(KEY, FILES)
    team.finish()
    assert RemoteCache(url).get(KEY) == FILES
    with pytest.warns(UserWarning, match="EDGEPACK_CACHE_SECRET"):
        assert RemoteCache(url).get(OTHER) is None
    monkeypatch.setenv("EDGEPACK_CACHE_SECRET", "the secret of somebody else")
    with pytest.warns(UserWarning, match="EDGEPACK_CACHE_SECRET") as caught:
        assert RemoteCache(url).get(KEY) is None
    assert "somebody" not in str(caught[0].message)


def test_an_entry_that_no_step_writes_is_computed_again(shared: Path, cache: Cache) -> None:
    """Digests that match a content which the step cannot decode: computed here, with a warning."""
    codec: Codec[int] = Codec(lambda value: {"n": b"%d" % value}, lambda files: int(files["n"]))
    steps = StepCache(cache)
    key = steps.key("step", {"n": 1})
    (shared / key).write_bytes(pack(key, {"n": b"not a number"}))
    with pytest.warns(UserWarning, match="cannot be decoded"):
        assert steps.memoize("step", {"n": 1}, codec, lambda: 7) == 7
    assert StepCache(cache).memoize("step", {"n": 1}, codec, lambda: 8) == 7


def test_keys_of_other_forms_never_reach_the_store(cache: Cache, shared: Path) -> None:
    """A key is the name of an object: what is not of the form of `key_of` stays local."""
    for key in ("../escaped", "a/b", "step-1", ".hidden", "step-" + "g" * 40):
        assert cache.remote is not None
        cache.remote.put(key, FILES)
        assert cache.remote.get(key) is None
    cache.finish()
    assert [path.name for path in shared.iterdir()] == [OTHER]
    shutil.rmtree(shared)


# -- credentials -------------------------------------------------------------------------------------------------------

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host/path", f"oci://{SECRET}@host/x", f"cannot read s3://a:{SECRET}@b/c: denied",
        f"https://account.blob.example/c?sv=1&sig={SECRET}&se=2", f"https://host/a?X-Amz-Signature={SECRET}",
        f"Authorization: Bearer {SECRET}", f"authorization='Basic {SECRET}'", f"password={SECRET}",
        f'"token": "{SECRET}"',
        f"AccountKey={SECRET};EndpointSuffix=x", f"aws_secret_access_key = {SECRET}", f"the key {SECRET} is wrong",
    ],
)  # fmt: skip
def test_no_message_repeats_a_credential(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs, headers, named values, and values of variables that are credentials, appear as ***."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET if text.startswith("the key") else "another-secret")
    assert SECRET not in redact(text)
    assert SECRET not in describe(ValueError(f"{text}\nmore {SECRET}"))
    assert "***" in redact(text)
