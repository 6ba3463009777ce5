"""Rendering of bundles, memoized.

Compiling templates and listing components takes longer than everything else in a build from the cache.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from typing import Any

from edgepack._version import installed_version
from edgepack.bundle.languages.registry import all_languages
from edgepack.bundle.render import load_templates, render
from edgepack.bundle.spec import BundleSpec, Golden
from edgepack.digests import hash_path, sha256
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.profiles.model import TargetProfile
from edgepack.resources import data_root, templates_dir

#: Packages that write parts of a bundle.
_WRITERS = ("jinja2", "markupsafe", "cyclonedx-python-lib", "packageurl-python", "packaging")


def rendered(session: Session, spec: BundleSpec) -> dict[str, bytes]:
    """Return every file of a bundle: see `edgepack.bundle.render.render`.

    What code of other packages renders is rendered each time, because no key can name everything that it reads.

    Raises:
        BundleError: The bundle cannot be rendered.
    """
    foreign = [
        language for language in all_languages().values() if not type(language).__module__.startswith("edgepack.")
    ]
    if foreign or not spec.profile.folder.is_relative_to(data_root()):
        return render(spec)
    return session.steps.memoize("render", _inputs(spec), _codec(spec), lambda: render(spec))


def prepare_rendering(profiles: Sequence[TargetProfile], language: str) -> None:
    """Do ahead of time what rendering does first, while a child converts: imports, and the compilation of templates.

    Args:
        profiles: The targets.
        language: Language of Android loaders.
    """
    # What fails here fails again where somebody is told.
    with suppress(Exception):
        for module in ("cyclonedx.model.bom", "cyclonedx.output.json", "packaging.requirements"):
            import_module(module)
        for profile in profiles:
            if profile.folder.is_relative_to(data_root()):
                load_templates(profile, language)


def _inputs(spec: BundleSpec) -> dict[str, Any]:
    """Return what the files depend on: the spec, the templates, and who writes."""
    # Of the profile, the digest stands for its files; the rest was chosen from them by options.
    plain = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in {"profile", "golden"}}
    return {
        "spec": plain,
        "profile": [spec.profile.id, spec.profile.sha256, spec.profile.bundle, spec.profile.compiler],
        "golden": _golden_form(spec.golden),
        "templates": hash_path(templates_dir()),
        "writers": list(writer_versions().values()),
    }


def writer_versions() -> dict[str, str]:
    """Return the versions of the packages that write parts of a bundle."""
    return {name: installed_version(name) for name in _WRITERS}


def _golden_form(golden: Golden) -> list[Any]:
    arrays = [
        [[array.dtype.str, list(array.shape), sha256(array.tobytes())] for array in tensors]
        for case in golden.cases
        for tensors in (case.inputs, case.outputs)
    ]
    simulated = [
        [one.chip, one.simulator, one.version, one.steps, one.relative]
        + [[array.dtype.str, list(array.shape), sha256(array.tobytes())] for case in one.outputs for array in case]
        for one in golden.simulated
    ]
    return [golden.machine, golden.runtime, golden.spread_steps, golden.spread_relative, arrays, simulated]


def _codec(spec: BundleSpec) -> Codec[dict[str, bytes]]:
    """Return how files are stored: equal ones once, and models, which the spec has, not at all."""
    models = {sha256(model.data): model.data for model in spec.models}

    def encode(files: dict[str, bytes]) -> Mapping[str, bytes]:
        listed = [(path, sha256(data), len(data)) for path, data in files.items()]
        contents = {digest: files[path] for path, digest, _ in listed if digest not in models}
        return {"files.json": to_json_bytes(listed), "contents": b"".join(contents.values())}

    def decode(entry: Mapping[str, bytes]) -> dict[str, bytes]:
        contents, start = dict(models), 0
        files = {}
        for path, digest, size in json.loads(entry["files.json"]):
            if digest not in contents:
                contents[digest] = entry["contents"][start : start + size]
                start += size
            files[path] = contents[digest]
        return files

    return Codec(encode, decode)
