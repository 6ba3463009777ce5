"""`edgepack verify`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgepack.cli import arguments, output
from edgepack.cli import help as panels
from edgepack.cli.cell_runs import run_shown
from edgepack.cli.flags import Given
from edgepack.cli.subjects import Paths, Selection, find_subject, looks_like_path, shown_path, worst
from edgepack.errors import EdgepackError, UsageError

if TYPE_CHECKING:
    from edgepack.bundle.device import DeviceResult
    from edgepack.bundle.verify_result import VerifyResult
    from edgepack.project.cells import Cell


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("verify", cls=panels.Command)(verify)


def verify(
    words: list[str] | None = typer.Argument(
        None,
        metavar="[BUNDLE|NAME]...",
        help="Folder of a bundle; or names of models and cells (NAME/TARGET) of the project file. Without any, all "
        "bundles of the project.",
        show_default=False,
    ),
    key: Path | None = arguments.KEY,
    identity: str = arguments.IDENTITY,
    issuer: str = arguments.ISSUER,
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
    project: Path | None = arguments.PROJECT,
    jobs: int = arguments.JOBS,
    memory_limit: str | None = arguments.MEMORY_LIMIT,
    json_: bool = arguments.JSON,
) -> int:
    """Verify the signature, the manifest, the hashes and the golden vectors of a bundle, here and on a device."""
    from edgepack.bundle.signers import Verifier
    from edgepack.child import Worker
    from edgepack.limits import parse_memory
    from edgepack.pipeline.device import verify_on_device
    from edgepack.pipeline.verify import verify as run
    from edgepack.project.cell_work import verify_cell
    from edgepack.project.graph import Kind

    if not device and (serial or apk is not None):
        raise UsageError("--serial and --apk need --device", hint="add --device")
    if apk is not None:
        arguments.require_path(apk)
    subject = find_subject(words or [], project, Given({}), Paths("BUNDLE", looks_like_path, _is_bundle, cell_bundle))
    if isinstance(subject, Selection) and len(subject.cells) > 1 and (serial or apk is not None):
        raise UsageError("--serial and --apk are for one bundle", hint="name one cell: MODEL/TARGET")
    signer = Verifier(key, identity, issuer) if key is not None or identity or issuer else None
    memory = parse_memory(memory_limit) if memory_limit else None

    def conclude(bundle: Path, result: "VerifyResult") -> _Check:
        def on_device() -> "DeviceResult":
            return verify_on_device(
                bundle,
                result,
                serial=serial,
                apk=apk,
                runs=runs,
                timeout=timeout,
                progress=output.progress,
                notice=output.warn,
            )

        return _conclude(bundle, result, on_device if device else None)

    checks: list[_Check] = []
    if isinstance(subject, Path):
        arguments.refuse_jobs(jobs)
        with Worker(memory=memory) as worker:
            result = run(
                arguments.require_path(subject),
                signer=signer,
                evaluation=evaluation,
                worker=worker,
                timeout=timeout,
                progress=arguments.progress(json_),
            )
        checks.append(conclude(subject, result))
    else:
        options = {"signer": signer, "evaluation": evaluation, "timeout": timeout, "memory": memory}
        for done in run_shown(subject, Kind.VERIFY, verify_cell, lambda cell: options, jobs, as_json=json_):
            found = done.result
            check = _Check(error=done.error) if found is None else conclude(cell_bundle(done.cell), found)
            checks.append(replace(check, cell=done.cell.id))
    error = worst([entry.error for entry in checks])
    if json_:
        more = {"project": subject.project.name} if isinstance(subject, Selection) else {}
        output.document("verify", [entry.to_json() for entry in checks], error, **more)
        return error.exit_code if error else 0
    for position, entry in enumerate(checks):
        if entry.cell:
            output.out(f"{chr(10) if position else ''}{entry.cell}:")
        _print_check(entry)
    return error.exit_code if error else 0


@dataclass(frozen=True)
class _Check:
    """The verification of one bundle.

    Attributes:
        cell: Id of the project's cell, empty for a bundle that was named by its path.
        result: What the files show, None when they could not be read.
        device: What the run on a device showed, None without one.
        error: Why the bundle is refused, None when it is not.
    """

    cell: str = ""
    result: "VerifyResult | None" = None
    device: "DeviceResult | None" = None
    error: EdgepackError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `verify --json`."""
        entry: dict[str, Any] = {"cell": self.cell} if self.cell else {}
        if self.result is not None:
            entry |= self.result.to_json()
        elif self.error is not None:
            entry |= {"error": self.error.to_json()}
        return entry if self.device is None else entry | {"device": self.device.to_json()}


def _conclude(bundle: Path, result: "VerifyResult", on_device: "Callable[[], DeviceResult] | None") -> _Check:
    """Return the verification of a bundle, with a run on a device where the files are right."""
    from edgepack.pipeline.verify import mismatch

    error: EdgepackError | None = mismatch(bundle, result)
    device = None
    if error is None and on_device is not None:
        try:
            device = on_device()
        except EdgepackError as problem:
            error = problem
    return _Check(result=result, device=device, error=error)


def cell_bundle(cell: "Cell") -> Path:
    """Return the folder of a cell's bundle."""
    from edgepack.project.cell_work import bundle_of

    return shown_path(bundle_of(cell))


def _is_bundle(path: Path) -> bool:
    return (path / "manifest.json").is_file()


def _print_check(check: _Check) -> None:
    if check.result is not None:
        _print(check.result)
        if check.device is not None:
            _print_device(check.device)
        elif check.result.ok:
            _print_recorded_device(check.result.manifest)
    if check.error is not None:
        output.error(check.error)
    elif check.result is not None:
        vectors = len({difference.case for difference in check.result.golden})
        output.out(f"verified: {check.result.files} files, {vectors} golden vectors")


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
