"""Two distributions share one package: which one is installed, what a mixture does, and what each command needs."""

from pathlib import Path

import pytest

from edgepack import distribution
from edgepack.distribution import (
    FULL,
    LIGHT,
    installed_distributions,
    is_light,
    require_one_version,
    require_packages,
)
from edgepack.errors import ToolMissingError, UsageError


def site(folder: Path, *names: str) -> Path:
    """A folder of packages with the metadata folders of some."""
    for name in names:
        (folder / f"{name}.dist-info").mkdir()
    return folder


def test_distributions_are_read_from_the_folder(tmp_path: Path) -> None:
    """Only the two are found: a plugin whose name starts with edgepack is neither."""
    folder = site(tmp_path, "edgepack_check-0.1.0", "edgepack_ethos_u-0.2.0", "numpy-2.0.0")
    assert installed_distributions(folder) == {LIGHT: "0.1.0"}
    assert is_light(folder)
    assert not is_light(site(folder, "edgepack-0.1.0"))
    assert installed_distributions(folder) == {FULL: "0.1.0", LIGHT: "0.1.0"}


def test_one_version_is_harmless_and_two_are_refused(tmp_path: Path) -> None:
    """Equal versions have equal files; of different ones, the files are mixed."""
    require_one_version(tmp_path)
    require_one_version(site(tmp_path, "edgepack_check-0.1.0", "edgepack-0.1.0"))
    (tmp_path / "edgepack-0.1.0.dist-info").rename(tmp_path / "edgepack-0.2.0.dist-info")
    with pytest.raises(UsageError, match=r"edgepack 0\.2\.0 and edgepack-check 0\.1\.0") as caught:
        require_one_version(tmp_path)
    assert caught.value.hint.startswith("pip uninstall edgepack edgepack-check")


def test_a_command_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything installed nothing happens; a missing module is named with the command that installs it."""
    for command in ("build", "compare", "train"):
        require_packages(command)
    monkeypatch.setattr(distribution, "find_spec", lambda name: None if name == "jinja2" else object())
    with pytest.raises(ToolMissingError, match="`edgepack compare` needs jinja2, not installed here") as caught:
        require_packages("compare")
    assert caught.value.hint == "pip install edgepack"
