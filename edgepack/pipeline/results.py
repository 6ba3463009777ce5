"""What a build returns for each target, and its JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.errors import EdgepackError
from edgepack.findings import Report
from edgepack.pipeline.search.loss import to_json as judged_figures
from edgepack.pipeline.simulation.figures import Simulation
from edgepack.repair import Rewrite
from edgepack.runtime.metrics import Quality
from edgepack.runtime.postprocessing import PostprocessStep

#: `compile` of a result whose target did not come as far.
NOT_COMPILED: Mapping[str, Any] = {"status": "skipped", "tool": "", "version": "", "reason": ""}


@dataclass(frozen=True)
class TargetResult:
    """One target of a build; of a failed one, as much as was known when it failed.

    Attributes:
        target: Target id.
        scheme: Scheme id, empty before one is chosen.
        reason: Why this scheme, one sentence.
        tool: What wrote the quantized file.
        model: The file as it ships, None before one is chosen.
        model_name: Its path in the bundle.
        model_sha256: Its SHA-256, empty before the file is complete.
        float_bytes: Size of the float .tflite.
        improvements: PTQ steps with their figures, None where none ran.
        repairs: Rewrites of refused ops that moved ops onto the accelerator.
        postprocessing: Last steps that are left to the loader.
        report: Placement of every op.
        compile: `{status, tool, version, reason}`.
        latency: Estimated latency on the accelerator, None without an estimate.
        quality: Loss against the float model, None without samples.
        simulation: Compiled files on the simulated accelerator, by chip; empty without --simulate.
        ladder: One entry per trial of a search; empty where the first candidate was taken and there were no limits.
        bundle: Where the bundle is, None when none was written.
        warnings: What the user should know.
        error: Why the build of this target failed.
        seconds: Seconds of each stage.
    """

    target: str
    scheme: str = ""
    reason: str = ""
    tool: str = ""
    model: bytes | None = None
    model_name: str = ""
    model_sha256: str = ""
    float_bytes: int = 0
    improvements: Mapping[str, Any] | None = None
    repairs: tuple[Rewrite, ...] = ()
    postprocessing: tuple[PostprocessStep, ...] = ()
    report: Report | None = None
    compile: Mapping[str, Any] = field(default_factory=lambda: NOT_COMPILED)
    latency: Mapping[str, Any] | None = None
    quality: Quality | None = None
    simulation: tuple[Simulation, ...] = ()
    ladder: tuple[Mapping[str, Any], ...] = ()
    bundle: Path | None = None
    warnings: tuple[str, ...] = ()
    error: EdgepackError | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` of `build --json`."""
        return {
            "target": self.target,
            "ok": self.error is None,
            "error": None if self.error is None else self.error.to_json(),
            "scheme": self.scheme,
            "reason": self.reason,
            "tool": self.tool,
            "model": None
            if self.model is None or not self.model_sha256
            else {"path": self.model_name, "bytes": len(self.model), "sha256": self.model_sha256},
            "float_bytes": self.float_bytes,
            "improvements": self.improvements,
            "repairs": [rewrite.to_json() for rewrite in self.repairs],
            "tail": [step.to_json() for step in self.postprocessing],
            "summary": None if self.report is None else self.report.summary,
            "compile": self.compile,
            "latency": self.latency,
            "quality": judged_figures(self.quality),
            "simulation": [simulation.to_json() for simulation in self.simulation],
            "ladder": list(self.ladder),
            "bundle": None if self.bundle is None else str(self.bundle),
            "warnings": list(self.warnings),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


@dataclass(frozen=True)
class BuildResult:
    """A whole build.

    Attributes:
        results: One entry per target, in the order of the request.
        notes: Assumptions about the model and the samples.
        source: `{format, bytes, sha256}` of the user's model.
    """

    results: tuple[TargetResult, ...]
    notes: tuple[str, ...]
    source: Mapping[str, Any]

    @property
    def error(self) -> EdgepackError | None:
        """The first failure, None when every target was built."""
        return next((result.error for result in self.results if result.error is not None), None)
