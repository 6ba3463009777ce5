"""`edgepack doctor`."""

import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

from edgepack.cli import arguments, output

#: Packages and what stops working without each.
_PACKAGES = (
    ("tensorflow", "reads Keras and SavedModel"),
    ("tf-keras", "reads legacy .h5"),
    ("tensorflow-model-optimization", "trains with quantization, pruning, clustering"),
    ("ai-edge-litert", "runs models: calibration, measurement, verify"),
    ("ai-edge-quantizer", "quantizes"),
    ("numpy", "statistics and samples"),
    ("jinja2", "renders bundles"),
    ("pillow", "reads folders of images"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(json_: bool = arguments.JSON) -> int:
    """Say which vendor tools and packages are there, and what to do about those that are not."""
    from edgepack import tools as programs
    from edgepack.bundle.aar import JAVAC, KOTLINC
    from edgepack.bundle.adb import ADB
    from edgepack.cache import default_cache_dir
    from edgepack.compilers import all_compilers
    from edgepack.profiles.registry import known_ids, warnings

    found = [compiler.find() for compiler in all_compilers().values()]
    found += [programs.find(tool) for tool in (JAVAC, KOTLINC, ADB)]
    tools = [{"kind": "tool", **asdict(info)} for info in found]
    packages = [_package(name, purpose) for name, purpose in _PACKAGES]
    if json_:
        output.document(
            "doctor",
            [*tools, *packages],
            python=platform.python_version(),
            targets=list(known_ids()),
            warnings=list(warnings()),
            cache=str(default_cache_dir()),
        )
        return 0
    output.out(f"Python {platform.python_version()} on {sys.platform} {platform.machine()}")
    output.out("packages:")
    for entry in packages:
        _print(entry)
    output.out("vendor tools:")
    for entry in tools:
        _print(entry)
    output.out(f"targets: {', '.join(known_ids())}")
    output.out(f"cache: {default_cache_dir()}")
    for text in warnings():
        output.warn(text)
    return 0


def _package(name: str, purpose: str) -> dict[str, Any]:
    try:
        found = version(name)
    except PackageNotFoundError:
        found = ""
    return {
        "name": name,
        "kind": "package",
        "found": bool(found),
        "version": found,
        "problem": "" if found else f"not installed: nothing else {purpose}",
        "install": "" if found else f"pip install {name}",
    }


def _print(entry: dict[str, Any]) -> None:
    mark = "found  " if entry["found"] else "missing"
    output.out(output.wrap(f"  {mark}  {entry['name']} {entry['version']}".rstrip(), "           "))
    if entry["problem"]:
        output.out(output.wrap(f"           {entry['problem']}", "           "))
    if not entry["found"] and entry["install"]:
        output.out(output.wrap(f"           to install: {entry['install']}", "           "))
