"""`edgepack verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output
from edgepack.errors import BundleError, EdgepackError, UsageError

if TYPE_CHECKING:
    from edgepack.bundle.device import DeviceResult
    from edgepack.bundle.verify import VerifyResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify")(verify)


def verify(
    bundle: Path = typer.Argument(..., help="Folder of a bundle.", show_default=False),
    device: bool = typer.Option(
        False, "--device", help="Also run an Android bundle's self-test on a device, over adb."
    ),
    serial: str = typer.Option(
        "", "--serial", help="Which device, as `adb devices` names it.", show_default="the only one"
    ),
    apk: Path | None = typer.Option(
        None, "--apk", help="The bundle's test, built with Gradle; installed first.", show_default="installed already"
    ),
    runs: int = typer.Option(50, "--runs", help="How many runs the device times.", min=1, max=100_000),
    timeout: float = typer.Option(300.0, "--timeout", help="Seconds that the device may take.", min=1.0),
    json_: bool = arguments.JSON,
) -> int:
    """Recompute a bundle's hashes and run its golden vectors, here and on a device."""
    from edgepack.bundle.verify import verify as run

    if not device and (serial or apk is not None):
        raise UsageError("--serial and --apk are for --device", hint="add --device")
    if apk is not None:
        arguments.need_path(apk)
    result = run(arguments.need_path(bundle))
    error: EdgepackError | None = None
    if not result.ok:
        count = len(result.problems)
        error = BundleError(
            f"'{bundle}' is not what its manifest says: {count} problem{'' if count == 1 else 's'}",
            hint=result.problems[0].fix,
        )
    found = None
    if device and error is None:
        try:
            found = _on_device(bundle, result, serial, apk, runs, timeout)
        except EdgepackError as problem:
            error = problem
    if json_:
        entry = result.to_json() | ({} if found is None else {"device": found.to_json()})
        output.document("verify", [entry], error)
        return error.exit_code if error else 0
    _print(result)
    if found is not None:
        _print_device(found)
    elif result.ok:
        _print_last_device(result.manifest)
    if error is not None:
        output.error(error)
        return error.exit_code
    vectors = len({difference.case for difference in result.golden})
    output.out(f"sound: {result.files} files, {vectors} golden vectors")
    return 0


def _on_device(
    bundle: Path, result: "VerifyResult", serial: str, apk: Path | None, runs: int, timeout: float
) -> "DeviceResult":
    from edgepack.bundle.device import record, require_agreement, run_on_device

    output.progress("running the self-test on the device")
    found = run_on_device(bundle, result.manifest, serial=serial, apk=apk, runs=runs, timeout=timeout)
    require_agreement(found)
    record(bundle, result.manifest, found)
    return found


def _print(result: "VerifyResult") -> None:
    for problem in result.problems:
        output.out(output.wrap(f"{problem.path}: {problem.what}"))
        output.out(output.wrap(f"  fix: {problem.fix}", "    "))
    vectors = len({difference.case for difference in result.golden})
    if result.golden:
        largest = max(difference.largest for difference in result.golden)
        kind = "the kind of machine that built it" if result.tolerance == "same" else "another kind of machine"
        output.out(output.wrap(f"golden vectors: {vectors} run, largest difference {largest:g} (on {kind})"))
    for note in result.notes:
        output.out(output.wrap(f"note: {note}"))


def _print_last_device(manifest: Mapping[str, Any]) -> None:
    """Say what an earlier --device found; the manifest has passed its schema."""
    device = manifest.get("device")
    if device is not None:
        where = f"{device['manufacturer']} {device['model']} ({device['soc']}, Android {device['android']})"
        times = f"median {device['median_ms']:.3g} ms of {device['runs']} runs"
        output.out(output.wrap(f"measured before on {where}: {device['accelerator']}, {times}"))


def _print_device(found: "DeviceResult") -> None:
    run = found.run
    output.out(output.wrap(f"device: {found.facts.title}, ran on {run['accelerator']}"))
    for reason in run["reasons"]:
        output.out(output.wrap(f"  not on {reason}", "    "))
    if run["differences"]:
        worst = max(run["differences"], key=lambda entry: entry["largest"])
        cases = len({entry["case"] for entry in run["differences"]})
        output.out(
            f"  golden vectors: {cases} run, largest difference {worst['largest']:g} (allowed {worst['allowed']:g})"
        )
    output.out(f"  median {run['median_ms']:.3g} ms, p90 {run['p90_ms']:.3g} ms of {run['runs']} runs")
