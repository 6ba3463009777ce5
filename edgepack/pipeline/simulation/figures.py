"""What is known of a compiled file on the simulated accelerator, with its JSON form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.pipeline.search.loss import to_json as judged_figures
from edgepack.runtime.metrics import Quality
from edgepack.runtime.runner import TensorInfo
from edgepack.runtime.signal import SignalMeter

Array = npt.NDArray[Any]

#: What every text about these figures says of them.
CAVEAT = "a simulation: that the chip gives the same bits is not documented"


#: Stands for a difference from a value that is not finite, such as one that half precision cannot represent.
LARGEST_RELATIVE = 1e6


@dataclass(frozen=True)
class Distance:
    """How far values are from others, over all runs and outputs.

    Attributes:
        steps: Largest difference of quantized values, in scale steps.
        relative: Largest difference of float values, as a fraction of the largest expected magnitude of a run.
        differing: Percentage of the elements that differ.
        snr_db: SNR of the worst output, dB; None when all are equal.
    """

    steps: int = 0
    relative: float = 0.0
    differing: float = 0.0
    snr_db: float | None = None

    @property
    def equal(self) -> bool:
        """True when no element differs."""
        return self.differing == 0.0

    def to_json(self) -> dict[str, Any]:
        """Return `simulation[].difference` of JSON documents, with rounded figures."""
        return {
            "steps": self.steps,
            "relative": float(f"{self.relative:.1e}"),
            "differing": round(self.differing, 3),
            "snr_db": None if self.snr_db is None else round(self.snr_db, 2),
        }

    def __str__(self) -> str:
        """Return the difference in words."""
        if self.equal:
            return "equal to the CPU's"
        largest = [f"{self.steps} step{'s' * (self.steps != 1)}"] if self.steps else []
        largest += [f"{self.relative:.1e} of the largest value"] if self.relative else []
        share = f"{self.differing:.1f}" if self.differing >= 0.1 else "under 0.1"
        return f"{share} % of the values differ, by at most {' and '.join(largest) or 'another number'}"


class DistanceMeter:
    """Accumulates the distance of outputs from expected ones.

    Args:
        outputs: The outputs.
    """

    def __init__(self, outputs: Sequence[TensorInfo]) -> None:
        self._outputs = tuple(outputs)
        self._meters = [SignalMeter(columns=False) for _ in self._outputs]
        self._steps, self._relative = 0, 0.0
        self._differing = self._elements = 0

    def add(self, expected: Sequence[Array], actual: Sequence[Array]) -> None:
        """Add the raw outputs of one run."""
        for info, meter, one, other in zip(self._outputs, self._meters, expected, actual, strict=True):
            before, after = one.astype(np.float64), other.astype(np.float64)
            same = (before == after) | (np.isnan(before) & np.isnan(after))
            self._elements += one.size
            self._differing += int(np.count_nonzero(~same))
            if not one.size:
                continue
            with np.errstate(invalid="ignore"):
                largest = float(np.max(np.where(same, 0.0, np.abs(after - before))))
            if info.quantized:
                self._steps = max(self._steps, int(largest))
            elif one.dtype.kind == "f":
                magnitude = float(np.abs(before[np.isfinite(before)]).max(initial=0.0))
                relative = largest / magnitude if magnitude else float(largest > 0.0)
                self._relative = max(self._relative, relative if relative < LARGEST_RELATIVE else LARGEST_RELATIVE)
            meter.add(before, after)

    def result(self) -> Distance:
        """Return the distance over all runs added."""
        snr = [value for meter in self._meters if (value := meter.result().snr_db) is not None]
        return Distance(
            self._steps,
            self._relative,
            100.0 * self._differing / max(1, self._elements),
            min(snr, default=None),
        )


@dataclass(frozen=True)
class SimulatedRun:
    """What the child process measured of one file.

    Attributes:
        samples: Number of samples that were run; 0 when only the golden inputs were.
        planned: Number of samples that were to be run: more than `samples` when the time ran out.
        quality: Figures of the simulated file against the float model, None without samples.
        cpu: Figures of the same file on the CPU, on the same samples.
        distance: Difference from the CPU, over the samples and the golden inputs.
        same_class: Percentage of the samples with the CPU's top-1 class, None when the outputs are no class scores.
        golden: Raw outputs for the golden inputs.
        seconds: Mean time of a run on the simulator, in seconds. It says nothing about the chip.
    """

    samples: int
    planned: int
    quality: Quality | None
    cpu: Quality | None
    distance: Distance
    same_class: float | None
    golden: tuple[tuple[Array, ...], ...] = field(repr=False)
    seconds: float = 0.0


@dataclass(frozen=True)
class DeviatingOp:
    """An op whose result on the simulated accelerator is not the CPU's for the same inputs, beyond rounding.

    Attributes:
        op: TFLite name.
        index: Index in the main graph.
        output: Name of its first output tensor.
        distance: How far its result is from the CPU's for the inputs that it had on the accelerator.
    """

    op: str
    index: int
    output: str
    distance: Distance

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `simulation[].ops` of JSON documents."""
        return {"op": self.op, "index": self.index, "output": self.output, "difference": self.distance.to_json()}

    @property
    def short(self) -> str:
        """The op with its difference and a short name: a fused op has the names of all its parts."""
        name = self.output.split(";")[0]
        shown = name if len(name) <= 60 else f"...{name[-57:]}"
        return f"{self.op} (op {self.index}, {shown}): {self.distance}"

    def __str__(self) -> str:
        """Return the op with its difference."""
        return f"{self.op} (op {self.index}, '{self.output}'): {self.distance}"


