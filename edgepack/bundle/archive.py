"""The zip format of .aar and .jar files, written so that the same files give the same bytes."""

import io
import zipfile
from collections.abc import Mapping

#: The oldest time that a zip can store: archives of the same files have the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by path, uncompressed; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _TIME)
            # As on Unix, whatever system this is.
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, files[path])
    return buffer.getvalue()


def fold(files: Mapping[str, bytes], folder: str, classes: bytes | None) -> dict[str, bytes]:
    """Return a bundle's files with one folder packed into an archive of the folder's name.

    Args:
        files: Contents by path.
        folder: The folder, without a slash at its end.
        classes: The compiled loader as a .jar, None for an archive without classes.
    """
    content = {path.removeprefix(f"{folder}/"): data for path, data in files.items() if path.startswith(f"{folder}/")}
    if classes is not None:
        content["classes.jar"] = classes
    return {path: data for path, data in files.items() if not path.startswith(f"{folder}/")} | {folder: pack(content)}
