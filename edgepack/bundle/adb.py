"""Android's adb: lists devices, reads their properties, and runs an instrumentation test on one of them.

Every call has a time limit. `tests/bundle/adb_standin.py` records the output of adb and Android and prints the same.
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

#: Time limit of queries, in seconds; starting adb's server takes a few.
_QUERY = 30.0
_INSTALL = 180.0
_LONGEST_FACT = 100

#: State in which adb reports that a device cannot be used -> hint.
_STATES = {
    "unauthorized": "unlock the device and allow USB debugging for this computer, then run this again",
    "authorizing": "wait until the device has asked for permission, allow it, then run this again",
    "connecting": "wait a moment, then run this again",
    "offline": "unplug the device and plug it in again, or run 'adb reconnect offline'",
    "no permissions": "give your user access to USB devices (on Debian and Ubuntu the package "
    "android-sdk-platform-tools-common and the group plugdev), then run 'adb kill-server'",
}
#: Error code with which Android refuses a package -> hint.
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
    """Properties of a device; none identifies an individual device.

    Attributes:
        manufacturer: `Google`.
        model: `Pixel 7`.
        android: Release, `14`.
        sdk: API level, 0 when the device does not report it.
        soc: Chip, as Android 12 and later report it; the board's platform on older ones.
        abi: Preferred instruction set, `arm64-v8a`.
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
    """Output of `am instrument`.

    Attributes:
        results: Results with which the test finished.
        statuses: Statuses that the test, or Android in its place, reported before.
        code: Code with which it finished, -1 for success; None when it did not finish.
    """

    results: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None

    @property
    def missing(self) -> bool:
        """True when the test is not installed on the device."""
        return self.statuses.get("Error", "").startswith("Unable to find instrumentation")

    @property
    def crash(self) -> str:
        """Android's message about a test that crashed; empty for one that did not."""
        return self.results.get("longMsg") or self.results.get("shortMsg", "")


def parse_instrumentation(output: str) -> Instrumented:
    """Parse the output of `am instrument -r`; a value may span several lines."""
    values: dict[str, dict[str, str]] = {"RESULT": {}, "STATUS": {}}
    code: int | None = None
    kind = key = ""
    for line in output.replace("\r\n", "\n").split("\n"):
        if match := re.match(r"INSTRUMENTATION_(RESULT|STATUS): ([^=]+)=(.*)", line, re.DOTALL):
            kind, key = match.group(1), match.group(2)
            values[kind][key] = match.group(3)
        elif line.startswith("INSTRUMENTATION_"):
            kind = key = ""
            if match := re.fullmatch(r"INSTRUMENTATION_CODE: (-?\d+)\s*", line):
                code = int(match.group(1))
        elif key:
            values[kind][key] += f"\n{line}"
    return Instrumented(values["RESULT"], values["STATUS"], code)