@dataclass(frozen=True)
class Simulation:
    """A compiled file on the simulated accelerator.

    Attributes:
        chip: The SoC that it was compiled for.
        architecture: The accelerator's architecture (`v73`), empty where the profile names none.
        file: Name of the compiled file.
        simulator: Name of the simulator.
        version: Its version.
        run: What was measured.
        deviating: Ops that differ from the CPU beyond rounding, the worst first.
        located: What is known about where the difference comes from, one sentence; empty where nothing was looked for.
    """

    chip: str
    architecture: str
    file: str
    simulator: str
    version: str
    run: SimulatedRun
    deviating: tuple[DeviatingOp, ...] = ()
    located: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `simulation` of JSON documents and of the manifest; it has no times."""
        return {
            "chip": self.chip,
            "architecture": self.architecture,
            "file": self.file,
            "simulator": self.simulator,
            "version": self.version,
            "caveat": CAVEAT,
            "samples": self.run.samples,
            "quality": _figures(self.run.quality),
            "cpu": _figures(self.run.cpu),
            "difference": self.run.distance.to_json(),
            "same_class": None if self.run.same_class is None else round(self.run.same_class, 3),
            "ops": [op.to_json() for op in self.deviating],
            "located": self.located,
        }

    @property
    def sentences(self) -> list[str]:
        """What people read below the figures: the difference from the CPU, the ops that cause it, the caveat."""
        run = self.run
        texts = [f"beside the CPU: {run.distance}"]
        if run.same_class is not None:
            texts.append(f"the class is the CPU's for {run.same_class:.2f} % of {run.samples} samples")
        if self.located:
            texts.append(self.located + ("; the largest:" if self.deviating else ""))
        texts += [f"  {op.short}" for op in self.deviating]
        return [*texts, CAVEAT]

    @property
    def title(self) -> str:
        """Chip, architecture, simulator and version."""
        place = f"{self.chip} ({self.architecture})" if self.architecture else self.chip
        return f"{place} in {self.simulator}, {self.version}"


#: Figures reported of both on the same samples; `quality` of the whole file has the rest.
_FIGURES = ("snr_db", "agreement", "top1", "top1_float", "max_error", "verdict")


def _figures(quality: Quality | None) -> dict[str, Any] | None:
    document = judged_figures(quality)
    return None if document is None else {name: document[name] for name in _FIGURES}
