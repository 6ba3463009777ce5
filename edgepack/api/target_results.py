"""Results for targets: those of a build and of a check."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edgepack.api.results import Result, accuracy, placed, plain
from edgepack.errors import EdgepackError, UsageError
from edgepack.pipeline.reports.document import document
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.findings import Report
    from edgepack.pipeline.check import CheckedTarget as PipelineCheck
    from edgepack.pipeline.results import TargetResult
    from edgepack.runtime.metrics import Quality


@dataclass(frozen=True, repr=False, eq=False)
class TargetEntry(Result):
    """The result for one target.

    Attributes:
        target: Target id.
        soc: Chip that was named with it (`hexagon@SM8550`), empty without.
        entry: Its entry of `results` in the JSON document.
        error: Why it failed, None when it succeeded.
        report: Placement of every op, None where it failed before.
        quality: Loss against the float model, None where nothing was measured.
        bundle: Folder of the bundle, None where none was written.
    """

    target: str
    soc: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    error: EdgepackError | None = None
    report: "Report | None" = None
    quality: "Quality | None" = None
    bundle: Path | None = None

    @property
    def name(self) -> str:
        """`edgetpu`, or `hexagon@SM8550`."""
        return f"{self.target}{'@' if self.soc else ''}{self.soc}"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `results` in the command's document."""
        return plain(self.entry)

    def _subject(self) -> str:
        return f"{self.name}: "


@dataclass(frozen=True, repr=False, eq=False)
class BuiltTarget(TargetEntry):
    """One target of a build.

    Attributes:
        scheme: Scheme id, empty before one was chosen.
        model: The file as it ships, None where there is none.
        warnings: What the user should know.
    """

    scheme: str = ""
    model: bytes | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, result: "TargetResult", soc: str) -> "BuiltTarget":
        """Return the result of a target of the pipeline."""
        return cls(
            result.target,
            soc,
            result.to_json(),
            result.error,
            result.report,
            result.quality,
            result.bundle,
            result.scheme,
            result.model,
            result.warnings,
        )

    def _summary(self) -> str:
        size = "" if self.model is None else f", {readable_size(len(self.model))}"
        figure = accuracy(self.quality)
        return f"{self.name}: {self.scheme}{size}{', ' * bool(figure)}{figure}"

    def row(self) -> tuple[str, ...]:
        """Return the cells of its row in a table."""
        if self.error is not None:
            return (self.name, self.scheme, f"failed: {self.error.message}", "", "", "")
        size = "" if self.model is None else readable_size(len(self.model))
        where = "dry run" if self.bundle is None else self.bundle.name
        return (self.name, self.scheme, size, placed(self.report), accuracy(self.quality), where)

    def _repr_html_(self) -> str:
        return _built_html(f"{self.name}", (self,))


@dataclass(frozen=True, repr=False, eq=False)
class CheckedTarget(TargetEntry):
    """One target of a check.

    Attributes:
        planned: Scheme of the preview of a float model, empty for a file that is checked as it is.
    """

    planned: str = ""

    @classmethod
    def of(cls, result: "PipelineCheck", soc: str) -> "CheckedTarget":
        """Return the result of a target of the pipeline."""
        return cls(result.target, soc, result.to_json(), result.error, result.report, planned=result.planned)

    def _summary(self) -> str:
        return f"{self.name}: fits, {placed(self.report)}"

    def row(self) -> tuple[str, ...]:
        """Return the cells of its row in a table."""
        verdict = "fits" if self.error is None else self.error.message
        return (self.name, verdict, self.planned, placed(self.report))

    def _repr_html_(self) -> str:
        return _checked_html(self.name, (self,))


Entry = TypeVar("Entry", bound=TargetEntry)


