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
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from edgepack import interrupts
from edgepack.bundle.manifest import FILE_NAME, SCHEMA, SIGNATURE_FILE
from edgepack.errors import BundleError

#: A manifest has some kilobytes; a larger file is rejected before it fills the memory.
LARGEST_MANIFEST = 64 << 20
#: Files that an error names; its details have them all.
_SHOWN = 10
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


def is_bundle(path: Path) -> bool:
    """Return whether a folder has a manifest that edgepack wrote."""
    return _manifest(path) is not None


def _manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder that edgepack wrote, None for any other folder."""
    place = path / FILE_NAME
    try:
        if not stat.S_ISREG(place.lstat().st_mode) or place.stat().st_size > LARGEST_MANIFEST:
            return None
        manifest = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    valid = (
        isinstance(manifest, dict)
        and isinstance(manifest.get("schema"), int)
        and 1 <= manifest["schema"] <= SCHEMA
        and isinstance(manifest.get("edgepack"), str)
        and isinstance(manifest.get("files"), dict)
    )
    return manifest if valid else None


def unlisted_files(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Return every file and link of a bundle that its manifest does not list, sorted; empty folders do not count.

    Args:
        path: The bundle's folder.
        manifest: Its manifest; only `files` and `signature` are read.
    """
    listed = {*manifest["files"], FILE_NAME}
    signature = manifest.get("signature")
    if isinstance(signature, Mapping):
        listed.add(SIGNATURE_FILE)
    present = set()

    def fail(error: OSError) -> None:
        raise error

    # A folder that cannot be read may contain anything: it is an error, not an empty folder.
    for folder, folders, files in os.walk(path, onerror=fail):
        for name in [*folders, *files]:
            place = Path(folder) / name
            if name in files or place.is_symlink():
                present.add(place.relative_to(path).as_posix())
    return sorted(present - listed)


def write(files: Mapping[str, bytes], dest: Path, *, force: bool = False, sync: bool = False) -> None:
    """Write a bundle's files as the folder `dest`, completely or not at all.

    Args:
        files: Contents by path relative to the bundle, forward slashes.
        dest: The bundle's folder; missing parents are created. A symbolic link is followed.
        force: Replace an existing bundle; one with the same files only gets new times. Anything else at the destination
            is never replaced.
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
        if not sync and _renewed(files, dest):
            return
        with interrupts.hold(), _workspace(dest) as folder:
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


def _renewed(files: Mapping[str, bytes], dest: Path) -> bool:
    """Return whether the destination holds exactly these files; then they get the time of now.

    Removing the old files of four bundles takes longer than everything else in a build from the cache (0.4 s).
    """
    mode, places = _umask(), [dest / path for path in files]
    try:
        if stat.S_IMODE(dest.stat().st_mode) != 0o777 & ~mode:
            return False
        for place, data in zip(places, files.values(), strict=True):
            status = place.lstat()
            usual = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o666 & ~mode
            if not usual or status.st_size != len(data) or place.read_bytes() != data:
                return False
        for place in [*places, dest]:
            os.utime(place)
    except OSError:
        return False
    return True


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
        with interrupts.hold(), _workspace(dest) as folder:
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
    if not any(dest.iterdir()):
        return
    manifest = _manifest(dest)
    if manifest is None:
        raise BundleError(
            f"the folder '{dest.name}' exists and is not a bundle: expected a manifest.json written by edgepack",
            hint="move it away or pass another -o; --force replaces bundles only",
        )
    if not force:
        raise BundleError(f"the bundle '{dest.name}' exists", hint="pass --force to replace it, or another -o")
    try:
        others = _files_of_others(dest)
    except OSError as error:
        raise BundleError(
            f"the bundle '{dest.name}' cannot be read completely: {error.strerror or error}",
            hint="move it away or pass another -o; nothing was changed",
        ) from error
    _refuse_others(dest.name, others)


def _files_of_others(dest: Path) -> list[str]:
    """Return the files of an existing bundle that its manifest does not list.

    Another writer may exchange the folder between the reading of the manifest and of the files: then both are read
    again, because they belong to different bundles.
    """
    while True:
        before = dest.stat()
        manifest = _manifest(dest)
        others: list[str] = []
        try:
            others = [] if manifest is None else unlisted_files(dest, manifest)
            after = dest.stat()
        except FileNotFoundError:
            if dest.is_dir():
                continue
            return []
        if not others or (before.st_ino, before.st_ctime_ns) == (after.st_ino, after.st_ctime_ns):
            return others


def _refuse_others(name: str, others: Sequence[str]) -> None:
    """Refuse to remove files that edgepack did not write.

    Raises:
        BundleError: With the first of these files by name; `details` has them all.
    """
    if not others:
        return
    shown = ", ".join(f"'{path}'" for path in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    raise BundleError(
        f"the bundle '{name}' contains files that are not in its manifest, which --force would remove: {shown}{more}",
        hint="move them out of the bundle or delete them, then build again; nothing was changed",
        details={"unlisted_files": list(others)},
    )


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
        _require_unchanged(folder, dest, lambda: _exchange(folder, dest))
        return
    aside = Path(tempfile.mkdtemp(prefix=_prefix(dest, "old"), dir=dest.parent))
    dest.rename(aside)
    # Nothing in between: a process that is killed here leaves no bundle at the destination.
    folder.rename(dest)

    def restore() -> None:
        dest.rename(folder)
        aside.rename(dest)

    _require_unchanged(aside, dest, restore)
    # The manifest first: if the process is killed from here on, the remains must not look like a bundle.
    (aside / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree(aside, ignore_errors=True)


def _require_unchanged(old: Path, dest: Path, restore: Callable[[], object]) -> None:
    """Check the moved old bundle once more, and move it back where a file was added since the first check.

    Raises:
        BundleError: A file was added.
    """
    manifest = _manifest(old)
    try:
        others = [] if manifest is None else unlisted_files(old, manifest)
    except OSError:
        # Another writer is removing the folder as a remainder.
        return
    if others:
        restore()
        _refuse_others(dest.name, others)


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
