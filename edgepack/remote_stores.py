"""Where a shared cache is: an object store by fsspec, or a shared folder. Objects are created once and never replaced.

A store knows three calls: create an object, read a part of one, list them. Credentials are the business of fsspec's
packages (environment, configuration files, roles); a URL that contains some is refused.
"""

import contextlib
import errno
import os
import re
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from edgepack.errors import UsageError
from edgepack.redaction import redact

#: Seconds in which a store has to accept a connection, for those of fsspec's packages that accept a limit.
CONNECT_SECONDS = 5


@dataclass(frozen=True)
class Scheme:
    """A kind of store.

    Attributes:
        package: The package that implements it, empty for none beside edgepack.
        filesystem: Module and class of its file system.
        extra: The extra of edgepack that installs it.
        example: A URL of this kind.
    """

    package: str
    filesystem: str
    extra: str
    example: str

    @property
    def installed(self) -> bool:
        """Whether the package can be imported, as far as its presence tells."""
        return not self.package or find_spec(self.package) is not None


SCHEMES = {
    "s3": Scheme("s3fs", "s3fs:S3FileSystem", "s3", "s3://BUCKET/FOLDER"),
    # The class of `gcsfs` itself asks a control service for the kind of the bucket first, which needs a further
    # permission and takes a minute where that service cannot be reached.
    "gs": Scheme("gcsfs", "gcsfs.core:GCSFileSystem", "gs", "gs://BUCKET/FOLDER"),
    "az": Scheme("adlfs", "adlfs:AzureBlobFileSystem", "az", "az://CONTAINER/FOLDER"),
    "file": Scheme("", "", "", "file:///FOLDER"),
}


class MissingPackageError(Exception):
    """The package for a scheme is not installed."""


class Store(Protocol):
    """Objects by name."""

    def create(self, name: str, data: bytes) -> bool:
        """Create an object; return False when it exists."""
        ...

    def read(self, name: str, start: int, end: int) -> bytes:
        """Return the bytes of an object from `start` to `end`, fewer where it ends before.

        Raises:
            FileNotFoundError: There is no such object.
        """
        ...

    def sizes(self) -> dict[str, int]:
        """Return the size of every object by name."""
        ...


@dataclass(frozen=True)
class Location:
    """A checked URL.

    Attributes:
        scheme: Key of SCHEMES.
        path: What follows the scheme: `BUCKET/FOLDER`, or an absolute path of a file:// URL.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        """Return the URL, which has no credentials."""
        return f"{self.scheme}://{self.path}"


def parse_url(url: str) -> Location:
    """Return the parts of the URL of a shared cache.

    Raises:
        UsageError: It is of another scheme, contains credentials or a query, or names no bucket or folder.
    """
    shown = redact(url)[:200]
    examples = ", ".join(scheme.example for scheme in SCHEMES.values())
    try:
        parts = urlsplit(url)
        credentials = "@" in parts.netloc or bool(parts.password)
    except ValueError as error:
        raise UsageError(f"the cache URL '{shown}' cannot be read", hint=f"expected one of {examples}") from error
    if parts.scheme not in SCHEMES or not url.startswith(f"{parts.scheme}://"):
        raise UsageError(f"the cache URL '{shown}' has no known scheme", hint=f"expected one of {examples}")
    if credentials or parts.query or parts.fragment:
        raise UsageError(
            f"the cache URL '{shown}' contains credentials or options, which are not accepted there",
            hint="give them as the store's own tools expect them, in environment variables or configuration files",
        )
    path = unquote(parts.path) if parts.scheme == "file" else parts.path
    pieces = [piece for piece in path.split("/") if piece]
    if any(piece in {".", ".."} or re.search(r"[\x00-\x1f\\]", piece) for piece in pieces):
        raise UsageError(f"the cache URL '{shown}' has a path with '.', '..' or control characters")
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not pieces:
            raise UsageError(f"the cache URL '{shown}' names no folder", hint="expected file:///FOLDER")
        return Location("file", f"/{'/'.join(pieces)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,221}", parts.netloc):
        raise UsageError(f"the cache URL '{shown}' names no bucket", hint=f"expected {SCHEMES[parts.scheme].example}")
    return Location(parts.scheme, "/".join([parts.netloc, *pieces]))


def open_store(location: Location, folder: str) -> Store:
    """Return a store; nothing is sent yet.

    Args:
        location: Where the shared cache is.
        folder: Folder below, which keeps entries of different kinds apart.

    Raises:
        MissingPackageError: The package for this scheme is not installed.
        Exception: Whatever that package raises, for example when it finds no credentials.
    """
    if location.scheme == "file":
        return FolderStore(Path(location.path) / folder)
    return ObjectStore(location, folder)


class FolderStore:
    """A folder, for example on NFS. Links are not followed: what is not a regular file of this folder is damaged."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`. The object appears complete: it is linked under its name after it was written and flushed."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.root)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # mkstemp creates files that only their owner can read.
            Path(temporary).chmod(0o444)
            try:
                os.link(temporary, self.root / name)
            except FileExistsError:
                return False
            return True
        finally:
            Path(temporary).unlink(missing_ok=True)

    def read(self, name: str, start: int, end: int) -> bytes:
        """See `Store`.

        Raises:
            OSError: It is a link, a pipe or something else that is no regular file (ELOOP, EINVAL).
        """
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(self.root / name, flags), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            stream.seek(start)
            return stream.read(end - start)

    def sizes(self) -> dict[str, int]:
        """See `Store`."""
        found: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
        return found


class ObjectStore:
    """A bucket, by the fsspec package of its scheme."""

    def __init__(self, location: Location, folder: str) -> None:
        scheme = SCHEMES[location.scheme]
        if not scheme.installed:
            raise MissingPackageError(
                f"{location.scheme}:// needs the package {scheme.package}: pip install 'edgepack[{scheme.extra}]'"
            )
        if location.scheme == "gs":
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        module, _, kind = scheme.filesystem.partition(":")
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if location.scheme == "s3":
            options["config_kwargs"] = {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": 30,
                "retries": {"max_attempts": 1},
            }
        self.files: Any = getattr(import_module(module), kind)(**options)
        self.root = f"{location.path}/{folder}"

    def create(self, name: str, data: bytes) -> bool:
        """See `Store`: the store itself decides between two writers."""
        try:
            self.files.pipe_file(f"{self.root}/{name}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, name: str, start: int, end: int) -> bytes:
        """See `Store`."""
        try:
            content: bytes = self.files.cat_file(f"{self.root}/{name}", start=start, end=end)
        except Exception as error:
            # An answer of status 416, which s3fs and adlfs raise as different errors: the object ends before `start`.
            if getattr(error, "errno", None) == errno.EINVAL or getattr(error, "status_code", None) == 416:
                return b""
            raise
        return content

    def sizes(self) -> dict[str, int]:
        """See `Store`."""
        try:
            listed = self.files.ls(self.root, detail=True)
        except FileNotFoundError:
            return {}
        return {
            str(entry["name"]).rpartition("/")[2]: int(entry.get("size") or 0)
            for entry in listed
            if entry.get("type") == "file"
        }


def platform_folder() -> str:
    """Return the folder of entries that this kind of machine can use: kernels round differently on others."""
    import platform

    return f"edgepack-1/{sys.platform}-{platform.machine().lower() or 'unknown'}"
