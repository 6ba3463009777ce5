"""Android's adb: which devices are there, what they are, and a test run on one of them.

Every call has a time limit. What adb and Android print is recorded in `tests/bundle/adb_standin.py`, which prints the
same.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgepack import tools
from edgepack.errors import BundleError, CompilerError, DeviceError, ToolMissingError, UsageError

ADB = tools.Tool(
    name="adb",
    program="adb",
    variable="EDGEPACK_ADB",
    install="install Android's platform tools (https://developer.android.com/tools/releases/platform-tools; "
    "Debian's and Ubuntu's package adb), or set EDGEPACK_ADB to the program",
    version_args=("version",),
    version_pattern=r"Android Debug Bridge version (\S+)",
)

#: Seconds for calls that only ask; starting adb's server takes some.
_QUESTION = 30.0
_INSTALL = 180.0
_LONGEST_FACT = 100

#: State that adb shows for a device which cannot be used -> what to do.
_STATES = {
    "unauthorized": "unlock the device and allow USB debugging for this computer, then run this again",
    "authorizing": "wait until the device has asked for permission, allow it, then run this again",
    "connecting": "wait a moment, then run this again",
    "offline": "unplug the device and plug it in again, or run 'adb reconnect offline'",
    "no permissions": "give your user access to USB devices (on Debian and Ubuntu the package "
    "android-sdk-platform-tools-common and the group plugdev), then run 'adb kill-server'",
}
#: What Android says when it refuses a package -> what to do.
_REFUSALS = {
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": "another build of the test is installed: adb uninstall PACKAGE",
    "INSTALL_FAILED_VERSION_DOWNGRADE": "a newer build of the test is installed: adb uninstall PACKAGE",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the test has no native libraries for this device's processor",
    "INSTALL_FAILED_OLDER_SDK": "the device's Android is older than the test's minSdk",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "free some space on the device",
    "INSTALL_FAILED_USER_RESTRICTED": "allow installing over USB in the device's developer options",
}


@dataclass(frozen=True)
class DeviceFacts:
    """What a device is; nothing that tells one device of a kind from another.

    Attributes:
        manufacturer: `Google`.
        model: `Pixel 7`.
        android: Release, `14`.
        sdk: API level, 0 when the device does not say.
        soc: Chip, as Android 12 and later know it; the board's platform before.
        abi: First of the instruction sets it runs, `arm64-v8a`.
    """

    manufacturer: str
    model: str
    android: str
    sdk: int
    soc: str
    abi: str

    @property
    def title(self) -> str:
        """`Google Pixel 7 (Tensor G2, Android 14)`."""
        return f"{self.manufacturer} {self.model} ({self.soc}, Android {self.android})"


@dataclass(frozen=True)
class Instrumented:
    """What `am instrument` printed.

    Attributes:
        results: The results that the test finished with.
        statuses: What it, or Android in its place, said on the way.
        code: What it finished with, -1 for success; None when it did not finish.
    """

    results: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None

    @property
    def missing(self) -> bool:
        """True when the device has no such test."""
        return self.statuses.get("Error", "").startswith("Unable to find instrumentation")

    @property
    def crash(self) -> str:
        """What Android says about a test that died, empty for one that did not."""
        return self.results.get("longMsg") or self.results.get("shortMsg", "")


def parse_instrumentation(output: str) -> Instrumented:
    """Return what `am instrument -r` printed, as values; a value may span several lines."""
    found: dict[str, dict[str, str]] = {"RESULT": {}, "STATUS": {}}
    code: int | None = None
    kind = key = ""
    for line in output.replace("\r\n", "\n").split("\n"):
        if match := re.match(r"INSTRUMENTATION_(RESULT|STATUS): ([^=]+)=(.*)", line, re.DOTALL):
            kind, key = match.group(1), match.group(2)
            found[kind][key] = match.group(3)
        elif line.startswith("INSTRUMENTATION_"):
            kind = key = ""
            if match := re.fullmatch(r"INSTRUMENTATION_CODE: (-?\d+)\s*", line):
                code = int(match.group(1))
        elif key:
            found[kind][key] += f"\n{line}"
    return Instrumented(found["RESULT"], found["STATUS"], code)


class Adb:
    """One device, reached through adb.

    Args:
        program: adb.
        serial: The device, as `adb devices` names it.
    """

    def __init__(self, program: Path, serial: str) -> None:
        self._program = program
        self.serial = serial

    @classmethod
    def connect(cls, serial: str = "") -> "Adb":
        """Return the device that is meant: the one with that serial number, or the only one there is.

        Args:
            serial: As `adb devices` shows it; empty for the variable ANDROID_SERIAL, or the only device.

        Raises:
            ToolMissingError: adb is not installed.
            DeviceError: There is no device, or the one that is meant cannot be used.
            UsageError: Several devices and no serial, or a serial that none of them has.
        """
        program = tools.locate(ADB)
        if program is None:
            raise ToolMissingError("adb is not installed, which --device needs", hint=ADB.install)
        done = _run([str(program), "devices", "-l"], _QUESTION)
        if done.exit_code != 0:
            raise DeviceError(
                f"'adb devices' ended with {done.exit_code}",
                hint="run 'adb kill-server' and try again",
                details={"log_tail": tools.tail(done.output)},
            )
        devices = _devices(done.stdout)
        serial = serial or os.environ.get("ANDROID_SERIAL", "")
        listed = ", ".join(f"{name} ({state})" for name, state in devices.items())
        if not devices:
            raise DeviceError(
                "adb sees no device",
                hint="connect one with USB debugging on, or start an emulator; 'adb devices' shows it",
            )
        if serial and serial not in devices:
            raise UsageError(f"--serial: adb sees no device '{serial}'", hint=f"it sees {listed}")
        usable = [name for name, state in devices.items() if state == "device"]
        if not serial and len(usable) > 1:
            raise UsageError(f"adb sees {len(usable)} devices: {listed}", hint="name one with --serial")
        serial = serial or (usable or list(devices))[0]
        if devices[serial] != "device":
            state = devices[serial]
            raise DeviceError(
                f"the device {serial} cannot be used: adb says '{state}'",
                hint=_STATES.get(state, "start Android on the device, then run this again"),
            )
        return cls(program, serial)

    def facts(self) -> DeviceFacts:
        """Ask the device what it is.

        Raises:
            DeviceError: It does not answer.
        """
        done = self._call("shell", "getprop", timeout=_QUESTION)
        known = dict(re.findall(r"^\[([^\]]+)\]: \[([^\]\r\n]*)\]", done.stdout, re.MULTILINE))
        if done.exit_code != 0 or not known:
            raise DeviceError(
                f"the device {self.serial} does not say what it is",
                hint="'adb shell getprop' has to work",
                details={"log_tail": tools.tail(done.output)},
            )

        def fact(*keys: str) -> str:
            text = next((known[key] for key in keys if known.get(key)), "unknown")
            return "".join(letter for letter in text if letter.isprintable())[:_LONGEST_FACT]

        sdk = fact("ro.build.version.sdk")
        return DeviceFacts(
            manufacturer=fact("ro.product.manufacturer", "ro.product.brand"),
            model=fact("ro.product.model"),
            android=fact("ro.build.version.release"),
            sdk=int(sdk) if sdk.isascii() and sdk.isdigit() else 0,
            soc=fact("ro.soc.model", "ro.board.platform", "ro.hardware"),
            abi=fact("ro.product.cpu.abi"),
        )

    def install(self, apk: Path, package: str) -> None:
        """Install a package, over an older one of the same name.

        Args:
            apk: The file.
            package: Its name, for what to do when Android refuses it.

        Raises:
            DeviceError: The device refuses it, or does not answer.
        """
        done = self._call("install", "-r", "-t", str(apk.absolute()), timeout=_INSTALL)
        if done.exit_code == 0 and "Failure [" not in done.output:
            return
        reason = re.search(r"INSTALL_[A-Z_]+", done.output)
        hint = _REFUSALS.get(reason.group() if reason else "", "its answer is below")
        raise DeviceError(
            f"the device {self.serial} does not install {apk.name}{f': {reason.group()}' if reason else ''}",
            hint=hint.replace("PACKAGE", package),
            details={"log_tail": tools.tail(done.output)},
        )

    def instrument(self, component: str, arguments: Mapping[str, str], timeout: float) -> Instrumented:
        """Run a test and wait for its end.

        Args:
            component: `package/class`; letters, digits, `.`, `_` and one `/` only, because a shell reads it.
            arguments: What the test is given; of the same letters.
            timeout: Seconds it may take.

        Raises:
            BundleError: It takes longer, or ends without a word.
        """
        words = [word for pair in arguments.items() for word in ("-e", *pair)]
        assert all(re.fullmatch(r"[\w./-]+", word, re.ASCII) for word in (component, *words))
        try:
            done = self._call("shell", "am", "instrument", "-w", "-r", *words, component, timeout=timeout)
        except DeviceError as error:
            raise BundleError(
                f"the test did not end on the device within {timeout:g} s",
                hint="give it more time with --timeout, or fewer runs with --runs",
                details=error.details,
            ) from error
        found = parse_instrumentation(done.stdout)
        if found.code is None and not found.missing and not found.crash:
            raise BundleError(
                f"the test ended without a result on the device {self.serial}",
                hint="keep the device connected and unlocked; what adb printed is below",
                details={"log_tail": tools.tail(done.output)},
            )
        return found

    def _call(self, *words: str, timeout: float) -> tools.Completed:
        return _run([str(self._program), "-s", self.serial, *words], timeout)


def _run(argv: list[str], timeout: float) -> tools.Completed:
    try:
        return tools.run(argv, timeout=timeout, name=ADB.name)
    except CompilerError as error:
        raise DeviceError(
            error.message, hint="run 'adb kill-server', connect the device again", details=error.details
        ) from error


def _devices(text: str) -> dict[str, str]:
    """Return the state of each device that `adb devices -l` lists."""
    found = {}
    for line in text.partition("List of devices attached")[2].splitlines():
        if match := re.match(r"(\S+)\s+(no permissions|\S+)", line):
            found[match.group(1)] = match.group(2)
    return found
