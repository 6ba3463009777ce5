"""Temporary folders of commands and children: removed by their owner, or by the next one when it was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgepack.private_folder import PrivateFolder

OWNER = "from edgepack.private_folder import PrivateFolder as F; f = F(); print(f.path, flush=True); input()"


def _age(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)


def test_the_folder_of_a_killed_owner_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of owners that run stay, however old; so does what another program has named alike as a file or link."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "edgepack-run-link").symlink_to(tmp_path.parent)
    (tmp_path / "edgepack-run-file").touch()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        (folder / "weights").write_bytes(b"1")
        _age(folder)
        PrivateFolder().close()
        assert (folder / "weights").exists()
        owner.kill()
    PrivateFolder().close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edgepack-run-file", "edgepack-run-link"]


def test_a_new_folder_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock a folder is protected by its age."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "edgepack-run-new").mkdir()
    PrivateFolder().close()
    assert [path.name for path in tmp_path.iterdir()] == ["edgepack-run-new"]
