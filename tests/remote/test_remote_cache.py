"""Machines share results byte for byte; whatever goes wrong with the store is a miss and one warning."""

import os
import re
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgepack.cache import Cache, key_of, open_cache
from edgepack.cache_packing import pack
from edgepack.cli.main import run
from edgepack.errors import UsageError
from edgepack.pipeline.step_cache import Codec, StepCache
from edgepack.remote_cache import RemoteCache, shared_cache_url
from edgepack.remote_stores import parse_url

REPOSITORY = Path(__file__).resolve().parents[2]
KEY = key_of("step", {"n": 1})
FILES = {"model.tflite": bytes(range(256)) * 300, "meta.json": b"{}", "empty": b""}
SCHEMES = ("file", "s3", "gs", "az")


def machine(folder: Path, url: str) -> Cache:
    return Cache(folder, limit=0, remote=RemoteCache(url))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_one_machine_stores_another_gets(scheme: str, bucket: Callable[[str], str], tmp_path: Path) -> None:
    """An entry arrives byte for byte, is kept locally from then on, and a second writer changes nothing."""
    url = bucket(scheme)
    first, second = machine(tmp_path / "a", url), machine(tmp_path / "b", url)
    assert second.get(KEY) is None
    first.put(KEY, FILES)
    assert first.finish() == 0
    assert second.get(KEY) == FILES
    assert Cache(tmp_path / "b", limit=0).get(KEY) == FILES
    assert second.remote is not None
    usage = second.remote.usage()
    assert (usage.problem, usage.entries) == ("", {"step": 1})
    second.put(KEY, {"other": b"content"})
    assert second.finish() == 0
    # The emulator of Google Cloud Storage ignores the precondition that its original checks.
    if scheme != "gs":
        assert second.remote.stored == 0
        assert machine(tmp_path / "c", url).get(KEY) == FILES


