"""Installed packages for tests of plugins, without pip."""

from collections.abc import Mapping
from pathlib import Path


def install_package(folder: Path, name: str, module: str, group: str, points: Mapping[str, str]) -> None:
    """Write what `pip install` writes: a module and the metadata of its distribution.

    Args:
        folder: A folder on sys.path.
        name: Distribution name; the module has the same name with underscores.
        module: Source text of the module.
        group: Entry-point group.
        points: Entry points of the group: name to `module:attribute`.
    """
    stem = name.replace("-", "_")
    (folder / f"{stem}.py").write_text(module)
    info = folder / f"{stem}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (info / "entry_points.txt").write_text(f"[{group}]\n{lines}")
