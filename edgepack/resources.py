"""Where edgepack's own data is: targets/ and templates/, in an installed wheel or in a checkout."""

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def data_root() -> Path:
    """Return the folder that holds `targets/` and `templates/`.

    A wheel carries both under `edgepack/_data`; an editable install reads the checkout.

    Raises:
        FileNotFoundError: Neither place has them: a broken installation.
    """
    for root in (_PACKAGE / "_data", _PACKAGE.parent):
        if (root / "targets").is_dir() and (root / "templates").is_dir():
            return root
    raise FileNotFoundError("edgepack's targets/ and templates/ are missing: reinstall edgepack")


def builtin_target_dir(target_id: str) -> Path:
    """Return the folder of a built-in target; the built-in entry points of `edgepack.targets` name this function."""
    return data_root() / "targets" / target_id


def templates_dir() -> Path:
    """Return the folder of the built-in templates."""
    return data_root() / "templates"