@pytest.mark.parametrize("scheme", ("file", "s3", "az"))
def test_two_writers_race(scheme: str, bucket: Callable[[str], str], tmp_path: Path) -> None:
    """Of eight writers at one moment exactly one creates the entry, and it is complete."""
    url = bucket(scheme)
    caches = [RemoteCache(url) for _ in range(8)]
    barrier = threading.Barrier(len(caches))

    def write(cache: RemoteCache, number: int) -> None:
        barrier.wait()
        cache.put(KEY, {"data": bytes([number]) * 100_000})
        assert cache.finish() == 0

    threads = [threading.Thread(target=write, args=(cache, n)) for n, cache in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [cache.stored for cache in caches].count(1) == 1
    winner = next(number for number, cache in enumerate(caches) if cache.stored)
    assert RemoteCache(url).get(KEY) == {"data": bytes([winner]) * 100_000}


def test_large_entries_travel_in_pieces(bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of several requests arrives whole, also one that ends where a request ends."""
    monkeypatch.setattr("edgepack.remote_cache._BLOCK", 1000)
    key, head = key_of("step", {"n": 2}), len(pack(key_of("step", {"n": 2}), {"data": bytes(1000)})) - 1000
    cache = RemoteCache(bucket("s3"))
    files = {"data": os.urandom(3000 - head)}
    assert len(pack(key, files)) == 3000
    cache.put(key, files)
    assert cache.finish() == 0
    assert cache.get(key) == files


def test_a_step_is_computed_on_one_machine_only(bucket: Callable[[str], str], tmp_path: Path) -> None:
    """The second machine takes every step from the bucket; --no-cache asks neither cache."""
    url, calls = bucket("s3"), []
    codec: Codec[bytes] = Codec(lambda data: {"data": data}, lambda files: files["data"])

    def compute() -> bytes:
        calls.append(1)
        return b"result"

    for name in ("a", "b"):
        steps = StepCache(machine(tmp_path / name, url))
        steps.write_in_background()
        assert steps.memoize("step", {"n": 1}, codec, compute) == b"result"
        steps.finish_writing()
        assert steps.cache.finish() == 0
    assert len(calls) == 1
    assert open_cache(enabled=False, url=url).remote is None


def test_what_was_there_before_is_shared_once(
    bucket: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that is older than the shared cache is stored when it is used, and never offered again."""
    url = bucket("s3")
    Cache(tmp_path / "a", limit=0).put(KEY, FILES)
    first = machine(tmp_path / "a", url)
    assert first.get(KEY) == first.get(KEY) == FILES
    assert first.finish() == 0
    assert first.remote is not None and first.remote.stored == 1
    second = machine(tmp_path / "b", url)
    assert second.get(KEY) == FILES
    # Whoever stored or fetched an entry finds it locally from then on, without any request.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for name in ("a", "b"):
        cache = machine(tmp_path / name, url)
        assert cache.get(KEY) == FILES
        assert cache.finish() == 0
    assert Cache(tmp_path / "a", limit=0).clear() == 1
    assert list((tmp_path / "a").iterdir()) == []


# -- failures ----------------------------------------------------------------------------------------------------------


def lookups(cache: Cache, count: int = 3) -> list[str]:
    """Look up, store and finish; return the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [cache.get(key_of("step", {"n": n})) for n in range(count)] == [None] * count
        cache.put(KEY, FILES)
        cache.finish()
    assert Cache(cache.root, limit=0).get(KEY) == FILES
    return [str(entry.message) for entry in caught]


@pytest.mark.parametrize("scheme", ("s3", "gs", "az"))
def test_a_bucket_that_does_not_exist_is_one_warning(
    scheme: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Lookups miss, the result is stored locally, and one line names the bucket."""
    url = request.getfixturevalue(scheme).replace("team-cache", "no-such-bucket")
    messages = lookups(machine(tmp_path, url))
    assert len(messages) == 1 and "no-such-bucket" in messages[0]


@pytest.fixture
def answers() -> Iterator[Callable[[int | None], str]]:
    """Start servers that answer every request with one status, or never; return their addresses.

    A stand-in for what moto's server does not do: deny access, fail, hang.
    """
    servers: list[ThreadingHTTPServer] = []
    ends = threading.Event()

    def start(status: int | None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.count += 1  # type: ignore[attr-defined]
                if status is None:
                    ends.wait(30)
                    return
                text = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_PUT = do_HEAD = do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.count = 0  # type: ignore[attr-defined]
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    ends.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ("closed", "denied", "hanging", "name"))
def test_a_store_that_fails_is_one_warning(
    kind: str, s3: str, answers: Callable[[int | None], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection, no permission, no answer, no such host: misses, one warning, and a bounded time."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = {
            "closed": lambda: f"http://127.0.0.1:{closed.getsockname()[1]}",
            "denied": lambda: answers(403),
            "hanging": lambda: answers(None),
            "name": lambda: "http://store.invalid",
        }[kind]()
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        # `denied` has to arrive as an answer also on a busy machine.
        monkeypatch.setenv("EDGEPACK_CACHE_TIMEOUT", "20" if kind == "denied" else "4")
        messages = lookups(machine(tmp_path, s3))
    assert len(messages) == 1, messages
    assert "s3://team-cache" in messages[0]
    assert "example-secret" not in messages[0]


def test_who_may_only_read_still_reads(
    bucket: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EDGEPACK_CACHE_READ_ONLY nothing is stored, and there is no warning."""
    url = bucket("file")
    writer = machine(tmp_path / "a", url)
    writer.put(KEY, FILES)
    writer.finish()
    monkeypatch.setenv("EDGEPACK_CACHE_READ_ONLY", "1")
    reader = machine(tmp_path / "b", url)
    assert reader.get(KEY) == FILES
    reader.put(key_of("step", {"n": 2}), FILES)
    assert reader.finish() == 0
    assert reader.remote is not None
    assert reader.remote.usage().entries == {"step": 1}


def test_a_missing_package_is_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the warning says what to install; the core works."""
    monkeypatch.setattr("edgepack.remote_stores.find_spec", lambda name: None)
    messages = lookups(machine(tmp_path, "s3://bucket"))
    assert len(messages) == 1 and "pip install 'edgepack[s3]'" in messages[0]


# -- what a person writes and sees -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://store.example/x", "bucket", "s3:bucket", "s3://", "s3://b", "file://host/folder", "file://", "memory://a",
        "s3://user:passw0rd-1@bucket/x", "s3://token-passw0rd-1@bucket", "s3://bucket/x?sig=passw0rd-1", "s3://bucket/../x",
        "az://bucket/\x00", "s3://[bucket", "S3://bucket", "gs://bucket/a\\b", "s3://bucket#x", "file:///", "file:///a/../b",
    ],
)  # fmt: skip
def test_a_url_that_is_not_one_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong scheme, credentials and paths that leave are refused with exit code 2; no credential is repeated."""
    with pytest.raises(UsageError):
        parse_url(url)
    assert run(["cache", "show", "--cache", url]) == 2
    assert "passw0rd" not in "".join(capsys.readouterr())


def test_the_option_wins_over_the_environment_and_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--cache` before EDGEPACK_CACHE_URL before the project file; `off` switches the shared cache off."""
    assert shared_cache_url("", "") == ""
    assert shared_cache_url("", "s3://project") == "s3://project"
    monkeypatch.setenv("EDGEPACK_CACHE_URL", "s3://variable")
    assert shared_cache_url("", "s3://project") == "s3://variable"
    assert shared_cache_url("s3://option", "s3://project") == "s3://option"
    assert shared_cache_url("off", "s3://project") == ""
    assert open_cache(url="off").remote is None
    monkeypatch.setenv("EDGEPACK_CACHE_URL", "nonsense")
    with pytest.raises(UsageError):
        open_cache()


@pytest.mark.parametrize(("name", "value"), [("TIMEOUT", "soon"), ("TIMEOUT", "0"), ("SECRET", "short")])
def test_variables_are_checked(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that cannot be used ends the command before any work."""
    monkeypatch.setenv(f"EDGEPACK_CACHE_{name}", value)
    with pytest.raises(UsageError, match=f"EDGEPACK_CACHE_{name}"):
        open_cache(url="file:///folder")


def test_show_has_the_state_of_the_shared_cache(
    bucket: Callable[[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cache show` counts the entries there, or says why it cannot; `doctor` knows the schemes."""
    url = bucket("s3")
    cache = machine(tmp_path / "a", url)
    cache.put(KEY, FILES)
    cache.finish()
    assert run(["cache", "show", "--cache", url]) == 0
    shown = capsys.readouterr().out
    assert url in shown and re.search(r"step +1 ", shown)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert run(["cache", "show", "--cache", url]) == 0
    assert "cannot be used" in capsys.readouterr().out


def test_nothing_of_fsspec_is_imported_before_it_is_needed() -> None:
    """A command without a shared cache does not import fsspec, and one with a folder needs none of it."""
    code = (
        "import sys; from edgepack.cli.main import run; run(['cache', 'show', *sys.argv[1:]]); "
        "sys.exit(any(name in sys.modules for name in ('fsspec', 's3fs', 'aiohttp', 'requests', 'oras')))"
    )
    for more in ([], ["--cache", "file:///tmp/no-such-folder"]):
        done = subprocess.run([sys.executable, "-c", code, *more], cwd=REPOSITORY, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
