"""Installed loader languages: entry points of the group `edgepack.languages`, built-in ones included."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint

from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Platform
from edgepack.entry_points import collect_entry_points
from edgepack.errors import BundleError

GROUP = "edgepack.languages"

#: What pyproject.toml declares, for a checkout on sys.path that was never installed and so has no metadata. The order
#: is that of the sections in a bundle's README.
BUILTIN = {
    "python": "edgepack.bundle.languages.python:Python",
    "c": "edgepack.bundle.languages.c:C",
    "kotlin": "edgepack.bundle.languages.kotlin:Kotlin",
    "java": "edgepack.bundle.languages.java:Java",
}


@cache
def all_languages() -> dict[str, LoaderLanguage]:
    """Return the installed languages by id, built-in ones first; a broken plugin is a warning and is ignored."""
    languages: dict[str, LoaderLanguage] = {}
    for language_id, entry in _entries().items():
        try:
            languages[language_id] = _load(entry)
        except (Exception, SystemExit) as error:
            if language_id in BUILTIN:
                raise
            warnings.warn(
                f"the loader language '{language_id}' of {_package(entry)} is ignored: "
                f"{entry.value}: {type(error).__name__}: {error}",
                stacklevel=2,
            )
    return languages


def refresh() -> None:
    """Clear the cached languages, so that the next call reads them again; for tests and long-lived processes."""
    all_languages.cache_clear()


def languages_for(platform: str) -> tuple[LoaderLanguage, ...]:
    """Return the languages that serve a platform; none for a template that is no platform of edgepack's."""
    return tuple(language for language in all_languages().values() if platform in language.platforms)


def loader_languages(spec: BundleSpec) -> tuple[LoaderLanguage, ...]:
    """Return the languages of a bundle's loaders: on Android the app's, on other platforms all that serve it.

    Raises:
        BundleError: `spec.language` is no installed language of Android loaders.
    """
    app = app_language(spec)
    return (app,) if spec.rule.template == Platform.ANDROID else languages_for(spec.rule.template)


def app_language(spec: BundleSpec) -> LoaderLanguage:
    """Return the language of the Android loader.

    Raises:
        BundleError: `spec.language` is no installed language of Android loaders.
    """
    languages = {language.id: language for language in languages_for(Platform.ANDROID)}
    if spec.language not in languages:
        raise BundleError(f"language: expected {' or '.join(languages)}, got '{spec.language}'")
    return languages[spec.language]


def _entries() -> dict[str, EntryPoint]:
    """Return the entry points by id, the built-in ones first, in the order of `BUILTIN`."""
    points = collect_entry_points(GROUP, BUILTIN, "loader language")
    for warning in points.warnings:
        warnings.warn(warning, stacklevel=3)
    return {name: points.entries[name] for name in dict.fromkeys((*BUILTIN, *points.entries))}


def _load(entry: EntryPoint) -> LoaderLanguage:
    loaded = entry.load()
    language = loaded() if isinstance(loaded, type) else loaded
    if not isinstance(language, LoaderLanguage):
        raise TypeError(f"expected a subclass of {LoaderLanguage.__module__}.LoaderLanguage, got {loaded!r}")
    if getattr(language, "id", None) != entry.name:
        raise TypeError(
            f"id: expected '{entry.name}', the name of its entry point, got {getattr(language, 'id', None)!r}"
        )
    for name in ("title", "platforms"):
        if not getattr(language, name, None):
            raise TypeError(f"{name}: expected a value, got none")
    if not language.folder.is_dir():
        raise TypeError(f"folder: expected a folder with templates, got '{language.folder.name}', which does not exist")
    return language


def _package(entry: EntryPoint) -> str:
    return f"the package '{entry.dist.name}'" if entry.dist is not None else "edgepack"
