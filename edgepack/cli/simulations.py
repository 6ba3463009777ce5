"""Figures of a simulated accelerator for people."""

from typing import TYPE_CHECKING

from edgepack.cli import output

if TYPE_CHECKING:
    from edgepack.pipeline.simulation.figures import DeviatingOp, Simulation
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
    for text in lines(simulation):
        output.out(output.wrap(f"{indent}  {text}", indent + "    "))


def lines(simulation: "Simulation") -> list[str]:
    """Return the sentences about a simulation."""
    from edgepack.pipeline.simulation.figures import CAVEAT

    run = simulation.run
    texts = [f"beside the CPU: {run.distance}"]
    if run.same_class is not None:
        texts.append(f"the class is the CPU's for {run.same_class:.2f} % of {run.samples} samples")
    if simulation.located:
        texts.append(simulation.located + ("; the largest:" if simulation.deviating else ""))
    texts += [f"  {_op(op)}" for op in simulation.deviating]
    return [*texts, CAVEAT]


def _known(quality: "Quality") -> bool:
    """Return whether there are figures beside the comparison with the CPU: a quantized file has no float model."""
    return (quality.snr_db, quality.agreement, quality.top1) != (None, None, None)


def _op(op: "DeviatingOp") -> str:
    # A fused op has the names of all its parts: the first one is enough to find it.
    name = op.output.split(";")[0]
    short = name if len(name) <= 60 else f"...{name[-57:]}"
    return f"{op.op} (op {op.index}, {short}): {op.distance}"


def _row(name: str, quality: "Quality") -> tuple[str, ...]:
    equal = quality.snr_db is None and quality.agreement == 100.0
    return (
        name,
        "-" if quality.top1 is None else f"{quality.top1:.2f}",
        "equal" if equal else "-" if quality.snr_db is None else f"{quality.snr_db:.1f}",
        "-" if quality.agreement is None else f"{quality.agreement:.2f}",
    )
