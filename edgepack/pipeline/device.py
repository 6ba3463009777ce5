"""The verification of an Android bundle on a device, whose figures go into the bundle's manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.pipeline.options import Progress, silent

if TYPE_CHECKING:
    from edgepack.bundle.device import DeviceResult
    from edgepack.bundle.verify_result import VerifyResult


def verify_on_device(
    bundle: Path,
    result: "VerifyResult",
    *,
    serial: str = "",
    apk: Path | None = None,
    runs: int = 50,
    timeout: float = 300.0,
    progress: Progress = silent,
    notice: Progress = silent,
) -> "DeviceResult":
    """Run the self-test of a verified bundle on a device.

    Args:
        bundle: The bundle's folder.
        result: Its verification.
        serial: Serial number of the device, empty for the only one.
        apk: The self-test, built with Gradle, to install first; None when it is installed.
        runs: Number of timed runs.
        timeout: Time limit in seconds.
        progress: Called with a sentence about each step that takes time.
        notice: Called with what the user should know.

    Raises:
        DeviceError: There is no such device, or it has no self-test.
        BundleError: The device's outputs differ from the golden vectors.
    """
    from edgepack.bundle.device import record, require_agreement, run_on_device

    progress("running the self-test on the device")
    device_result = run_on_device(bundle, result.manifest, serial=serial, apk=apk, runs=runs, timeout=timeout)
    require_agreement(device_result)
    if result.manifest.get("signature") is None:
        record(bundle, result.manifest, device_result)
    else:
        notice("the bundle is signed: the figures of the device are not written into its manifest")
    return device_result
