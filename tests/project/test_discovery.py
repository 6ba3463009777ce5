"""The search for the project file: the nearest one above, and none that another user left there."""

import os
from pathlib import Path

import pytest

from edgepack.errors import ProjectError
from edgepack.project.discovery import find_project, require_project


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    """As with cargo and uv, a command works in any folder of a project."""
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    (tmp_path / "edgepack.toml").touch()
    assert find_project(inside).file == tmp_path / "edgepack.toml"
    (inside.parent / "edgepack.toml").touch()
    assert find_project(inside).file == inside.parent / "edgepack.toml"
    (inside / "edgepack.toml").mkdir()
    assert find_project(inside).file == inside.parent / "edgepack.toml"


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What anybody may leave in a shared folder above is not used, unless it is named or the folder is theirs too."""
    mine = tmp_path / "mine"
    mine.mkdir()
    theirs = tmp_path / "edgepack.toml"
    theirs.touch()
    os.chown(theirs, 12345, -1)
    found = find_project(mine)
    assert (found.file, found.skipped[:1]) == (None, (theirs,))
    monkeypatch.chdir(mine)
    with pytest.raises(ProjectError, match="belongs to another user") as caught:
        require_project()
    assert f"--project {theirs}" in caught.value.hint
    assert require_project(theirs) == theirs
    os.chown(mine, 12345, -1)
    assert find_project(mine).file == theirs


def test_no_file_is_an_error_that_names_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a project and without an argument, the error says what to give or to run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match=r"no BUNDLE given, and there is no edgepack\.toml") as caught:
        require_project(what="BUNDLE")
    assert "edgepack init" in caught.value.hint
    with pytest.raises(ProjectError, match="does not exist"):
        require_project(Path("nothing.toml"))
