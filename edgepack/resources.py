"""Locations of edgepack's data, targets/ and templates/, in an installed wheel or in a checkout."""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def data_root() -> Path:
    """Return the folder that contains `targets/` and `templates/`.

    A wheel contains both under `edgepack/_data`; an editable install reads the checkout.

    Raises:
        FileNotFoundError: Neither place has them, so the installation is broken.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / "targets").is_dir() and (root / "templates").is_dir():
            return root
    raise FileNotFoundError("edgepack's targets/ and templates/ are missing: reinstall edgepack")


def builtin_target_dir(target_id: str) -> Path:
    """Return the folder of a built-in target; the entry points of the built-in targets name this function."""
    return data_root() / "targets" / target_id


def package_source(*parts: str) -> str:
    """Return the text of a file of the package."""
    return _PACKAGE.joinpath(*parts).read_text(encoding="utf-8")


def templates_dir() -> Path:
    """Return the folder of the built-in templates."""
    return data_root() / "templates"
