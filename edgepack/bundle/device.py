"""Verify an Android bundle on a device: its test replays the golden vectors, and the manifest records the figures.

The test is the generated module's `SelfTest`, which otherwise runs JUnit tests. Only Gradle can build an
installable package of it, so the package is either installed already or passed as a file; the rest is done here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from edgepack.bundle.adb import Adb, DeviceFacts, Instrumented
from edgepack.bundle.manifest import to_json_bytes
from edgepack.bundle.schema import DEVICE_REPORT, faults
from edgepack.bundle.write import replace_manifest
from edgepack.errors import BundleError, DeviceError, UsageError

#: Default number of timed runs.
RUNS = 50
_SHOWN = 5


@dataclass(frozen=True)
class DeviceTest:
    """The device test in a bundle.

    Attributes:
        module: Name of the Gradle module.
        package: Name of the package that Gradle builds from it.
        component: Component name for `am instrument`.
    """

    module: str
    package: str
    component: str

    def how_to_install(self, bundle: Path) -> str:
        """Return the commands that build and install the test, in a copy so that Gradle adds no files to the bundle."""
        return (
            f"cp -r '{bundle}/android' device-test && gradle -p device-test :{self.module}:installDebugAndroidTest; "
            f"or build it with :{self.module}:assembleDebugAndroidTest and pass the .apk with --apk"
        )


@dataclass(frozen=True)
class DeviceResult:
    """Result of the golden vectors on a device.

    Attributes:
        facts: Properties of the device.
        run: `accelerator`, `reasons`, `differences`, `runs`, `median_ms` and `p90_ms`, as in the manifest.
    """

    facts: DeviceFacts
    run: Mapping[str, Any]

    @property
    def wrong(self) -> list[Mapping[str, Any]]:
        """The differences beyond the tolerance."""
        return [entry for entry in self.run["differences"] if not _is_ok(entry)]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's `device`."""
        return {**asdict(self.facts), **self.run}


def _is_ok(entry: Mapping[str, Any]) -> bool:
    return entry["largest"] is not None and entry["largest"] <= entry["allowed"]


def device_test(manifest: Mapping[str, Any]) -> DeviceTest:
    """Return the device test in a bundle.

    Raises:
        UsageError: The bundle has none.
    """
    pattern = r"android/([a-z0-9-]+)/src/androidTest/(?:kotlin|java)/((?:[a-z][a-z0-9]*/)+)SelfTest\.(?:kt|java)"
    for path in manifest["files"]:
        if match := re.fullmatch(pattern, path):
            package = match.group(2).rstrip("/").replace("/", ".")
            return DeviceTest(match.group(1), f"{package}.test", f"{package}.test/{package}.SelfTest")
    if any(path.startswith("android/") for path in manifest["files"]):
        raise UsageError(
            "--device: this delivery has no device test",
            hint="also build the model with --delivery module: loader, model and vectors are the same",
        )
    raise UsageError(
        "--device: this is not an Android bundle",
        hint="on a Linux device, install the bundle's package and run its --self-test",
    )


def run_on_device(
    path: Path,
    manifest: Mapping[str, Any],
    *,
    serial: str = "",
    apk: Path | None = None,
    runs: int = RUNS,
    timeout: float = 300.0,
) -> DeviceResult:
    """Replay a bundle's golden vectors on a device and time runs there.

    Args:
        path: The bundle's folder, for hints.
        manifest: The bundle's manifest, verified.
        serial: Serial number of the device; empty for the only one.
        apk: The built test, which is installed first; None when the device has it already.
        runs: Number of timed runs.
        timeout: Time limit of the test, in seconds.

    Raises:
        ToolMissingError: adb is not installed.
        DeviceError: No device is connected, or the test is not installed on it.
        UsageError: The bundle has no device test, or several devices are connected and none is selected.
        BundleError: The test crashes, contains another model than the bundle, or returns an invalid report.
    """
    test = device_test(manifest)
    adb = Adb.connect(serial)
    facts = adb.facts()
    if apk is not None:
        adb.install(apk, test.package)
    instrumented = adb.instrument(test.component, {"runs": str(runs)}, timeout)
    if instrumented.missing:
        raise DeviceError(
            f"the test of this bundle is not installed on {facts.title}: {test.component} not found",
            hint=test.how_to_install(path),
        )
    report = _report(instrumented, facts)
    host = next(entry for entry in manifest["model"]["files"] if entry["path"] == manifest["model"]["host"])
    if report.pop("model_sha256") != host["sha256"]:
        raise BundleError(
            f"the test on {facts.title} contains another model than this bundle", hint=test.how_to_install(path)
        )
    names = [entry["name"] for entry in manifest["outputs"]]
    expected = list(product(range(manifest["golden"]["cases"]), names))
    if [(entry["case"], entry["output"]) for entry in report["differences"]] != expected:
        raise BundleError(
            f"the test on {facts.title} contains other vectors than this bundle: expected {len(expected)} results, "
            f"got {len(report['differences'])}",
            hint=test.how_to_install(path),
        )
    return DeviceResult(facts, report)


def _report(instrumented: Instrumented, facts: DeviceFacts) -> dict[str, Any]:
    """Return the test's report.

    Raises:
        BundleError: The test crashed or failed, or its report is invalid.
    """
    reason = instrumented.results.get("error") or instrumented.crash
    if reason:
        raise BundleError(
            f"the loader failed on {facts.title}: {reason.strip()[:400]}",
            hint="'adb logcat' shows the details",
        )
    try:
        report = json.loads(instrumented.results["edgepack"])
        problems = list(faults(report, DEVICE_REPORT))
    except (KeyError, ValueError, RecursionError):
        report, problems = {}, ["no report"]
    if problems:
        raise BundleError(
            f"the test on {facts.title} returned an invalid report: {problems[0]}",
            hint="rebuild the bundle and its test with this version of edgepack",
        )
    return dict(report)


def require_agreement(result: DeviceResult) -> None:
    """Refuse results whose difference from the golden ones exceeds the tolerance.

    Raises:
        BundleError: With case, output, difference and tolerance; `details` has all figures.
    """
    wrong = result.wrong
    if not wrong:
        return
    lines = "; ".join(f"case {entry['case']} '{entry['output']}': {_size(entry)}" for entry in wrong[:_SHOWN])
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    where = f"{result.facts.title}, {result.run['accelerator']}"
    raise BundleError(
        f"on {where}, {len(wrong)} of {len(result.run['differences'])} outputs differ by more than the tolerance: "
        f"{lines}{more}",
        hint="the manifest is unchanged; another scheme may suit the accelerator: float16 for a GPU, int8 for a DSP",
        details={"device": result.to_json()},
    )


def _size(entry: Mapping[str, Any]) -> str:
    largest = "not comparable" if entry["largest"] is None else f"{entry['largest']:g}"
    return f"{largest}, allowed {entry['allowed']:g}"


def record(path: Path, manifest: Mapping[str, Any], result: DeviceResult) -> None:
    """Write a device's figures into a bundle's manifest, replacing earlier ones; no other file changes.

    Raises:
        BundleError: Writing fails; the old manifest stays.
    """
    replace_manifest(path, to_json_bytes({**manifest, "device": result.to_json()}))
