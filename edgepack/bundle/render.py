"""A bundle's files from its spec: a pure function, and the same bytes for the same spec."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from edgepack.bundle.android import group_folders, left_out
from edgepack.bundle.android_runtime import runs_compiled
from edgepack.bundle.archive import fold
from edgepack.bundle.context import filters, language_context, make_context, placeholders
from edgepack.bundle.golden import golden_files
from edgepack.bundle.languages.base import USAGE, LoaderLanguage
from edgepack.bundle.languages.registry import languages_for, loader_languages
from edgepack.bundle.manifest import FILE_NAME, SBOM_FILE, make_manifest, to_json_bytes
from edgepack.bundle.sbom import make_sbom
from edgepack.bundle.spec import BundleSpec
from edgepack.bundle.tasks import TASK_LABELS, task_labels_file
from edgepack.bundle.views import label_lines
from edgepack.choices import Delegate, Delivery, Platform
from edgepack.errors import BundleError
from edgepack.profiles.model import TargetProfile
from edgepack.resources import templates_dir

if TYPE_CHECKING:
    from jinja2 import Environment

#: Marks the template folder that gets the model, labels and golden vectors which the loader reads.
_DATA_MARK = "__data__"
#: Marks the template folder that gets one folder per device group of an AI pack.
_GROUPS_MARK = "__groups__"
#: Endings of files that editors and interpreters leave in a template folder.
_IGNORED = (".pyc", "~", ".swp", ".DS_Store")


@dataclass(frozen=True)
class _Source:
    """A template folder with what its files are rendered from.

    Attributes:
        name: Prefix of its files' names in the environment's loader and in error messages.
        folder: The folder.
        context: Variables of its templates.
        usage: True when `README.md.j2` at the top is a section of the bundle's README and not a file.
    """

    name: str
    folder: Path
    context: Mapping[str, Any]
    usage: bool = False


def template_roots(profile: TargetProfile) -> list[Path]:
    """Return the folders with templates: the target's own first, then the built-in ones."""
    return [root for root in (profile.folder / "templates", templates_dir()) if root.is_dir()]


def render(spec: BundleSpec) -> dict[str, bytes]:
    """Return every file of a bundle, manifest.json included.

    Args:
        spec: The bundle's values.

    Returns:
        Map from path relative to the bundle, with forward slashes, to contents.

    Raises:
        BundleError: The target's template does not exist or does not render, a model file's name is not a plain name,
            a tensor has a type that the loader does not support, or an option has an unknown value.
    """
    files: dict[str, bytes] = {}
    for model in spec.models:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", model.filename) or f"model/{model.filename}" in files:
            raise BundleError(
                f"'{model.filename}' is not a valid name for a model file: expected letters, digits, '.', '_', '-', "
                "and no name twice"
            )
        files[f"model/{model.filename}"] = model.data
    golden = golden_files(spec.golden, spec.outputs, f"model/{spec.host.filename}")
    files.update({f"golden/{path}": data for path, data in golden.items()})
    files.update(_render_templates(spec, _payload(spec, golden)))
    files[SBOM_FILE] = to_json_bytes(make_sbom(spec, files))
    files[FILE_NAME] = to_json_bytes(make_manifest(spec, files))
    return dict(sorted(files.items()))


def load_templates(profile: TargetProfile, language: str) -> None:
    """Compile the templates of a target's bundles ahead of time, which takes longer than filling them in.

    Args:
        profile: The target.
        language: Language of Android loaders.
    """
    platform, roots = profile.bundle.template, template_roots(profile)
    serving = [one for one in languages_for(platform) if platform != Platform.ANDROID or one.id == language]
    environment = _environment(roots, serving)
    folders = {f"{one.id}:": one.folder for one in serving}
    folders |= {f"{name}/": templates_dir() / name for name in (platform, "_shared")}
    for prefix, folder in folders.items():
        for path in _template_files(folder):
            if path.suffix == ".j2":
                environment.get_template(f"{prefix}{path}")


