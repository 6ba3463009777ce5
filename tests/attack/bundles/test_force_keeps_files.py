"""--force removes what edgepack wrote and nothing else."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepack.bundle import write as writing
from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.write import write
from edgepack.cache import sha256
from edgepack.errors import BundleError

FILES = {"README.md": b"one", "model/m.tflite": b"TFL3", "linux/src/loader.py": b"pass"}


def bundle_files(files: dict[str, bytes]) -> dict[str, bytes]:
    manifest = {"schema": 1, "edgepack": "0.1.0", "files": {path: sha256(data) for path, data in files.items()}}
    return {**files, "manifest.json": to_json_bytes(manifest)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def add_file(bundle: Path) -> str:
    (bundle / "linux/src/mine.py").write_bytes(b"mine")
    return "linux/src/mine.py"


def add_folder(bundle: Path) -> str:
    (bundle / "notes").mkdir()
    (bundle / "notes/thesis.txt").write_bytes(b"mine")
    return "notes/thesis.txt"


def add_hidden(bundle: Path) -> str:
    (bundle / ".git").mkdir()
    (bundle / ".git/HEAD").write_bytes(b"ref")
    return ".git/HEAD"


def add_link(bundle: Path) -> str:
    (bundle / "photos").symlink_to("/nowhere")
    return "photos"


def add_signature(bundle: Path) -> str:
    # The manifest of an unsigned bundle does not know it.
    (bundle / "model.sig").write_bytes(b"{}")
    return "model.sig"


def add_pipe(bundle: Path) -> str:
    os.mkfifo(bundle / "model/pipe")
    return "model/pipe"


@pytest.mark.parametrize("add", [add_file, add_folder, add_hidden, add_link, add_signature, add_pipe])
def test_force_refuses_to_remove_a_file_of_the_user(tmp_path: Path, add: Callable[[Path], str]) -> None:
    """A bundle with a file that edgepack did not write stays as it is, and the error names the file."""
    dest = tmp_path / "bundle"
    write(bundle_files(FILES), dest)
    name = add(dest)
    before = tree(dest)
    with pytest.raises(BundleError, match=f"'{name}'") as caught:
        write(bundle_files({**FILES, "README.md": b"two"}), dest, force=True)
    assert caught.value.exit_code == 7
    assert caught.value.details["unlisted_files"] == [name]
    assert tree(dest) == before and os.path.lexists(dest / name)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_many_files_are_counted(tmp_path: Path) -> None:
    """The text names the first files and the number of others; the details have all."""
    dest = tmp_path / "bundle"
    write(bundle_files(FILES), dest)
    for number in range(30):
        (dest / f"mine_{number:02d}").write_bytes(b"")
    with pytest.raises(BundleError, match="and 20 more") as caught:
        write(bundle_files(FILES), dest, force=True)
    assert len(caught.value.details["unlisted_files"]) == 30


@pytest.mark.parametrize("exchange", [True, False])
def test_a_file_added_during_the_write_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    """A file that appears between the check and the exchange of the folders is not lost."""
    dest = tmp_path / "bundle"
    write(bundle_files(FILES), dest)
    original = writing._exchange
    calls = []

    def late(one: Path, other: Path) -> bool:
        if not calls:
            (dest / "late.txt").write_bytes(b"mine")
        calls.append(one)
        return original(one, other) if exchange else False

    monkeypatch.setattr(writing, "_exchange", late)
    with pytest.raises(BundleError, match=r"late\.txt"):
        write(bundle_files({**FILES, "README.md": b"two"}), dest, force=True)
    assert (dest / "late.txt").read_bytes() == b"mine" and (dest / "README.md").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_is_as_it_was_written_is_replaced(tmp_path: Path) -> None:
    """Changed, missing and empty things of the old bundle are no reason to refuse."""
    dest = tmp_path / "bundle"
    write(bundle_files(FILES), dest)
    (dest / "README.md").write_bytes(b"changed")
    (dest / "model/m.tflite").unlink()
    (dest / "empty").mkdir()
    new = bundle_files({"README.md": b"two"})
    write(new, dest, force=True)
    assert tree(dest) == new


def test_a_folder_that_cannot_be_read_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be listed may contain anything."""
    dest = tmp_path / "bundle"
    write(bundle_files(FILES), dest)
    walk = os.walk

    def refuse(top: Path, onerror: Callable[[OSError], None] | None = None) -> Iterator[object]:
        if onerror is not None:
            onerror(PermissionError(errno.EACCES, "Permission denied"))
        return walk(top)

    with monkeypatch.context() as patch, pytest.raises(BundleError, match="cannot be read completely"):
        patch.setattr(os, "walk", refuse)
        write(bundle_files(FILES), dest, force=True)
