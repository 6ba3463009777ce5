"""Installed loader languages: entry points of the group `edgepack.languages`, built-in ones included."""

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from edgepack.bundle.languages.base import LoaderLanguage
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Platform
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
    """Return the installed languages by id, built-in ones first; a broken plugin is a warning and is left out."""
    languages: dict[str, LoaderLanguage] = {}
    for language_id, entry in _entries().items():
        try:
            languages[language_id] = _load(entry)
        except (Exception, SystemExit) as error:
            if language_id in BUILTIN:
                raise
            warnings.warn(
                f"the loader language '{language_id}' of {_package(entry)} is left out: "
                f"{entry.value}: {type(error).__name__}: {error}",
                stacklevel=2,
            )
    return languages


def refresh() -> None:
    """Forget the installed languages, so that the next call looks again; for tests and long-lived processes."""
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
    entries = {name: EntryPoint(name, value, GROUP) for name, value in BUILTIN.items()}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        known = entries.setdefault(entry.name, entry)
        if known.value != entry.value:
            warnings.warn(
                f"two packages offer the loader language '{entry.name}': {known.value} is used, {entry.value} of "
                f"{_package(entry)} is not",
                stacklevel=3,
            )
    return entries


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