class Adb:
    """One device, accessed through adb.

    Args:
        program: Path of adb.
        serial: The device's serial number, as `adb devices` lists it.
    """

    def __init__(self, program: Path, serial: str) -> None:
        self._program = program
        self.serial = serial

    @classmethod
    def connect(cls, serial: str = "") -> "Adb":
        """Return the device with a serial number, or the only connected one.

        Args:
            serial: As `adb devices` lists it; empty for the variable ANDROID_SERIAL, or the only device.

        Raises:
            ToolMissingError: adb is not installed.
            DeviceError: No device is connected, or the selected one cannot be used.
            UsageError: Several devices and no serial number, or one that no device has.
        """
        program = tools.locate(ADB)
        if program is None:
            raise ToolMissingError("--device requires adb, which is not installed", hint=ADB.install)
        completed = _run([str(program), "devices", "-l"], _QUERY)
        if completed.exit_code != 0:
            raise DeviceError(
                f"'adb devices' exited with code {completed.exit_code}",
                hint="run 'adb kill-server' and try again",
                details={"log_tail": tools.tail(completed.output)},
            )
        devices = _devices(completed.stdout)
        serial = serial or os.environ.get("ANDROID_SERIAL", "")
        listed = ", ".join(f"{name} ({state})" for name, state in devices.items())
        if not devices:
            raise DeviceError(
                "adb lists no device",
                hint="connect one with USB debugging enabled, or start an emulator; 'adb devices' lists it",
            )
        if serial and serial not in devices:
            raise UsageError(f"--serial: adb lists no device '{serial}'", hint=f"it lists {listed}")
        usable = [name for name, state in devices.items() if state == "device"]
        if not serial and len(usable) > 1:
            raise UsageError(f"adb lists {len(usable)} devices: {listed}", hint="select one with --serial")
        serial = serial or (usable or list(devices))[0]
        if devices[serial] != "device":
            state = devices[serial]
            raise DeviceError(
                f"the device {serial} cannot be used: adb reports '{state}'",
                hint=_STATES.get(state, "start Android on the device, then run this again"),
            )
        return cls(program, serial)

    def facts(self) -> DeviceFacts:
        """Read the device's properties.

        Raises:
            DeviceError: The device does not answer.
        """
        completed = self._call("shell", "getprop", timeout=_QUERY)
        properties = dict(re.findall(r"^\[([^\]]+)\]: \[([^\]\r\n]*)\]", completed.stdout, re.MULTILINE))
        if completed.exit_code != 0 or not properties:
            raise DeviceError(
                f"the device {self.serial} does not report its properties",
                hint="check that 'adb shell getprop' works",
                details={"log_tail": tools.tail(completed.output)},
            )

        def fact(*keys: str) -> str:
            text = next((properties[key] for key in keys if properties.get(key)), "unknown")
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
        """Install a package; it replaces an older one of the same name.

        Args:
            apk: The package's file.
            package: The package's name, for hints when Android refuses it.

        Raises:
            DeviceError: The device refuses the package, or does not answer.
        """
        completed = self._call("install", "-r", "-t", str(apk.absolute()), timeout=_INSTALL)
        if completed.exit_code == 0 and "Failure [" not in completed.output:
            return
        reason = re.search(r"INSTALL_[A-Z_]+", completed.output)
        hint = _REFUSALS.get(reason.group() if reason else "", "see the output of adb below")
        raise DeviceError(
            f"the device {self.serial} refuses to install {apk.name}{f': {reason.group()}' if reason else ''}",
            hint=hint.replace("PACKAGE", package),
            details={"log_tail": tools.tail(completed.output)},
        )

    def instrument(self, component: str, arguments: Mapping[str, str], timeout: float) -> Instrumented:
        """Run an instrumentation test and wait for its end.

        Args:
            component: `package/class`; letters, digits, `.`, `_` and one `/` only, because a shell parses it.
            arguments: Arguments of the test; the same characters.
            timeout: Time limit in seconds.

        Raises:
            BundleError: The test exceeds the time limit, or ends without a result.
        """
        words = [word for pair in arguments.items() for word in ("-e", *pair)]
        assert all(re.fullmatch(r"[\w./-]+", word, re.ASCII) for word in (component, *words))
        try:
            completed = self._call("shell", "am", "instrument", "-w", "-r", *words, component, timeout=timeout)
        except DeviceError as error:
            raise BundleError(
                f"the test on the device exceeded its time limit of {timeout:g} s",
                hint="raise the limit with --timeout, or lower the number of runs with --runs",
                details=error.details,
            ) from error
        instrumented = parse_instrumentation(completed.stdout)
        if instrumented.code is None and not instrumented.missing and not instrumented.crash:
            raise BundleError(
                f"the test ended without a result on the device {self.serial}",
                hint="keep the device connected and unlocked; see the output of adb below",
                details={"log_tail": tools.tail(completed.output)},
            )
        return instrumented

    def _call(self, *words: str, timeout: float) -> tools.Completed:
        return _run([str(self._program), "-s", self.serial, *words], timeout)


def _run(argv: list[str], timeout: float) -> tools.Completed:
    try:
        return tools.run(argv, timeout=timeout, name=ADB.name)
    except CompilerError as error:
        raise DeviceError(
            error.message, hint="run 'adb kill-server' and connect the device again", details=error.details
        ) from error


def _devices(text: str) -> dict[str, str]:
    """Return the state of each device that `adb devices -l` lists."""
    devices = {}
    for line in text.partition("List of devices attached")[2].splitlines():
        if match := re.match(r"(\S+)\s+(no permissions|\S+)", line):
            devices[match.group(1)] = match.group(2)
    return devices