def _payload(spec: BundleSpec, golden: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that a loader reads at run time, by path relative to its data folder."""
    # Only libedgetpu runs a compiled .tflite through the interpreter; other compiled files have loaders of their own.
    roles = {"main", "host"}
    if spec.rule.delegate == Delegate.EDGETPU:
        roles |= {"compiled", "segment", "co-compiled"}
    if runs_compiled(spec):
        roles.add("compiled")
    # An AI pack brings the models to the app beside the loader, not inside it.
    models = () if spec.delivery == Delivery.AI_PACK else spec.models
    files = {model.filename: model.data for model in models if model.role in roles}
    files |= {f"golden/{path}": data for path, data in golden.items()}
    for number, tensor in enumerate(spec.outputs):
        if tensor.labels:
            text = "".join(f"{line}\n" for line in label_lines(tensor.labels))
            files[f"labels_{number}.txt"] = text.encode("utf-8", "replace")
    if spec.task_labels and task_labels_file(spec) == TASK_LABELS:
        text = "".join(f"{line}\n" for line in label_lines(spec.task_labels))
        files[TASK_LABELS] = text.encode("utf-8", "replace")
    return files


def _template_files(folder: Path) -> list[PurePosixPath]:
    return sorted(
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(_IGNORED)
    )


def _template_folder(spec: BundleSpec, roots: Sequence[Path]) -> Path:
    template = spec.rule.template
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", template) is not None
    folder = next((root / template for root in roots if plain and (root / template).is_dir()), None)
    if folder is None:
        raise BundleError(
            f"target '{spec.profile.id}' requests the bundle template '{template}', which does not exist",
            hint="[bundle] template names a folder of the target's own templates/, or edgepack's 'android' or 'linux'",
        )
    return folder


def _render_templates(spec: BundleSpec, payload: Mapping[str, bytes]) -> dict[str, bytes]:
    roots = template_roots(spec.profile)
    folder = _template_folder(spec, roots)
    languages = loader_languages(spec)
    if folder.parent != templates_dir():
        # A target's own template carries whatever loader it has itself.
        languages = ()
    environment = _environment(roots, languages)
    words = placeholders(spec, languages)
    others = {language.id for language in languages_for(Platform.ANDROID)} - {spec.language}
    excluded = left_out(spec, others)
    context = make_context(spec, languages)
    sources, usage = [], []
    for source in _language_sources(spec, languages, context):
        sources.append(source)
        if (source.folder / USAGE).is_file():
            usage.append(_render_file(spec, environment, source, PurePosixPath(USAGE)))
    sources.append(_Source(f"{spec.rule.template}/", folder, {**context, "usage": usage}))
    files: dict[str, bytes] = {}
    for source in sources:
        for path in _template_files(source.folder):
            if excluded & set(path.parts) or (source.usage and path == PurePosixPath(USAGE)):
                continue
            rendered = _render_path(spec, environment, source, path, words, payload)
            twice = sorted(set(rendered) & set(files))
            if twice:
                raise BundleError(
                    f"two templates write '{twice[0]}'",
                    hint=f"rename it in the template folder of '{source.name.rstrip(':/')}'",
                )
            files |= rendered
    return fold(files, f"android/{words['__aar__']}", spec.classes) if spec.delivery == Delivery.AAR else files


def _language_sources(
    spec: BundleSpec, languages: Sequence[LoaderLanguage], context: Mapping[str, Any]
) -> list[_Source]:
    """Return the languages' template folders; in its own one, a language's variables take precedence."""
    return [
        _Source(f"{language.id}:", language.folder, {**context, **language_context(language, spec)}, usage=True)
        for language in languages
    ]


#: Environments with their compiled templates, which the targets of one platform share, by template folders and identity
#: of the languages. The languages are kept, so that no other one gets their identity.
_environments: dict[tuple[object, ...], tuple["Environment", Sequence[LoaderLanguage]]] = {}


def _environment(roots: Sequence[Path], languages: Sequence[LoaderLanguage]) -> "Environment":
    key = (*roots, *map(id, languages))
    if key not in _environments:
        _environments[key] = _new_environment(roots, languages), languages
    return _environments[key][0]


def _new_environment(roots: Sequence[Path], languages: Sequence[LoaderLanguage]) -> "Environment":
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader, StrictUndefined

    folders = {language.id: FileSystemLoader(language.folder, encoding="utf-8") for language in languages}
    environment = Environment(
        loader=ChoiceLoader([PrefixLoader(folders, ":"), FileSystemLoader(roots, encoding="utf-8")]),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    environment.filters.update(filters(languages))
    return environment


def _render_path(
    spec: BundleSpec,
    environment: "Environment",
    source: _Source,
    path: PurePosixPath,
    words: Mapping[str, str],
    payload: Mapping[str, bytes],
) -> dict[str, bytes]:
    """Return the files of the bundle that one file of a template folder stands for."""
    place = _fill(path.as_posix(), words)
    if path.name == _DATA_MARK:
        parent = place.removesuffix(_DATA_MARK)
        return {parent + name: data for name, data in payload.items()}
    if path.name == _GROUPS_MARK:
        stem = place.removesuffix(_GROUPS_MARK) + words["__asset__"]
        return {
            f"{stem}#group_{group}/{name}": data
            for group, models in group_folders(spec).items()
            for name, data in models.items()
        }
    if path.suffix != ".j2":
        return {place: (source.folder / path).read_bytes()}
    text = _render_file(spec, environment, source, path)
    return {place.removesuffix(".j2"): text.encode("utf-8", "replace")} if text.strip() else {}


def _render_file(spec: BundleSpec, environment: "Environment", source: _Source, path: PurePosixPath) -> str:
    from jinja2 import TemplateError

    try:
        return environment.get_template(f"{source.name}{path}").render(source.context)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        number = getattr(error, "lineno", None)
        line = f", line {number}" if number else ""
        raise BundleError(
            f"template '{source.name}{path}' of '{spec.profile.id}' does not render{line}: {error}",
            hint="correct the template; docs/reference/templates.md lists the variables and filters that it may use",
        ) from error


def _fill(path: str, words: Mapping[str, str]) -> str:
    """Return a template's path with its placeholders replaced; names such as `__init__` are none."""
    for word, value in words.items():
        path = path.replace(word, value)
    return path
