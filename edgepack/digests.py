"""Digests of bytes, files and folders: of everything that a reader of the same path sees.

A folder's digest follows symbolic links, because the libraries that read models follow them. Nothing but regular files
is ever opened: a named pipe would block, and a device may never end.
"""

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from edgepack.files import open_regular, require_regular
from edgepack.recent import Recent

#: Files that one folder may contain, counted once per name. The largest SavedModels have some hundreds; a symbolic link
#: to the root of the file system has millions.
MAX_FILES = 100_000

#: Identity of a file's content without reading it: device, inode, size, time of the last change.
_Mark = tuple[int, int, int, int]


#: Shorter byte strings are hashed faster than found.
_LARGE = 1 << 16
_recent: Recent[str] = Recent()


def sha256(data: bytes) -> str:
    """Return the hex SHA-256 of `data`."""
    if len(data) < _LARGE:
        return hashlib.sha256(data).hexdigest()
    return _recent.get(data, lambda: hashlib.sha256(data).hexdigest())


def hash_path(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes, or of the names and contents of everything in a folder.

    Raises:
        OSError: A file cannot be read or is not a regular one, or the folder has more than `MAX_FILES` files.
    """
    return Snapshot.take(path).digest


@dataclass(frozen=True)
class Snapshot:
    """What a file or folder contained at one moment.

    Attributes:
        path: The file or folder.
        digest: See `hash_path`.
        size: Bytes of the file, or of all files of the folder.
        marks: Identity of each file and folder, to notice changes without reading everything again.
    """

    path: Path
    digest: str
    size: int
    marks: tuple[_Mark, ...]

    @classmethod
    def take(cls, path: Path) -> "Snapshot":
        """Read everything below a path.

        Raises:
            OSError: See `hash_path`.
        """
        tree = _Tree(path)
        return cls(path, tree.digest(), tree.size, tuple(tree.marks))

    def untouched(self) -> bool:
        """Return whether every file and folder is still the same one with the same times."""
        try:
            return tuple(_Tree(self.path).marks) == self.marks
        except OSError:
            return False

    def unchanged(self) -> bool:
        """Return whether the content is the same, also when files were replaced by equal ones."""
        try:
            return self.untouched() or hash_path(self.path) == self.digest
        except OSError:
            return False


class _Tree:
    """The files below a path. All are found and judged before the first is read.

    Attributes:
        marks: Identity of each file and folder, in the order of their names.
        size: Bytes of all files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marks: list[_Mark] = []
        self.size = 0
        self._count = 0
        #: Entries by folder: (name, kind, path). A folder that is reached twice is read once.
        self._folders: dict[tuple[int, int], list[tuple[bytes, bytes, Path]]] = {}
        self._identities: dict[Path, tuple[int, int]] = {}
        self._digests: dict[tuple[int, int], bytes] = {}
        pending = [root]
        while pending:
            pending += self._visit(pending.pop())

    def digest(self) -> str:
        """Return the digest of the root."""
        if self._identities[self.root] not in self._folders:
            return self._file(self.root).hex()
        # Folders are numbered in the order in which they are first met, so that a loop of links ends at a number.
        numbers: dict[tuple[int, int], int] = {}
        digest = hashlib.sha256()
        pending = [(b"", self.root)]
        while pending:
            prefix, folder = pending.pop()
            identity = self._identities[folder]
            if identity in numbers:
                digest.update(_field(prefix) + b"same as %d;" % numbers[identity])
                continue
            numbers[identity] = len(numbers)
            digest.update(_field(prefix) + b"folder;")
            for name, kind, path in self._folders[identity]:
                if kind == b"folder":
                    pending.append((prefix + b"/" + name, path))
                else:
                    content = self._file(path) if kind == b"file" else b""
                    digest.update(_field(prefix + b"/" + name) + kind + content)
        return digest.hexdigest()

    def _visit(self, path: Path) -> list[Path]:
        """Record a file or folder; return the entries of a folder that is met for the first time."""
        status = require_regular(path, folder=True)
        identity = (status.st_dev, status.st_ino)
        self._identities[path] = identity
        self.marks.append((*identity, status.st_size, status.st_mtime_ns))
        self._count += 1
        if self._count > MAX_FILES:
            raise OSError(errno.E2BIG, f"has more than {MAX_FILES} files, symbolic links followed", str(self.root))
        if not stat.S_ISDIR(status.st_mode):
            self.size += status.st_size
            return []
        if identity in self._folders:
            return []
        found, entries = [], []
        for name in sorted(os.listdir(os.fsencode(path))):  # noqa: PTH208 - names as bytes: any name is valid
            entry = path / os.fsdecode(name)
            try:
                kind = b"folder" if stat.S_ISDIR(entry.stat().st_mode) else b"file"
                found.append(entry)
            except OSError as error:
                if not entry.is_symlink():
                    raise
                # A link to nothing or to itself: no reader gets anything from it.
                kind = b"link, errno %d" % (error.errno or 0)
            entries.append((name, kind, entry))
        self._folders[identity] = entries
        return found[::-1]

    def _file(self, path: Path) -> bytes:
        identity = self._identities[path]
        if identity not in self._digests:
            with open_regular(path) as stream:
                self._digests[identity] = hashlib.file_digest(stream, "sha256").digest()
        return self._digests[identity]


def _field(data: bytes) -> bytes:
    """Return bytes with their length before them, so that no two sequences of fields are equal."""
    return b"%d:" % len(data) + data
