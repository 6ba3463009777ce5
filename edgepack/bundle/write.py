"""Write a bundle atomically: at any moment the destination is the old bundle or the new one, never a mixture.

The files are written to a sibling folder, which is then renamed to the destination. Linux's
renameat2(RENAME_EXCHANGE) exchanges it with an existing bundle in one system call, so that the destination always
exists. Where a file system does not support that, the old bundle is moved aside first; if the process is killed between
the two renames, the next write moves the old bundle back. The next write also removes siblings of killed writers: a
running writer holds a lock on its own.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edgepack.bundle.manifest import FILE_NAME, SCHEMA
from edgepack.errors import BundleError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


def is_bundle(path: Path) -> bool:
    """Return whether a folder has a manifest that edgepack wrote."""
    try:
        manifest = json.loads((path / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return (
        isinstance(manifest, dict)
        and isinstance(manifest.get("schema"), int)
        and 1 <= manifest["schema"] <= SCHEMA
        and isinstance(manifest.get("edgepack"), str)
        and isinstance(manifest.get("files"), dict)
    )


def write(files: Mapping[str, bytes], dest: Path, *, force: bool = False, sync: bool = False) -> None:
    """Write a bundle's files as the folder `dest`, completely or not at all.

    Args:
        files: Contents by path relative to the bundle, forward slashes.
        dest: The bundle's folder; missing parents are created. A symbolic link is followed.
        force: Replace an existing bundle. Anything else at the destination is never replaced.
        sync: Flush the files to the disk before the rename, as protection against a loss of power.

    Raises:
        BundleError: The destination exists and may not be replaced, a path leaves the bundle, or writing fails.
    """
    paths = {path: _relative(path) for path in files}
    try:
        # The link's target is replaced: a rename of the link itself would turn it into a folder.
        dest = Path(os.path.realpath(dest))
        dest.parent.mkdir(parents=True, exist_ok=True)
        _recover(dest)
        require_replaceable(dest, force)
        with _workspace(dest) as folder:
            for path, data in files.items():
                _write_file(folder / paths[path], data, sync)
            if sync:
                _sync_folders(folder)
            _move(folder, dest, force)
            if sync:
                _sync_folder(dest.parent)
    except OSError as error:
        raise BundleError(
            f"cannot write the bundle '{dest.name}': {error.strerror or error}",
            hint=_advice(error, dest),
        ) from error


def replace_manifest(dest: Path, data: bytes) -> None:
    """Replace a bundle's manifest atomically; no other file changes. The bundle never contains a temporary file.

    Args:
        dest: The bundle's folder. A symbolic link is followed.
        data: The new manifest.

    Raises:
        BundleError: Writing fails; the old manifest stays.
    """
    dest = Path(os.path.realpath(dest))
    try:
        with _workspace(dest) as folder:
            _write_file(folder / FILE_NAME, data, sync=False)
            (folder / FILE_NAME).replace(dest / FILE_NAME)
    except OSError as error:
        raise BundleError(
            f"cannot write the manifest of '{dest.name}': {error.strerror or error}", hint=_advice(error, dest)
        ) from error


def _relative(path: str) -> PurePosixPath:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or ":" in path:
        raise BundleError(f"'{path}' is not a path inside a bundle", hint="correct the template that names this file")
    return pure


def require_replaceable(dest: Path, force: bool) -> None:
    """Refuse a destination that a bundle may not be written to.

    Raises:
        BundleError: A bundle exists there and `force` is not set, or something else does.
    """
    if not os.path.lexists(dest):
        return
    if not dest.is_dir():
        raise BundleError(
            f"'{dest.name}' exists and is a file: expected nothing or a bundle", hint="move it away or pass another -o"
        )
    # An empty folder has no contents to lose.
    if any(dest.iterdir()) and not is_bundle(dest):
        raise BundleError(
            f"the folder '{dest.name}' exists and is not a bundle: expected a manifest.json written by edgepack",
            hint="move it away or pass another -o; --force replaces bundles only",
        )
    if any(dest.iterdir()) and not force:
        raise BundleError(f"the bundle '{dest.name}' exists", hint="pass --force to replace it, or another -o")


def _advice(error: OSError, dest: Path) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free some space, or pass a folder on another disk with -o; nothing was changed"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "pass a writable folder with -o; nothing was changed"
    if error.errno in {errno.ENOTDIR, errno.ENAMETOOLONG}:
        return "pass another folder with -o or another name with --name; nothing was changed"
    return "nothing was changed at the destination; remove the cause and build again"


# -- siblings ----------------------------------------------------------------------------------------------------------


def _prefix(dest: Path, kind: str) -> str:
    # The hash distinguishes bundles with the same first letters; the name must be short enough for any file system.
    digest = hashlib.sha256(dest.name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f".{dest.name.encode('ascii', 'ignore').decode()[:60]}.{digest}.{kind}-"


def _siblings(dest: Path, kind: str) -> list[Path]:
    prefix = _prefix(dest, kind)
    return sorted(path for path in dest.parent.iterdir() if path.name.startswith(prefix))


def _lock(folder: Path) -> int | None:
    """Return a descriptor with the folder's lock; None when another writer holds it or the folder is gone."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows has no such lock; remains stay until the user removes them
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _recover(dest: Path) -> None:
    """Clean up after a killed writer: move an old bundle back that was moved aside, remove incomplete siblings."""
    for aside in _siblings(dest, "old"):
        if not os.path.lexists(dest) and is_bundle(aside):
            aside.rename(dest)
        else:
            shutil.rmtree(aside, ignore_errors=True)
    for left in _siblings(dest, "new"):
        descriptor = _lock(left)
        if descriptor is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)


@contextlib.contextmanager
def _workspace(dest: Path) -> Iterator[Path]:
    """Yield a new locked sibling of `dest`; at the end, remove whatever has its name."""
    prefix = _prefix(dest, "new")
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=dest.parent))
        descriptor = _lock(folder)
        # Another writer's clean-up may have removed the folder before it was locked.
        if descriptor is not None or sys.platform == "win32":
            break
    try:
        yield folder
    finally:
        if descriptor is not None:
            os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)


# -- files -------------------------------------------------------------------------------------------------------------


def _write_file(place: Path, data: bytes, sync: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as stream:
        stream.write(data)
        if sync:
            stream.flush()
            os.fsync(stream.fileno())


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        _sync_folder(Path(folder))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- the rename --------------------------------------------------------------------------------------------------------


def _move(folder: Path, dest: Path, force: bool) -> None:
    # mkdtemp creates folders that only their owner can read; a bundle is meant for others.
    folder.chmod(0o777 & ~_umask())
    try:
        folder.rename(dest)
        return
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
    # Checked again: another process may have written something there in the meantime.
    require_replaceable(dest, force)
    if _exchange(folder, dest):
        return
    aside = Path(tempfile.mkdtemp(prefix=_prefix(dest, "old"), dir=dest.parent))
    dest.rename(aside)
    folder.rename(dest)
    # The manifest first: if the process is killed from here on, the remains must not look like a bundle.
    (aside / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one system call; return False where the system does not support it."""
    if sys.platform != "linux":
        return False
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if function(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code))
