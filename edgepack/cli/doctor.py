"""`edgepack doctor`."""

import platform
import sys
from dataclasses import asdict
from typing import Any

import typer

from edgepack._version import installed_version
from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.distribution import FULL, LIGHT, installed_distributions, is_light

#: Packages and what each one does.
_PACKAGES = (
    ("tensorflow", "reads Keras models and SavedModels"),
    ("tf-keras", "reads legacy .h5 models"),
    ("tensorflow-model-optimization", "does quantization-aware training, pruning and clustering"),
    ("ai-edge-litert", "runs models for calibration, measurement and verification"),
    ("ai-edge-quantizer", "writes quantized models"),
    ("numpy", "reads samples and computes statistics"),
    ("jinja2", "renders bundles"),
    ("pillow", "reads folders of images"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", cls=panels.Command)(doctor)


def doctor(json_: bool = arguments.JSON) -> int:
    """Report which vendor tools and packages are installed, and how to get the others."""
    from edgepack.bundle.adb import ADB
    from edgepack.bundle.languages.java import JAVAC
    from edgepack.bundle.languages.kotlin import KOTLINC
    from edgepack.cache import default_cache_dir
    from edgepack.compilers import all_compilers
    from edgepack.compilers.edgetpu_runtime import find_runtime_library
    from edgepack.compilers.simulator import simulator_tool
    from edgepack.convert.importers import registry as importers
    from edgepack.profiles.registry import known_ids, warnings
    from edgepack.remote_cache import installed_schemes
    from edgepack.tools import find

    programs = [compiler.find() for compiler in all_compilers().values()]
    programs += [simulator_tool(compiler) for compiler in all_compilers().values() if compiler.supports_simulation]
    programs += [find_runtime_library(), *(find(tool) for tool in (JAVAC, KOTLINC, ADB))]
    tools = [{"kind": "tool", **asdict(info)} for info in programs]
    problems = [*warnings(), *importers.warnings()]
    protections = _protections()
    packages = [_package(name, purpose) for name, purpose in _PACKAGES]
    if len(installed_distributions()) > 1:
        problems.append(f"{FULL} and {LIGHT} are both installed and share their files: keep one of them")
    if json_:
        output.document(
            "doctor",
            [*tools, *packages],
            distribution=LIGHT if is_light() else FULL,
            python=platform.python_version(),
            targets=list(known_ids()),
            warnings=problems,
            cache=str(default_cache_dir()),
            shared_caches=installed_schemes(),
            protections=protections,
        )
        return 0
    output.out(f"Python {platform.python_version()} on {sys.platform} {platform.machine()}")
    if is_light():
        output.out(output.wrap(f"{LIGHT}: build, compare and train need {FULL}, as do Keras models and SavedModels"))
    output.out("packages:")
    for entry in packages:
        _print(entry)
    output.out("vendor tools:")
    for entry in tools:
        _print(entry)
    output.out("protections of child processes:")
    for name, text in protections.items():
        output.out(output.wrap(f"  {name}: {text}", "    "))
    output.out(f"targets: {', '.join(known_ids())}")
    output.out(f"cache: {default_cache_dir()}")
    output.out("shared caches (--cache URL):")
    for scheme, missing in installed_schemes().items():
        output.out(f"  {'missing' if missing else 'found  '}  {scheme}://")
        if missing:
            output.out(f"           to install: {missing}")
    for text in problems:
        output.warn(text)
    return 0


def _protections() -> dict[str, str]:
    """Return what confines child processes on this system; a child tries what it should not be able to do."""
    import tempfile

    from edgepack import confinement, limits
    from edgepack.child import ChildCrash, Worker

    with tempfile.TemporaryDirectory(prefix="edgepack-doctor-") as outside, Worker() as worker:
        try:
            held = worker.call("edgepack.confinement:probe", outside, timeout=20)
        except ChildCrash:
            held = {"files": False, "network": False}
    missing = f"{confinement.VARIABLE} is off" if not confinement.enabled() else "this system does not offer it"
    landlock = f"children write to their own temporary folder only (Landlock {confinement.landlock_version()})"
    size = limits.format_size(limits.default_memory())
    measured = f"at most {size} for each child (--memory-limit)"
    return {
        "files": landlock if held["files"] else f"not protected: {missing}",
        "network": "children have none (seccomp)" if held["network"] else f"not protected: {missing}",
        "memory": measured if limits.can_measure_memory() else "not limited: this system does not offer it",
        "time": f"at most {limits.TARGET_SECONDS:g} s for each target (--timeout), and that on every processor",
    }


def _package(name: str, purpose: str) -> dict[str, Any]:
    installed = installed_version(name)
    return {
        "name": name,
        "kind": "package",
        "found": bool(installed),
        "version": installed,
        "problem": "" if installed else f"not installed; it {purpose}",
        "install": "" if installed else f"pip install {name}",
    }


def _print(entry: dict[str, Any]) -> None:
    mark = "found  " if entry["found"] else "missing"
    output.out(output.wrap(f"  {mark}  {entry['name']} {entry['version']}".rstrip(), "           "))
    if entry["problem"]:
        output.out(output.wrap(f"           {entry['problem']}", "           "))
    if not entry["found"] and entry["install"]:
        output.out(output.wrap(f"           to install: {entry['install']}", "           "))
