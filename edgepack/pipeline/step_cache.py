"""Results of steps, memoized by the digest of everything that they depend on."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edgepack._version import __version__, installed_version
from edgepack.cache import Cache, key_of
from edgepack.cache_claims import Claim
from edgepack.digests import Snapshot, hash_path, sha256
from edgepack.errors import ModelFileError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

#: Packages whose version changes results.
_COMPONENTS = (
    "tensorflow",
    "keras",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "flatbuffers",
    "h5py",
    "ml-dtypes",
    "numpy",
    "pillow",
    "scipy",
)
#: Bytes of entries that are kept in memory after they were read.
_RECENT_BYTES = 64 << 20
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a result becomes the files of a cache entry, and back.

    Attributes:
        encode: Returns the files by name.
        decode: Returns the result of such files.
    """

    encode: Callable[[T], Mapping[str, bytes]]
    decode: Callable[[Mapping[str, bytes]], T]


class StepCache:
    """Memoizes steps on disk; without a disk cache, in memory for the lifetime of this object.

    Args:
        cache: Where entries are stored between runs.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._memory: dict[str, Mapping[str, bytes]] = {}
        self._recent: OrderedDict[str, Mapping[str, bytes]] = OrderedDict()
        self._background = False
        self._writer: ThreadPoolExecutor | None = None
        self._writing: dict[str, Future[None]] = {}

    def memoize(
        self, step: str, inputs: Mapping[str, Any], codec: Codec[T], compute: Callable[[], T], *, store: bool = True
    ) -> T:
        """Return the result of a step, computed unless it is in the cache.

        A computed result passes through the codec as well, so that both paths return equal values.

        Args:
            step: Name of the step; the prefix of its cache key.
            inputs: Everything that the result depends on beside edgepack's code and the packages' versions: bytes,
                snapshots of files that `compute` reads, sample sets, dataclasses and JSON values.
            codec: How the result is stored.
            compute: Computes the result.
            store: False when the result depends on something that no key can name, such as the code that a model
                imports: it is kept only in memory, for this session.

        Raises:
            ModelFileError: A file of `inputs` changed while `compute` read it.
        """
        key = self.key(step, inputs)
        found = self._find(key, codec, store)
        if found is not None:
            return found[0]
        claim = Claim(self.cache.root, key) if store and self.cache.enabled else None
        try:
            # Another process may have computed it while this one waited for the claim.
            if claim is not None and claim.acquire() and (found := self._find(key, codec, store)) is not None:
                return found[0]
            files = codec.encode(compute())
            snapshots = [value for value in inputs.values() if isinstance(value, Snapshot)]
            touched = [snapshot for snapshot in snapshots if not _untouched_or_raise(snapshot)]
            if store and not touched:
                self._write(key, files, claim)
                claim = None
        finally:
            if claim is not None:
                claim.release()
        if not (store and self.cache.enabled):
            self._memory[key] = files
        return codec.decode(files)

    def _find(self, key: str, codec: Codec[T], store: bool) -> tuple[T] | None:
        """Return a result that was computed before, in a tuple because it may be None."""
        files = self._memory.get(key) or (self._read(key) if store else None)
        if files is None:
            return None
        try:
            return (codec.decode(files),)
        except Exception:
            # An entry of the right hashes with a content that no step writes.
            self._memory.pop(key, None)
            self._recent.pop(key, None)
            self.cache.drop(key, "cannot be decoded")
            return None

    def knows(self, step: str, inputs: Mapping[str, Any]) -> bool:
        """Return whether there is an entry for a step, as far as its name tells; it may turn out to be damaged."""
        key = self.key(step, inputs)
        return key in self._memory or key in self._recent or (self.cache.enabled and (self.cache.root / key).exists())

    def _read(self, key: str) -> Mapping[str, bytes] | None:
        """Return an entry, read from the disk once for all targets of a build."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        if (writing := self._writing.pop(key, None)) is not None:
            writing.result()
        files = self.cache.get(key)
        if files is not None:
            self._remember(key, files)
        return files

    def _remember(self, key: str, files: Mapping[str, bytes]) -> None:
        if sum(map(len, files.values())) > _RECENT_BYTES:
            return
        self._recent[key] = files
        while sum(len(data) for entry in self._recent.values() for data in entry.values()) > _RECENT_BYTES:
            self._recent.popitem(last=False)

    def write_in_background(self) -> None:
        """Let a thread write entries from here on: flushing one to the disk takes 20 ms, a build writes thirty."""
        self._background = self.cache.enabled

    def finish_writing(self) -> None:
        """Wait until every entry is written, and write further ones at once."""
        self._background = False
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.shutdown()
        for writing in self._writing.values():
            writing.result()
        self._writing.clear()

    def _write(self, key: str, files: Mapping[str, bytes], claim: Claim | None) -> None:
        def put() -> None:
            try:
                self.cache.put(key, files)
            finally:
                if claim is not None:
                    claim.release()

        if not self._background:
            put()
            return
        from concurrent.futures import ThreadPoolExecutor

        self._writer = self._writer or ThreadPoolExecutor(1)
        self._writing[key] = self._writer.submit(put)
        self._remember(key, files)

    def key(self, step: str, inputs: Mapping[str, Any]) -> str:
        """Return the cache key of a step with these inputs."""
        digests = {name: _digest_form(value) for name, value in inputs.items()}
        return key_of(step, {**digests, "versions": component_versions()})


@cache
def component_versions() -> Mapping[str, str]:
    """Return the versions that results depend on: edgepack with a digest of its code, and the packages it calls."""
    packages = {name: installed_version(name) for name in _COMPONENTS}
    return {"edgepack": __version__, "code": code_digest(_PACKAGE), **packages}


def code_digest(package: Path) -> str:
    """Return a digest of the name and content of every .py file in a folder, at any depth.

    Every module counts, so that no change of the code can meet a result that the old code computed.
    """
    files = sorted(package.rglob("*.py"))
    named = (
        file.relative_to(package).as_posix().encode() + b"\0" + sha256(file.read_bytes()).encode() for file in files
    )
    return sha256(b"\n".join(named))[:16]


def to_json_bytes(document: Any) -> bytes:
    """Return a JSON document with sorted keys."""
    return json.dumps(document, sort_keys=True).encode()


def _untouched_or_raise(snapshot: Snapshot) -> bool:
    """Return False for a file that was replaced by an equal one: in between it may have been another.

    Raises:
        ModelFileError: Its content changed.
    """
    if snapshot.untouched():
        return True
    if not snapshot.unchanged():
        raise ModelFileError(
            f"'{snapshot.path}' changed while it was read", hint="run the command again when nothing writes to it"
        )
    return False


def _digest_form(value: Any) -> Any:
    """Return a JSON value that stands for an input of a step in its key."""
    if isinstance(value, bytes):
        return sha256(value)
    if isinstance(value, Path):
        return hash_path(value) if value.exists() else ""
    if isinstance(digest := getattr(value, "digest", None), str):
        return digest
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _digest_form(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _digest_form(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_digest_form(entry) for entry in value]
    return value
