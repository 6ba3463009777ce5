"""What a build gives back for each target, and its JSON form."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from edgepack.errors import EdgepackError
from edgepack.findings import Report
from edgepack.repair import Rewrite
from edgepack.runtime.metrics import Quality
from edgepack.runtime.postprocessing import PostprocessStep

STEPS = ("convert", "calibrate", "quantize", "check", "compile", "measure", "bundle")


class Stopwatch:
    """Seconds of each step; a step that several targets share counts where it ran."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to a step."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start


@dataclass
class TargetResult:
    """One target of a build; filled as the steps go, so that a failed build still says how far it came.

    Attributes:
        target: Target id.
        scheme: Scheme id, empty before one is chosen.
        reason: Why this scheme, one sentence.
        tool: What wrote the quantized file.
        model: The file that was made.
        model_name: Its name in the bundle.
        model_sha256: Its SHA-256.
        float_bytes: Size of the float .tflite.
        improvements: What `--effort medium` or `high` tried and kept, None without.
        repairs: Rewrites of refused ops that moved ops onto the accelerator.
        tail: Last steps that are left to the loader.
        report: Placement of every op.
        compile: `{status, tool, version, reason}`.
        quality: What was lost, None without samples.
        ladder: What was tried until the limits held, one entry per rung; empty without limits.
        bundle: Where the bundle is, None when none was written.
        warnings: What the user should know.
        error: Why the build of this target failed.
        stopwatch: Seconds of each step.
    """

    target: str
    scheme: str = ""
    reason: str = ""
    tool: str = ""
    model: bytes | None = None
    model_name: str = ""
    model_sha256: str = ""
    float_bytes: int = 0
    improvements: dict[str, Any] | None = None
    repairs: tuple[Rewrite, ...] = ()
    tail: tuple[PostprocessStep, ...] = ()
    report: Report | None = None
    compile: dict[str, Any] = field(
        default_factory=lambda: {"status": "skipped", "tool": "", "version": "", "reason": ""}
    )
    quality: Quality | None = None
    ladder: list[dict[str, Any]] = field(default_factory=list)
    bundle: Path | None = None
    warnings: list[str] = field(default_factory=list)
    error: EdgepackError | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

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
            "tail": [step.to_json() for step in self.tail],
            "summary": None if self.report is None else self.report.summary,
            "compile": self.compile,
            "quality": None if self.quality is None else self.quality.to_json(),
            "ladder": self.ladder,
            "bundle": None if self.bundle is None else str(self.bundle),
            "warnings": self.warnings,
            "seconds": {name: round(value, 3) for name, value in self.stopwatch.seconds.items()},
        }


@dataclass
class BuildResult:
    """A whole build.

    Attributes:
        results: One entry per target, in the order asked for.
        notes: What was assumed about the model and the samples.
        source: `{format, bytes, sha256}` of the user's model.
    """

    results: list[TargetResult]
    notes: list[str]
    source: dict[str, Any]

    @property
    def error(self) -> EdgepackError | None:
        """The first failure, None when every target was built."""
        return next((result.error for result in self.results if result.error is not None), None)
