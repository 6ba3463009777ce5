"""One entry of the cache as one byte string, the form in which a shared cache stores it.

    MAGIC, length of the index (4 bytes, big-endian), HMAC of the index (32 bytes), index (JSON), contents of the files

The index is the one of an entry on disk: format, key, and size and SHA-256 of each file; the files follow in the order
of their names. One object for each entry is created in one step, so that no reader meets half of one. Whoever can write
to a shared cache may have written anything: every field is checked before it is used, and no name in an index is ever
used as a path outside the entry's own folder.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgepack.cache_entries import FORMAT, INDEX, MAX_INDEX, DamagedError
from edgepack.digests import sha256

MAGIC = b"edgepack-entry-1\n"
_MAC_BYTES = 32
#: Bytes before the index.
HEADER_BYTES = len(MAGIC) + 4 + _MAC_BYTES
#: Bytes of one entry. The largest ones hold a trained network twice; a .tflite has at most 2 GiB.
MAX_ENTRY = 4 << 30
#: Names of files that an entry may have: no separators, no hidden files, nothing that a file system reads differently.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Index:
    """What the head of a packed entry says, checked.

    Attributes:
        start: Bytes before the contents.
        files: Size and SHA-256 of each file by name, in the order of the contents.
    """

    start: int
    files: dict[str, tuple[int, str]]

    @property
    def total(self) -> int:
        """Bytes of the whole entry."""
        return self.start + sum(size for size, _ in self.files.values())


def valid_names(names: Mapping[str, object]) -> bool:
    """Return whether an entry with files of these names can be shared."""
    folded = {name.casefold() for name in names}
    return len(folded) == len(names) and all(_NAME.fullmatch(name) and name != INDEX for name in names)


def pack(key: str, files: Mapping[str, bytes], secret: bytes = b"") -> bytes:
    """Return an entry as bytes; the same entry gives the same bytes.

    Args:
        key: Key of the entry.
        files: Its files by name.
        secret: Key of the HMAC; without one, the HMAC is zeros.
    """
    described = {name: {"size": len(files[name]), "sha256": sha256(files[name])} for name in sorted(files)}
    index = json.dumps({"format": FORMAT, "key": key, "files": described}, sort_keys=True).encode()
    head = MAGIC + len(index).to_bytes(4, "big") + _mac(index, secret) + index
    return b"".join([head, *(files[name] for name in sorted(files))])


def read_head(data: bytes, key: str, secret: bytes = b"") -> Index:
    """Return the checked index of a packed entry.

    Args:
        data: Its first bytes; HEADER_BYTES + MAX_INDEX always suffice.
        key: The key that it must have.
        secret: Key of the HMAC that it must have; without one, any HMAC is accepted.

    Raises:
        DamagedError: It is not an entry of this key.
    """
    if not data.startswith(MAGIC) or len(data) < HEADER_BYTES:
        raise DamagedError("is not an entry of this version")
    length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")
    if length > MAX_INDEX:
        raise DamagedError("has an index of the wrong size")
    raw = data[HEADER_BYTES : HEADER_BYTES + length]
    if len(raw) < length:
        raise DamagedError("is truncated")
    if secret and not hmac.compare_digest(data[len(MAGIC) + 4 : HEADER_BYTES], _mac(raw, secret)):
        raise DamagedError("is not signed with the key of EDGEPACK_CACHE_SECRET")
    try:
        index = json.loads(raw)
        if index["format"] != FORMAT or index["key"] != key:
            raise DamagedError("belongs to another key or format")
        files = {str(name): (entry["size"], entry["sha256"]) for name, entry in index["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError("has a damaged index") from error
    for size, digest in files.values():
        if type(size) is not int or size < 0 or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise DamagedError("has a damaged index")
    if not valid_names(files):
        raise DamagedError("has a file of an invalid name")
    found = Index(HEADER_BYTES + length, {name: files[name] for name in sorted(files)})
    if found.total > MAX_ENTRY:
        raise DamagedError(f"is larger than {MAX_ENTRY} bytes")
    return found


def unpack(read: Callable[[int, int], bytes], key: str, secret: bytes = b"", *, block: int) -> dict[str, bytes]:
    """Return the files of a packed entry, read block by block; no more is read than its checked index announces.

    Args:
        read: Returns the bytes from a position to another, fewer where the entry ends before.
        key: The key that the entry must have.
        secret: Key of the HMAC that it must have, empty for none.
        block: Bytes of one call of `read`.

    Raises:
        DamagedError: It is not an entry of this key, or a file has another size or content than the index says.
    """
    data = bytearray()

    def more(end: int) -> bool:
        """Read on to a position; return False where the entry ends before it."""
        wanted = end - len(data)
        data.extend(read(len(data), end)[:wanted])
        return len(data) == end

    goes_on = more(block)
    while goes_on and _wants_more(data):
        goes_on = more(len(data) + block)
    index = read_head(bytes(data[: HEADER_BYTES + MAX_INDEX]), key, secret)
    # One byte more than announced is tried: a longer object is damaged as well.
    while goes_on and len(data) <= index.total:
        goes_on = more(min(len(data) + block, index.total + 1))
    if len(data) != index.total:
        raise DamagedError("is truncated" if len(data) < index.total else "is longer than its index says")
    files, start, view = {}, index.start, memoryview(data)
    for name, (size, digest) in index.files.items():
        content = bytes(view[start : start + size])
        start += size
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedError("has a file with another content")
        files[name] = content
    return files


def _wants_more(data: bytearray) -> bool:
    """Return whether the index ends after these bytes; False for what is no entry."""
    length = int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")
    return data.startswith(MAGIC) and length <= MAX_INDEX and len(data) < HEADER_BYTES + length


def _mac(index: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, index, "sha256") if secret else bytes(_MAC_BYTES)
