"""Figures of a simulated accelerator for people."""

from typing import TYPE_CHECKING

from edgepack.cli import output

if TYPE_CHECKING:
    from edgepack.pipeline.simulation.figures import Simulation
    from edgepack.runtime.metrics import Quality


def show(simulation: "Simulation", indent: str = "  ") -> None:
    """Print a simulation: its figures beside the CPU's, the difference, and the ops that differ."""
    run = simulation.run
    output.out(output.wrap(f"{indent}simulated: {simulation.title}", indent + "  "))
    if run.quality is not None and run.cpu is not None and _known(run.quality):
        rows = [_row("CPU", run.cpu), _row("simulated", run.quality)]
        header = (f"{run.samples} sample{'s' * (run.samples != 1)}", "top-1", "SNR dB", "agreement")
        for line in output.table(header, rows, right=(1, 2, 3)).splitlines():
            output.out(f"{indent}  {line}")
    for text in simulation.sentences:
        output.out(output.wrap(f"{indent}  {text}", indent + "    "))


def _known(quality: "Quality") -> bool:
    """Return whether there are figures beside the comparison with the CPU: a quantized file has no float model."""
    return (quality.snr_db, quality.agreement, quality.top1) != (None, None, None)


def _row(name: str, quality: "Quality") -> tuple[str, ...]:
    equal = quality.snr_db is None and quality.agreement == 100.0
    return (
        name,
        "-" if quality.top1 is None else f"{quality.top1:.2f}",
        "equal" if equal else "-" if quality.snr_db is None else f"{quality.snr_db:.1f}",
        "-" if quality.agreement is None else f"{quality.agreement:.2f}",
    )
