"""The Android archive (.aar) delivery: compiles the loader's classes, where a compiler and the libraries are there."""

import os
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from edgepack import tools
from edgepack.bundle.archive import pack
from edgepack.bundle.languages.base import LoaderCompiler
from edgepack.bundle.languages.registry import app_language
from edgepack.bundle.render import render
from edgepack.bundle.spec import BundleSpec
from edgepack.choices import Delivery
from edgepack.errors import BundleError

#: Jars and .aar files that the loader is compiled against, separated as in PATH.
CLASSPATH = "EDGEPACK_ANDROID_CLASSPATH"
_HINT = (
    f"set {CLASSPATH} to android.jar and the .aar files of the runtime (listed in the module's build.gradle.kts), "
    "separated as in PATH"
)


def with_classes(spec: BundleSpec, *, timeout: float = 300.0) -> BundleSpec:
    """Return the spec with the compiled loader, or with a note that says what the compilation lacks.

    Args:
        spec: A spec with `delivery = "aar"`; any other one is returned unchanged.
        timeout: Time limit of the compiler, in seconds.

    Raises:
        BundleError: An entry of EDGEPACK_ANDROID_CLASSPATH cannot be read, the loader does not compile against them, or
            the language is unknown.
        ToolMissingError: EDGEPACK_JAVAC or EDGEPACK_KOTLINC names no program.
        CompilerError: The compiler exceeds the time limit.
    """
    if spec.delivery != Delivery.AAR:
        return spec
    language = app_language(spec)
    compiler = language.compiler
    if compiler is None:
        return _without_classes(spec, [f"edgepack has no compiler for {language.title}"])
    program = tools.locate(compiler.tool)
    entries = [Path(entry) for entry in os.environ.get(CLASSPATH, "").split(os.pathsep) if entry]
    missing = [] if entries else [f"{CLASSPATH} is not set"]
    if program is None:
        missing.append(f"{compiler.tool.program} is not on PATH and {compiler.tool.variable} is not set")
    if missing or program is None:
        return _without_classes(spec, missing)
    return replace(spec, classes=_compile(spec, compiler, program, entries, timeout))


def _without_classes(spec: BundleSpec, reasons: list[str]) -> BundleSpec:
    note = f"the .aar contains no classes, because {' and '.join(reasons)}; the module contains the loader's sources"
    return replace(spec, notes=(*spec.notes, note))


def _compile(spec: BundleSpec, compiler: LoaderCompiler, program: Path, entries: list[Path], timeout: float) -> bytes:
    """Return the loader's classes as a .jar."""
    rendered = render(replace(spec, delivery=Delivery.MODULE))
    sources = {path: data for path, data in rendered.items() if path.endswith(compiler.suffix) and "/src/main/" in path}
    with tempfile.TemporaryDirectory(prefix="edgepack-aar-") as name:
        folder = Path(name)
        jars = [str(_jar(entry, folder / f"library_{number}.jar")) for number, entry in enumerate(entries)]
        places = []
        for path, data in sources.items():
            place = folder / "sources" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            places.append(str(place))
        output = folder / "classes"
        output.mkdir()
        argv = [str(program), *compiler.flags, "-cp", os.pathsep.join(jars), "-d", str(output), *sorted(places)]
        completed = tools.run(argv, timeout=timeout, name=program.name)
        if completed.exit_code != 0:
            raise BundleError(
                f"the loader does not compile: {program.name} exited with code {completed.exit_code}",
                hint=_HINT,
                details={"log_tail": tools.tail(completed.output).replace(str(folder), "")},
            )
        return pack(
            {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
        )


def _jar(entry: Path, place: Path) -> Path:
    """Return a library's classes as a .jar; those of an .aar are written to `place`."""
    if not entry.is_file():
        raise BundleError(f"{CLASSPATH}: '{entry}' is not a file", hint=_HINT)
    if entry.suffix != ".aar":
        return entry.absolute()
    try:
        with zipfile.ZipFile(entry) as archive:
            place.write_bytes(archive.read("classes.jar"))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{CLASSPATH}: '{entry.name}' is not an Android archive with classes", hint=_HINT) from error
    return place
