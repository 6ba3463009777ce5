"""Which of the two distributions of edgepack is installed: the whole one, or the light one for CI and boards.

`edgepack` and `edgepack-check` contain the same files; they differ in the packages that they bring. Their names are
read from the folder of the package, because `importlib.metadata` takes longer than a command's start may.
"""

import re
from importlib.util import find_spec
from pathlib import Path

from edgepack.errors import ToolMissingError, UsageError

FULL, LIGHT = "edgepack", "edgepack-check"

#: Modules that a command needs and the light distribution does not bring.
_MODULES = {
    "build": ("ai_edge_quantizer", "jinja2", "cyclonedx", "packageurl"),
    "compare": ("ai_edge_quantizer", "jinja2"),
    "train": ("tensorflow", "tf_keras", "tensorflow_model_optimization", "ai_edge_quantizer"),
}
_DIST_INFO = re.compile(r"(edgepack|edgepack_check)-([^-]+)\.dist-info")
_FOLDER = Path(__file__).resolve().parent.parent


def installed_distributions(folder: Path = _FOLDER) -> dict[str, str]:
    """Return the version of each of the two distributions that is installed beside this package, by name."""
    found = (_DIST_INFO.fullmatch(entry.name) for entry in folder.glob("edgepack*.dist-info"))
    return dict(sorted((match[1].replace("_", "-"), match[2]) for match in found if match))


def is_light(folder: Path = _FOLDER) -> bool:
    """Return whether only the light distribution is installed."""
    return set(installed_distributions(folder)) == {LIGHT}


def requirement(extra: str) -> str:
    """Return what pip installs for an extra that both distributions have: `edgepack[oci]`."""
    return f"{LIGHT if is_light() else FULL}[{extra}]"


def require_one_version(folder: Path = _FOLDER) -> None:
    """Refuse to run files of two versions: the distributions share one folder, so the later one replaced some of them.

    Both in the same version have the same files, which is harmless.

    Raises:
        UsageError: Both are installed, in different versions.
    """
    versions = installed_distributions(folder)
    if len(set(versions.values())) > 1:
        listed = " and ".join(f"{name} {version}" for name, version in versions.items())
        raise UsageError(
            f"{listed} are both installed: their files are mixed",
            hint=f"pip uninstall {FULL} {LIGHT}, then install the one that you need",
        )


def require_module(module: str, package: str, purpose: str) -> None:
    """Refuse work for which the light distribution lacks a module.

    Args:
        module: The module.
        package: What pip installs.
        purpose: What needs it, for the message.

    Raises:
        ToolMissingError: It is not installed.
    """
    if find_spec(module) is None:
        raise ToolMissingError(
            f"{purpose} needs the package {package}, which is not installed", hint=f"pip install {package}"
        )


def require_packages(command: str) -> None:
    """Refuse a command whose packages are not installed.

    Args:
        command: `build`, `compare` or `train`.

    Raises:
        ToolMissingError: Names the missing modules and what to install.
    """
    missing = [name for name in _MODULES[command] if find_spec(name) is None]
    if not missing:
        return
    light = is_light()
    raise ToolMissingError(
        f"`edgepack {command}` needs {', '.join(missing)}"
        + (f", which {LIGHT} does not bring" if light else ", not installed here"),
        hint=f"pip uninstall {LIGHT}, then pip install {FULL}" if light else f"pip install {FULL}",
    )
