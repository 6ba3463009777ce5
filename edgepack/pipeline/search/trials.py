"""Trials: what became of each candidate, and which candidates are not worth trying after them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.errors import EdgepackError
from edgepack.findings import Report
from edgepack.pipeline.options import Limits, Progress
from edgepack.pipeline.search.candidates import Candidate
from edgepack.pipeline.search.loss import loss_text
from edgepack.pipeline.search.produce import QuantizedModel
from edgepack.runtime.metrics import Quality
from edgepack.schemes import get_scheme


@dataclass(frozen=True)
class Trial:
    """A candidate and its outcome.

    Attributes:
        candidate: The candidate.
        bytes: Size of the file as it ships, 0 when none was produced.
        gzip_bytes: Size compressed with gzip, level 9; None where no limit needs it.
        quality: Loss against the float model, None when nothing was measured.
        misses: Limits that are not met: `drop`, `size`, `download`, or `target` when the target refuses the file.
        why: Why it was not enough, or not tried; empty for an accepted one.
        error: Why no file was produced, or why the target refuses it.
    """

    candidate: Candidate
    bytes: int = 0
    gzip_bytes: int | None = None
    quality: Quality | None = None
    misses: frozenset[str] = field(default_factory=frozenset)
    why: str = ""
    error: EdgepackError | None = None

    @property
    def produced(self) -> bool:
        """True when there is a file."""
        return self.bytes > 0

    @property
    def accepted(self) -> bool:
        """True when there is a file that meets every limit."""
        return self.produced and not self.misses

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `ladder` in `build --json` and in the manifest."""
        figures = None if self.quality is None else self.quality.to_json()
        return {
            "rung": self.candidate.name,
            "scheme": self.candidate.rule.scheme,
            "tried": self.produced,
            "holds": self.accepted,
            "bytes": self.bytes if self.produced else None,
            "gzip_bytes": self.gzip_bytes if self.produced else None,
            "top1_float": None if figures is None else figures["top1_float"],
            "top1": None if figures is None else figures["top1"],
            "snr_db": None if figures is None else figures["snr_db"],
            "why": self.why,
        }

    def __str__(self) -> str:
        """Return the candidate with its figures on one line."""
        if not self.produced:
            return f"{self.candidate.name}: {self.why}"
        figures = [f"{self.bytes} bytes" + ("" if self.gzip_bytes is None else f", {self.gzip_bytes} compressed")]
        if self.quality is not None:
            figures.append(f"loses {loss_text(self.quality)}")
        return f"{self.candidate.name}: {', '.join(figures)}: {self.why or 'meets the limits'}"


@dataclass(frozen=True, kw_only=True)
class ProducedTrial(Trial):
    """A trial with a file.

    Attributes:
        quantized: The file, and how it was produced.
        shipped: The file as it goes into the bundle, with metadata.
        placement: Where the target runs each op.
        warnings: What was noticed while measuring.
    """

    quantized: QuantizedModel
    shipped: bytes
    placement: Report
    warnings: tuple[str, ...] = ()


def skipped(candidate: Candidate, reason: str) -> Trial:
    """Return the trial of a candidate that was not tried."""
    return Trial(candidate, why=f"not tried: {reason}")


def failed(candidate: Candidate, error: EdgepackError, path: Path) -> Trial:
    """Return the trial of a candidate whose file could not be produced; its text names the model without folders."""
    message = error.message.replace(str(path), path.name)
    return Trial(candidate, why=f"could not be produced: {message}", error=error)


def reason_to_skip(candidate: Candidate, before: Sequence[Trial], limits: Limits) -> str:
    """Return why a candidate is not worth trying after the trials before it, empty when it is."""
    if candidate.missing:
        return candidate.missing
    scheme = get_scheme(candidate.rule.scheme)
    # A file with single ops in float is larger than one without, and larger than one with ops in int16.
    produced = [trial for trial in before if trial.produced and trial.candidate.mixed is None]
    for trial in produced:
        other = get_scheme(trial.candidate.rule.scheme)
        same_types = (scheme.weights, scheme.activations) == (other.weights, other.activations)
        if "size" in trial.misses and (same_types or scheme.size_ratio > other.size_ratio):
            return f"its file is as large as that of {trial.candidate.name}, or larger"
        if "download" in trial.misses and scheme.size_ratio > other.size_ratio:
            return f"its file is larger than that of {trial.candidate.name}"
        if "target" in trial.misses and same_types:
            return f"the target refuses ops of {trial.candidate.name}"
        if "drop" in trial.misses and candidate.compresses and trial.candidate.recipe in {"qat", candidate.recipe}:
            return f"{trial.candidate.name} loses too much already"
    int8 = [
        trial
        for trial in produced
        if not trial.candidate.compresses and get_scheme(trial.candidate.rule.scheme).activations == "INT8"
    ]
    if candidate.compresses:
        if limits.download is None:
            return "it makes the compressed file smaller, and there is no --max-download"
        if int8 and all("download" not in trial.misses for trial in int8):
            return "the compressed file is small enough without it"
        return ""
    if scheme.activations == "INT8" and any("drop" not in trial.misses for trial in int8):
        return "its purpose is accuracy, which is not what is missing"
    return ""


class TrialReporter:
    """Reports each trial as one line; successive trials with the same reason share a line.

    Args:
        report: Called with each line.
        target: Target id, in front of each line.
    """

    def __init__(self, report: Progress, target: str) -> None:
        self._report = report
        self._target = target
        self._pending: list[Trial] = []

    def add(self, trial: Trial) -> None:
        """Take a trial; a produced file is reported at once."""
        if self._pending and (trial.produced or trial.why != self._pending[-1].why):
            self.flush()
        self._pending.append(trial)
        if trial.produced:
            self.flush()

    def flush(self) -> None:
        """Report what was held back."""
        if self._pending:
            names = [*(trial.candidate.name for trial in self._pending[:-1]), str(self._pending[-1])]
            self._report(f"{self._target}: {'; '.join(names)}")
        self._pending = []