@dataclass(frozen=True, repr=False, eq=False)
class TargetResults(Result, Generic[Entry]):
    """Results for several targets: a sequence, also by the target's name.

    With one target, `quality`, `report` and `bundle` are those of its entry; with several they raise `UsageError`.

    Attributes:
        results: One entry per target, in the order of the request.
        notes: Assumptions about the model and the samples.
        source: `{format, bytes, sha256}` of the model, empty for a check.
    """

    results: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> EdgepackError | None:  # type: ignore[override]
        """The first failure, None when nothing failed."""
        return next((entry.error for entry in self.results if entry.error is not None), None)

    @property
    def report(self) -> "Report | None":
        """Placement of every op, of the only target."""
        return self._only("report").report

    @property
    def quality(self) -> "Quality | None":
        """Loss against the float model, of the only target."""
        return self._only("quality").quality

    @property
    def bundle(self) -> Path | None:
        """Folder of the bundle of the only target."""
        return self._only("bundle").bundle

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, key: int | str) -> Entry:
        """Return the entry at an index, or that of a target: `results["edgetpu"]`.

        Raises:
            UsageError: There is no result for such a target.
        """
        if isinstance(key, int):
            return self.results[key]
        found = [entry for entry in self.results if key in (entry.name, entry.target)]
        if len(found) != 1:
            names = ", ".join(entry.name for entry in self.results)
            raise UsageError(f"{len(found) or 'no'} results for target '{key}'", hint=f"the results are for: {names}")
        return found[0]

    def _only(self, name: str) -> Entry:
        if len(self.results) != 1:
            raise UsageError(
                f"{len(self.results)} targets have {len(self.results)} values of '{name}'",
                hint=f"ask one of them: results['{self.results[0].name}'].{name}, or go through the results",
            )
        return self.results[0]

    def __repr__(self) -> str:
        failed = sum(not entry.ok for entry in self.results)
        names = ", ".join(entry.name for entry in self.results)
        if len(self.results) == 1:
            return f"{type(self).__name__}([{self.results[0]!r}])"
        return f"{type(self).__name__}({len(self.results)} targets: {names}{f'; {failed} failed' * bool(failed)})"


@dataclass(frozen=True, repr=False, eq=False)
class BuildResult(TargetResults[BuiltTarget]):
    """A build; see `TargetResults`."""

    @property
    def scheme(self) -> str:
        """Scheme id of the only target."""
        return self._only("scheme").scheme

    @property
    def model(self) -> bytes | None:
        """The file of the only target."""
        return self._only("model").model

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack build --json`."""
        entries = [entry.to_json() for entry in self.results]
        return plain(document("build", entries, self.error, notes=self.notes, source=self.source))

    def _repr_html_(self) -> str:
        return _built_html("edgepack build", self.results, self.notes)


@dataclass(frozen=True, repr=False, eq=False)
class CheckResult(TargetResults[CheckedTarget]):
    """A check; see `TargetResults`."""

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack check --json`."""
        return plain(document("check", [entry.to_json() for entry in self.results], self.error))

    def _repr_html_(self) -> str:
        return _checked_html("edgepack check", self.results)


def _built_html(title: str, entries: tuple[BuiltTarget, ...], notes: tuple[str, ...] = ()) -> str:
    from edgepack.api.html import render
    from edgepack.pipeline.compare import ComparedScheme

    points = [
        ComparedScheme(entry.name, bytes=len(entry.model), quality=entry.quality)
        for entry in entries
        if entry.model is not None and entry.quality is not None
    ]
    header = ("target", "scheme", "file", "ops on the accelerator", "accuracy", "bundle")
    warnings = dict.fromkeys(warning for entry in entries for warning in entry.warnings)
    return render(title, header, [entry.row() for entry in entries], points=points, notes=(*notes, *warnings))


def _checked_html(title: str, entries: tuple[CheckedTarget, ...]) -> str:
    from edgepack.api.html import render

    notes = []
    for entry in entries:
        reasons = [] if entry.report is None else [reason for op in entry.report.ops for reason in op.reasons]
        reasons += [] if entry.report is None else list(entry.report.model_reasons)
        by_code = {reason.code: reason for reason in reversed(reasons)}
        notes += [f"{entry.name}: {reason.message} [{code}]; {reason.fix}" for code, reason in by_code.items()]
    return render(title, ("target", "verdict", "planned", "ops"), [entry.row() for entry in entries], notes=notes)
