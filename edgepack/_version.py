"""The version: read by the package and by its build; and the versions of other packages."""

__version__ = "0.1.0"


def installed_version(distribution: str) -> str:
    """Return the version of an installed package, empty when it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
