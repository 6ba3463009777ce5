"""The bill of materials of a bundle (CycloneDX 1.6): models, target profile, edgepack, compiler and the runtimes.

The same spec gives the same bytes: the optional serial number and time of the format are left out.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.bundle.android_runtime import dependencies
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Delegate, Platform
from edgepack.digests import sha256

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_SOURCE, _PROFILE, _EDGEPACK = "source-model", "target-profile", "edgepack"


def make_sbom(spec: BundleSpec, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the bill of materials as a JSON document.

    Args:
        spec: The bundle's values.
        files: The rendered files; the requirements of Python projects among them are read.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    root = Component(name=spec.name, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="bundle")
    own = [*_models(spec), *_tools(spec)]
    libraries = [*_python_libraries(files), *_android_libraries(spec), *_native_libraries(spec, files)]
    bom = Bom(metadata=BomMetaData(component=root), components=[*own, *libraries])
    by_ref = {str(component.bom_ref.value): component for component in bom.components}
    bom.register_dependency(root, sorted(set(bom.components), key=lambda component: str(component.bom_ref.value)))
    for model in spec.models:
        if model.role != "co-compiled":
            bom.register_dependency(by_ref[f"model/{model.filename}"], [by_ref[_SOURCE]])
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    return document


def _models(spec: BundleSpec) -> "Iterator[Component]":
    """Yield the user's model, the files of model/ and the target profile."""
    from cyclonedx.model.component import ComponentType

    source = {"format": spec.source.format, "bytes": str(spec.source.bytes)}
    yield _component(
        _SOURCE, spec.name, ComponentType.MACHINE_LEARNING_MODEL, digest=spec.source.sha256, properties=source
    )
    for model in spec.models:
        yield _component(
            f"model/{model.filename}",
            f"model/{model.filename}",
            ComponentType.MACHINE_LEARNING_MODEL,
            digest=sha256(model.data),
            properties={"role": model.role, "scheme": spec.scheme, "bytes": str(len(model.data))},
        )
    yield _component(
        _PROFILE,
        spec.profile.id,
        ComponentType.DATA,
        digest=spec.profile.sha256,
        description=f"target profile: {spec.profile.title}",
    )


def _tools(spec: BundleSpec) -> "Iterator[Component]":
    """Yield the programs that made the bundle."""
    from cyclonedx.model.component import ComponentType

    yield _component(
        _EDGEPACK, "edgepack", ComponentType.APPLICATION, version=spec.version, purl=("pypi", "", "edgepack")
    )
    name, _, version = spec.golden.runtime.partition(" ")
    if name:
        yield _component(
            "golden-runtime",
            name,
            ComponentType.LIBRARY,
            version=version,
            purl=("pypi", "", name),
            description="recorded the golden vectors; not part of the bundle",
        )
    if spec.compile.tool and spec.compile.status == "compiled":
        yield _component(
            "compiler",
            spec.compile.tool,
            ComponentType.APPLICATION,
            version=spec.compile.version,
            description="compiled the model; not part of the bundle",
        )


def _python_libraries(files: Mapping[str, bytes]) -> "Iterator[Component]":
    """Yield the requirements of every Python project in the bundle."""
    from cyclonedx.model.component import ComponentType
    from packaging.requirements import InvalidRequirement, Requirement

    lines: dict[str, str] = {}
    for path, data in sorted(files.items()):
        if path.rpartition("/")[2] != "pyproject.toml":
            continue
        try:
            project = tomllib.loads(data.decode()).get("project", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue
        optional = project.get("optional-dependencies", {})
        listed = (("", project.get("dependencies", ())), *sorted(optional.items()))
        lines.update({line: extra for extra, names in listed for line in names})
    for line, extra in lines.items():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        exact = [entry.version for entry in requirement.specifier if entry.operator == "=="]
        name = requirement.name.lower()
        yield _component(
            f"pypi:{line}",
            name,
            ComponentType.LIBRARY,
            version=exact[0] if exact else "",
            purl=("pypi", "", name),
            properties={
                "requirement": str(requirement.specifier),
                "marker": str(requirement.marker or ""),
                "extra": extra,
            },
        )


def _android_libraries(spec: BundleSpec) -> "Iterator[Component]":
    """Yield the Maven libraries of the Android module."""
    from cyclonedx.model.component import ComponentType

    if spec.rule.template != Platform.ANDROID:
        return
    for library in dependencies(spec):
        group, name, version = library.coordinates.split(":")
        yield _component(
            f"maven:{library.coordinates}",
            name,
            ComponentType.LIBRARY,
            group=group,
            version=version,
            purl=("maven", group, name),
            description=library.why,
        )


def _native_libraries(spec: BundleSpec, files: Mapping[str, bytes]) -> "Iterator[Component]":
    """Yield the libraries that a loader opens by name; the device has them, in whatever version."""
    from cyclonedx.model.component import ComponentType

    from edgepack.bundle.context import edgetpu_runtime

    if any(path.endswith("/src/runtime_tflite.c") for path in files):
        for name in ("libtensorflowlite_c", "libLiteRt"):
            yield _component(
                f"native:{name}",
                name,
                ComponentType.LIBRARY,
                description="the C library opens the one of libtensorflowlite_c and libLiteRt that the device has",
            )
    if spec.rule.delegate == Delegate.EDGETPU:
        version = spec.compile.runtime_version or edgetpu_runtime(spec.compile.version)
        yield _component(
            "native:libedgetpu",
            "libedgetpu",
            ComponentType.LIBRARY,
            description="the runtime of the Edge TPU",
            properties={"runtime_version": str(version)},
        )


def _component(
    ref: str,
    name: str,
    kind: Any,
    *,
    group: str = "",
    version: str = "",
    digest: str = "",
    description: str = "",
    purl: tuple[str, str, str] | None = None,
    properties: Mapping[str, str] | None = None,
) -> "Component":
    """Return a component; `purl` is (type, namespace, name) of its package URL, which gets the version."""
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    return Component(
        name=name,
        type=kind,
        bom_ref=ref,
        group=group or None,
        version=version or None,
        description=description or None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else None,
        purl=None if purl is None else PackageURL(purl[0], purl[1] or None, purl[2], version or None),
        properties=[
            Property(name=f"edgepack:{key}", value=value) for key, value in (properties or {}).items() if value
        ],
    )


def sbom_faults(document: Any, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each statement of a bill of materials that differs from the manifest.

    Args:
        document: A decoded JSON value.
        manifest: A manifest that conforms to its schema.
    """
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX":
        yield "expected a CycloneDX document"
        return
    listed = document.get("components")
    components = {
        entry["bom-ref"]: entry
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("bom-ref"), str)
    }
    expected = {entry["path"]: entry["sha256"] for entry in manifest["model"]["files"]}
    expected |= {_SOURCE: manifest["source"]["sha256"], _PROFILE: manifest["target"]["profile_sha256"]}
    for ref, digest in expected.items():
        if ref not in components:
            yield f"the component '{ref}' is missing"
        elif components[ref].get("hashes") != [{"alg": "SHA-256", "content": digest}]:
            yield f"the component '{ref}' and the manifest: expected one sha256, got two"
    for ref in sorted(components):
        if ref.startswith("model/") and ref not in expected:
            yield f"the component '{ref}' is not a model file of the manifest"
    version = components.get(_EDGEPACK, {}).get("version")
    if version != manifest["edgepack"]:
        yield f"edgepack: the manifest has {manifest['edgepack']}, the bill of materials {str(version)[:40]}"
