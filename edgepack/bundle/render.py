"""A bundle's files from its spec: pure, and the same bytes for the same spec."""

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgepack.bundle import names
from edgepack.bundle.aar import fold
from edgepack.bundle.android import group_folders, left_out
from edgepack.bundle.context import label_lines, make_context, placeholders
from edgepack.bundle.cpp import c_call, c_string
from edgepack.bundle.golden import golden_files
from edgepack.bundle.manifest import FILE_NAME, make_manifest, to_json_bytes
from edgepack.bundle.spec import BundleSpec
from edgepack.errors import BundleError
from edgepack.profiles.model import TargetProfile
from edgepack.resources import templates_dir

#: Marks the folder of a template that gets the model, labels and golden vectors which the loader reads.
_DATA_MARK = "__data__"
#: Marks the folder of a template that gets one folder per device group of an AI pack.
_GROUPS_MARK = "__groups__"
#: Endings of editors' and interpreters' droppings that may lie in a template folder.
_IGNORED = (".pyc", "~", ".swp", ".DS_Store")

FILTERS = {
    "py": names.python_string,
    "kt": names.kotlin_string,
    "java": names.java_string,
    "toml": names.toml_string,
    "xml": names.xml_text,
    "md": names.markdown_text,
    "mdcode": names.markdown_code,
    "comment": names.comment_text,
    "ktfloat": names.kotlin_float,
    "c": c_string,
    "ccall": c_call,
    "jcall": names.java_call,
}


def template_roots(profile: TargetProfile) -> list[Path]:
    """Return the folders that hold templates: the target's own first, then the built-in ones."""
    return [root for root in (profile.folder / "templates", templates_dir()) if root.is_dir()]


def render(spec: BundleSpec) -> dict[str, bytes]:
    """Return every file of a bundle, manifest.json included.

    Args:
        spec: The bundle's values.

    Returns:
        Map from path relative to the bundle, with forward slashes, to contents.

    Raises:
        BundleError: The target's template does not exist or does not render, a model file's name is not a plain name,
            or a tensor has a type that the loader cannot hold.
    """
    files: dict[str, bytes] = {}
    for model in spec.models:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", model.filename) or f"model/{model.filename}" in files:
            raise BundleError(
                f"'{model.filename}' is no name for a model file: expected letters, digits, '.', '_', '-', none twice"
            )
        files[f"model/{model.filename}"] = model.data
    golden = golden_files(spec.golden, spec.outputs, f"model/{spec.host.filename}")
    files.update({f"golden/{path}": data for path, data in golden.items()})
    files.update(_render_templates(spec, _payload(spec, golden)))
    files[FILE_NAME] = to_json_bytes(make_manifest(spec, files))
    return dict(sorted(files.items()))


def _payload(spec: BundleSpec, golden: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return what a loader reads at run time, by path relative to its data folder."""
    # Only libedgetpu takes a compiled .tflite through the interpreter; other compiled files have loaders of their own.
    wanted = {"main", "host"}
    if spec.rule.delegate == "edgetpu":
        wanted |= {"compiled", "segment", "co-compiled"}
    # An AI pack's models reach the app beside the loader, not in it.
    apart = spec.delivery == "ai-pack"
    files = {model.filename: model.data for model in spec.models if model.role in wanted and not apart}
    files |= {f"golden/{path}": data for path, data in golden.items()}
    files |= {f"labels_{n}.txt": label_lines(tensor.labels) for n, tensor in enumerate(spec.outputs) if tensor.labels}
    return files


def _template_files(folder: Path) -> list[PurePosixPath]:
    return sorted(
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(_IGNORED)
    )


def _render_templates(spec: BundleSpec, payload: Mapping[str, bytes]) -> dict[str, bytes]:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    template = spec.rule.template
    roots = template_roots(spec.profile)
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", template) is not None
    folder = next((root / template for root in roots if plain and (root / template).is_dir()), None)
    if folder is None:
        raise BundleError(
            f"target '{spec.profile.id}' asks for the bundle template '{template}', which does not exist",
            hint="[bundle] template names a folder of the target's own templates/, or edgepack's 'android' or 'linux'",
        )
    environment = Environment(
        loader=FileSystemLoader(roots, encoding="utf-8"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    environment.filters.update(FILTERS)
    context = make_context(spec)
    words = placeholders(spec)
    unwanted = left_out(spec)
    files: dict[str, bytes] = {}
    for path in _template_files(folder):
        if unwanted & set(path.parts):
            continue
        place = _fill(path.as_posix(), words)
        if path.name == _DATA_MARK:
            parent = place.removesuffix(_DATA_MARK)
            files.update({parent + name: data for name, data in payload.items()})
        elif path.name == _GROUPS_MARK:
            stem = place.removesuffix(_GROUPS_MARK) + words["__asset__"]
            for group, models in group_folders(spec).items():
                files.update({f"{stem}#group_{group}/{name}": data for name, data in models.items()})
        elif path.suffix == ".j2":
            try:
                text = environment.get_template(f"{template}/{path}").render(context)
            except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise _template_fault(spec, path, error) from error
            if text.strip():
                files[place.removesuffix(".j2")] = text.encode("utf-8", "replace")
        else:
            files[place] = (folder / path).read_bytes()
    return fold(files, f"android/{words['__aar__']}", spec.classes) if spec.delivery == "aar" else files


def _fill(path: str, words: Mapping[str, str]) -> str:
    """Return a template's path with its placeholders filled; `__init__` and the like are none."""
    for word, value in words.items():
        path = path.replace(word, value)
    return path


def _template_fault(spec: BundleSpec, path: PurePosixPath, error: Any) -> BundleError:
    line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
    return BundleError(
        f"template '{spec.rule.template}/{path}' of '{spec.profile.id}' does not render{line}: {error}",
        hint="correct the template; it may use the variables and filters of docs/reference/templates.md only",
    )
