"""The lock file covers what pyproject.toml requires, with hashes, for every platform that it is for."""

import itertools
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
LOCK = (REPOSITORY / "requirements-dev.lock").read_text()
#: The machines of CONTRIBUTING.md.
ENVIRONMENTS = [
    {
        "python_version": python,
        "python_full_version": f"{python}.5",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine,
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for python, (system, machine) in itertools.product(
        ("3.11", "3.12", "3.13"), (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    )
]
HINT = "run scripts/lock and commit requirements-dev.lock"


def _entries() -> list[tuple[Requirement, list[str]]]:
    """Return each locked requirement with its hashes."""
    entries = []
    for block in LOCK.replace("\\\n", " ").splitlines():
        requirement, *hashes = block.split("--hash=")
        entries.append((Requirement(requirement), [text.strip() for text in hashes]))
    return entries


def _required() -> Iterator[Requirement]:
    """Yield what pyproject.toml names: dependencies, extras, the development group and the build backend."""
    document = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    project = document["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *document["dependency-groups"].values(),
    ]
    for text in itertools.chain(*groups, document["build-system"]["requires"]):
        yield Requirement(text)


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda e: "-".join([e["python_version"], e["platform_machine"]])
)
def test_every_requirement_is_locked_in_its_range(environment: dict[str, str]) -> None:
    """On each platform every requirement has exactly one version, which is in the range of pyproject.toml."""
    locked: dict[str, list[str]] = {}
    for entry, _ in _entries():
        if entry.marker is None or entry.marker.evaluate(environment):
            locked.setdefault(canonicalize_name(entry.name), []).append(next(iter(entry.specifier)).version)
    assert [name for name, versions in locked.items() if len(versions) > 1] == []
    for requirement in _required():
        if requirement.marker is None or requirement.marker.evaluate(environment):
            versions = locked.get(canonicalize_name(requirement.name), [])
            assert versions and requirement.specifier.contains(versions[0]), f"{requirement}: locked {versions}; {HINT}"


def test_nothing_else_is_locked() -> None:
    """A package that nothing requires any more leaves the file; this reads the metadata of installed packages."""
    reached: set[tuple[str, str]] = set()
    waiting = [(r.name, extra) for r in _required() for extra in ("", *r.extras)]
    unknown = set()
    while waiting:
        if (edge := waiting.pop()) in reached:
            continue
        reached.add(edge)
        name, extra = edge
        try:
            texts = requires(name) or []
        except PackageNotFoundError:
            unknown.add(name)
            continue
        for requirement in map(Requirement, texts):
            marker = str(requirement.marker or "")
            if "extra" not in marker or (extra and f'"{extra}"' in marker):
                waiting += [(requirement.name, e) for e in ("", *requirement.extras)]
    left = {canonicalize_name(entry.name) for entry, _ in _entries()} - {canonicalize_name(name) for name, _ in reached}
    here = {entry.name for entry, _ in _entries() if entry.marker is None} & unknown
    if left and here:
        pytest.skip(f"this environment is not installed from the lock file: no {', '.join(sorted(here))}")
    assert not left, f"{sorted(left)} are required by nothing; {HINT}"


def test_every_package_has_hashes_and_no_address() -> None:
    """Pip compares each download with the file, from wherever it comes: the file names no registry."""
    assert "://" not in LOCK
    for entry, hashes in _entries():
        assert len(entry.specifier) == 1 and next(iter(entry.specifier)).operator == "=="
        assert hashes and all(text.startswith("sha256:") and len(text) == 71 for text in hashes), entry.name
