"""Verify an Android bundle on a device: its own test replays the vectors there, and the figures go into the manifest.

The test is `SelfTest` of the generated module, an instrumentation of the framework itself. Only Gradle can make an
installable package of it, so the package is installed already or given as a file; everything else is done here.
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

#: Runs that are timed when nobody says how many.
RUNS = 50
_SHOWN = 5


@dataclass(frozen=True)
class DeviceTest:
    """The test that a bundle carries for devices.

    Attributes:
        module: Name of the Gradle module.
        package: Name of the package that Gradle makes of it.
        component: What `am instrument` is given.
    """

    module: str
    package: str
    component: str

    def how_to_install(self, bundle: Path) -> str:
        """Return the commands that build and install it; the copy keeps Gradle's files out of the bundle."""
        return (
            f"cp -r '{bundle}/android' device-test && gradle -p device-test :{self.module}:installDebugAndroidTest; "
            f"or build it with :{self.module}:assembleDebugAndroidTest and give the .apk with --apk"
        )


@dataclass(frozen=True)
class DeviceResult:
    """What a device made of the vectors.

    Attributes:
        facts: What the device is.
        run: `accelerator`, `reasons`, `differences`, `runs`, `median_ms` and `p90_ms`, as in the manifest.
    """

    facts: DeviceFacts
    run: Mapping[str, Any]

    @property
    def wrong(self) -> list[Mapping[str, Any]]:
        """The differences that are larger than allowed."""
        return [entry for entry in self.run["differences"] if not _is_ok(entry)]

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's `device`."""
        return {**asdict(self.facts), **self.run}


def _is_ok(entry: Mapping[str, Any]) -> bool:
    return entry["largest"] is not None and entry["largest"] <= entry["allowed"]


def device_test(manifest: Mapping[str, Any]) -> DeviceTest:
    """Return the test that a bundle carries.

    Raises:
        UsageError: It carries none.
    """
    pattern = r"android/([a-z0-9-]+)/src/androidTest/(?:kotlin|java)/((?:[a-z][a-z0-9]*/)+)SelfTest\.(?:kt|java)"
    for path in manifest["files"]:
        if match := re.fullmatch(pattern, path):
            package = match.group(2).rstrip("/").replace("/", ".")
            return DeviceTest(match.group(1), f"{package}.test", f"{package}.test/{package}.SelfTest")
    if any(path.startswith("android/") for path in manifest["files"]):
        raise UsageError(
            "--device: this delivery has no test for a device",
            hint="build the model with --delivery module as well: loader, model and vectors are the same",
        )
    raise UsageError(
        "--device: this is no Android bundle",
        hint="on a Linux device install the bundle's package and run its --self-test there",
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
        path: The bundle's folder, for what to do.
        manifest: Its manifest, verified.
        serial: The device; empty for the only one.
        apk: The built test, which is installed first; None when the device has it.
        runs: How many runs are timed.
        timeout: Seconds the test may take.

    Raises:
        ToolMissingError: adb is not installed.
        DeviceError: No device, or the test is not on it.
        UsageError: The bundle has no such test, or it is not clear which device is meant.
        BundleError: The test dies, runs another model than the bundle's, or says nothing that makes sense.
    """
    test = device_test(manifest)
    adb = Adb.connect(serial)
    facts = adb.facts()
    if apk is not None:
        adb.install(apk, test.package)
    done = adb.instrument(test.component, {"runs": str(runs)}, timeout)
    if done.missing:
        raise DeviceError(
            f"the test of this bundle is not installed on {facts.title}: there is no {test.component}",
            hint=test.how_to_install(path),
        )
    report = _report(done, facts)
    host = next(entry for entry in manifest["model"]["files"] if entry["path"] == manifest["model"]["host"])
    if report.pop("model_sha256") != host["sha256"]:
        raise BundleError(
            f"the test on {facts.title} runs another model than this bundle's", hint=test.how_to_install(path)
        )
    names = [entry["name"] for entry in manifest["outputs"]]
    expected = list(product(range(manifest["golden"]["cases"]), names))
    if [(entry["case"], entry["output"]) for entry in report["differences"]] != expected:
        raise BundleError(
            f"the test on {facts.title} replayed other vectors than this bundle's: expected {len(expected)} results, "
            f"got {len(report['differences'])}",
            hint=test.how_to_install(path),
        )
    return DeviceResult(facts, report)


def _report(done: Instrumented, facts: DeviceFacts) -> dict[str, Any]:
    """Return what the test said.

    Raises:
        BundleError: It died, failed or said something else.
    """
    reason = done.results.get("error") or done.crash
    if reason:
        raise BundleError(
            f"the loader failed on {facts.title}: {reason.strip()[:400]}",
            hint="'adb logcat' of the device says more",
        )
    try:
        report = json.loads(done.results["edgepack"])
        found = list(faults(report, DEVICE_REPORT))
    except (KeyError, ValueError, RecursionError):
        report, found = {}, ["no report"]
    if found:
        raise BundleError(
            f"the test on {facts.title} answers otherwise than expected: {found[0]}",
            hint="build the bundle and its test again with this version of edgepack",
        )
    return dict(report)


def require_agreement(result: DeviceResult) -> None:
    """Refuse results that are further from the golden ones than is allowed.

    Raises:
        BundleError: Names case, output, difference and what is allowed; `details` have all figures.
    """
    wrong = result.wrong
    if not wrong:
        return
    lines = "; ".join(f"case {entry['case']} '{entry['output']}': {_size(entry)}" for entry in wrong[:_SHOWN])
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    where = f"{result.facts.title}, {result.run['accelerator']}"
    raise BundleError(
        f"on {where}, {len(wrong)} of {len(result.run['differences'])} outputs differ by more than is allowed: "
        f"{lines}{more}",
        hint="the manifest was left as it was; another scheme may suit the accelerator: float16 a GPU, int8 a DSP",
        details={"device": result.to_json()},
    )


def _size(entry: Mapping[str, Any]) -> str:
    largest = "not comparable" if entry["largest"] is None else f"{entry['largest']:g}"
    return f"{largest}, allowed {entry['allowed']:g}"


def record(path: Path, manifest: Mapping[str, Any], result: DeviceResult) -> None:
    """Write a device's figures into a bundle's manifest, in place of the last ones; no other file is touched.

    Raises:
        BundleError: The disk refuses; the old manifest stands.
    """
    replace_manifest(path, to_json_bytes({**manifest, "device": result.to_json()}))
