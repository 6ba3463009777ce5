"""`edgepack verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.errors import EdgepackError, UsageError

if TYPE_CHECKING:
    from edgepack.bundle.device import DeviceResult
    from edgepack.bundle.verify_result import VerifyResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", cls=panels.Command)(verify)


def verify(
    bundle: Path = typer.Argument(..., metavar="BUNDLE", help="Folder of a bundle.", show_default=False),
    key: Path | None = arguments.option(
        panels.SIGNATURE, "--key", "FILE", "Require a signature that this public key (PEM) verifies."
    ),
    identity: str = arguments.option(
        panels.SIGNATURE,
        "--identity",
        "ID",
        "Require a Sigstore signature of this identity; needs --issuer.",
        default="",
    ),
    issuer: str = arguments.option(
        panels.SIGNATURE,
        "--issuer",
        "URL",
        "OpenID Connect provider that vouches for the identity.",
        default="",
    ),
    evaluation: str = arguments.option(
        panels.DATA,
        "--eval",
        "SRC",
        "The labelled samples that the build measured on: measure the accuracy again.",
        default="",
    ),
    device: bool = arguments.flag(
        panels.DEVICE, "--device", "Also run an Android bundle's self-test on a device, over adb."
    ),
    serial: str = arguments.option(
        panels.DEVICE,
        "--serial",
        "SERIAL",
        "Serial number of the device, as `adb devices` lists it.",
        default="",
        show_default="the only device",
    ),
    apk: Path | None = arguments.option(
        panels.DEVICE,
        "--apk",
        "FILE",
        "The bundle's self-test, built with Gradle, to install first.",
        show_default="already installed",
    ),
    runs: int = arguments.option(
        panels.DEVICE, "--runs", "N", "Number of timed runs on the device.", default=50, min=1, max=100_000
    ),
    timeout: float = arguments.option(
        panels.RUN,
        "--timeout",
        "SECONDS",
        "Time limit of the golden vectors, and of the self-test on the device.",
        default=300.0,
        min=1.0,
    ),
    memory_limit: str = arguments.MEMORY_LIMIT,
    json_: bool = arguments.JSON,
) -> int:
    """Verify the signature, the manifest, the hashes and the golden vectors of a bundle, here and on a device."""
    from edgepack.bundle.signers import Verifier
    from edgepack.child import Worker
    from edgepack.limits import parse_memory
    from edgepack.pipeline.device import verify_on_device
    from edgepack.pipeline.verify import mismatch
    from edgepack.pipeline.verify import verify as run

    if not device and (serial or apk is not None):
        raise UsageError("--serial and --apk need --device", hint="add --device")
    if apk is not None:
        arguments.require_path(apk)
    signer = Verifier(key, identity, issuer) if key is not None or identity or issuer else None
    with Worker(memory=parse_memory(memory_limit) if memory_limit else None) as worker:
        result = run(
            arguments.require_path(bundle),
            signer=signer,
            evaluation=evaluation,
            worker=worker,
            timeout=timeout,
            progress=arguments.progress(json_),
        )
    error: EdgepackError | None = mismatch(bundle, result)
    device_result = None
    if device and error is None:
        try:
            device_result = verify_on_device(
                bundle,
                result,
                serial=serial,
                apk=apk,
                runs=runs,
                timeout=timeout,
                progress=output.progress,
                notice=output.warn,
            )
        except EdgepackError as problem:
            error = problem
    if json_:
        entry = result.to_json() | ({} if device_result is None else {"device": device_result.to_json()})
        output.document("verify", [entry], error)
        return error.exit_code if error else 0
    _print(result)
    if device_result is not None:
        _print_device(device_result)
    elif result.ok:
        _print_recorded_device(result.manifest)
    if error is not None:
        output.error(error)
        return error.exit_code
    vectors = len({difference.case for difference in result.golden})
    output.out(f"verified: {result.files} files, {vectors} golden vectors")
    return 0


def _print(result: "VerifyResult") -> None:
    output.out(output.wrap(_signature_text(result)))
    for problem in result.problems:
        output.out(output.wrap(f"{problem.path}: {problem.what}"))
        output.out(output.wrap(f"  fix: {problem.fix}", "    "))
    vectors = len({difference.case for difference in result.golden})
    if result.golden:
        largest = max(difference.largest for difference in result.golden)
        kind = "the same kind of machine as" if result.tolerance == "same" else "another kind of machine than"
        output.out(
            output.wrap(f"golden vectors: {vectors} run, largest difference {largest:g} (on {kind} the one that built)")
        )
    for note in result.notes:
        output.out(output.wrap(f"note: {note}"))


def _signature_text(result: "VerifyResult") -> str:
    """Return what is known of the signature, for people."""
    return {
        "unsigned": "unsigned: nothing shows who made this bundle, or that its figures are true",
        "not-checked": "signed, not checked: give --key, or --identity and --issuer",
        "valid": "signature: valid, and it covers every file",
        "invalid": "signature: NOT VALID",
    }[result.signature.value]


def _print_recorded_device(manifest: Mapping[str, Any]) -> None:
    """Print the result of an earlier --device run; the manifest conforms to its schema here."""
    device = manifest.get("device")
    if device is not None:
        where = f"{device['manufacturer']} {device['model']} ({device['soc']}, Android {device['android']})"
        times = f"median {device['median_ms']:.3g} ms of {device['runs']} runs"
        output.out(output.wrap(f"measured earlier on {where}: {device['accelerator']}, {times}"))


def _print_device(result: "DeviceResult") -> None:
    run = result.run
    output.out(output.wrap(f"device: {result.facts.title}, ran on {run['accelerator']}"))
    for reason in run["reasons"]:
        output.out(output.wrap(f"  not on {reason}", "    "))
    if run["differences"]:
        worst = max(run["differences"], key=lambda entry: entry["largest"])
        cases = len({entry["case"] for entry in run["differences"]})
        output.out(
            f"  golden vectors: {cases} run, largest difference {worst['largest']:g} (allowed {worst['allowed']:g})"
        )
    output.out(f"  median {run['median_ms']:.3g} ms, p90 {run['p90_ms']:.3g} ms of {run['runs']} runs")
