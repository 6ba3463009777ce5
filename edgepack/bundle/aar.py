"""An Android archive (.aar): a zip with manifest, assets, rules and, where it can be compiled, the loader's classes."""

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgepack import tools
from edgepack.bundle.spec import BundleSpec
from edgepack.errors import BundleError

#: The oldest time a zip can hold: archives of the same files have the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
#: Jars and .aar files that the loader is compiled against, separated as PATH is.
CLASSPATH = "EDGEPACK_ANDROID_CLASSPATH"
_WHERE = (
    f"set {CLASSPATH} to android.jar and the .aar files of the runtime (the module's build.gradle.kts names them), "
    "separated as PATH is"
)
JAVAC = tools.Tool(
    name="javac",
    program="javac",
    variable="EDGEPACK_JAVAC",
    install="install a JDK, version 17 or later",
    version_args=("-version",),
)
KOTLINC = tools.Tool(
    name="kotlinc",
    program="kotlinc",
    variable="EDGEPACK_KOTLINC",
    install="install the Kotlin command line compiler, or take --language java",
    version_args=("-version",),
)


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by path, nothing compressed; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(files):
            info = zipfile.ZipInfo(path, _TIME)
            # As Unix writes it, whatever this machine is.
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, files[path])
    return buffer.getvalue()


def fold(files: Mapping[str, bytes], folder: str, classes: bytes | None) -> dict[str, bytes]:
    """Return a bundle's files with one folder packed into an archive of the folder's name.

    Args:
        files: Contents by path.
        folder: The folder, without a slash at its end.
        classes: The compiled loader as a .jar, None for an archive without.
    """
    inside = {path.removeprefix(f"{folder}/"): data for path, data in files.items() if path.startswith(f"{folder}/")}
    if classes is not None:
        inside["classes.jar"] = classes
    return {path: data for path, data in files.items() if not path.startswith(f"{folder}/")} | {folder: pack(inside)}


def with_classes(spec: BundleSpec, *, timeout: float = 300.0) -> BundleSpec:
    """Return the spec with its loader compiled, or with a note that says what is missing for that.

    Args:
        spec: A spec with `delivery = "aar"`; others are returned as they are.
        timeout: Seconds the compiler may take.

    Raises:
        BundleError: An entry of EDGEPACK_ANDROID_CLASSPATH cannot be read, or the loader does not compile against them.
        ToolMissingError: EDGEPACK_JAVAC or EDGEPACK_KOTLINC names no program.
        CompilerError: The compiler takes longer than `timeout`.
    """
    if spec.delivery != "aar":
        return spec
    tool = JAVAC if spec.language == "java" else KOTLINC
    program = tools.locate(tool)
    entries = [Path(entry) for entry in os.environ.get(CLASSPATH, "").split(os.pathsep) if entry]
    missing = [] if entries else [f"{CLASSPATH} is not set"]
    if program is None:
        missing.append(f"{tool.program} is not on PATH and {tool.variable} is not set")
    if missing or program is None:
        note = f"the .aar holds no classes, because {' and '.join(missing)}; the loader's sources are in the module"
        return replace(spec, notes=(*spec.notes, note))
    return replace(spec, classes=_compile(spec, program, entries, timeout))


def _compile(spec: BundleSpec, program: Path, entries: list[Path], timeout: float) -> bytes:
    from edgepack.bundle.render import render

    ending = ".java" if spec.language == "java" else ".kt"
    rendered = render(replace(spec, delivery="module"))
    sources = {path: data for path, data in rendered.items() if path.endswith(ending) and "/src/main/" in path}
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
        flags = ["--release", "17", "-proc:none", "-encoding", "UTF-8"] if ending == ".java" else ["-jvm-target", "17"]
        argv = [str(program), *flags, "-cp", os.pathsep.join(jars), "-d", str(output), *sorted(places)]
        done = tools.run(argv, timeout=timeout, name=program.name)
        if done.exit_code != 0:
            raise BundleError(
                f"the loader does not compile: {program.name} ended with {done.exit_code}",
                hint=_WHERE,
                details={"log_tail": tools.tail(done.output).replace(str(folder), "")},
            )
        made = {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    return pack(made)


def _jar(entry: Path, place: Path) -> Path:
    """Return a library's classes as a .jar; those of an .aar are written to `place`."""
    if not entry.is_file():
        raise BundleError(f"{CLASSPATH}: '{entry}' is no file", hint=_WHERE)
    if entry.suffix != ".aar":
        return entry.absolute()
    try:
        with zipfile.ZipFile(entry) as archive:
            place.write_bytes(archive.read("classes.jar"))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise BundleError(f"{CLASSPATH}: '{entry.name}' is no Android archive with classes", hint=_WHERE) from error
    return place
