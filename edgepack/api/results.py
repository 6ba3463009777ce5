"""Results of the library: small frozen objects with the figures at hand and the command line's JSON document."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.errors import EdgepackError, UsageError
from edgepack.pipeline.reports.document import document, json_text
from edgepack.text import readable_size

if TYPE_CHECKING:
    from edgepack.bundle.verify_result import Problem
    from edgepack.findings import Report
    from edgepack.pipeline.compare import ComparedScheme
    from edgepack.runtime.metrics import Quality
    from edgepack.training import FileReport

#: Longest text in the repr of a result.
_SHORT = 90


class Result:
    """What every result has.

    Attributes:
        error: Why it failed, None when it succeeded.
    """

    error: EdgepackError | None

    @property
    def ok(self) -> bool:
        """True when nothing failed."""
        return self.error is None

    def raise_for_error(self) -> None:
        """Raise the error of a failed result.

        Raises:
            EdgepackError: The result's `error`.
        """
        if self.error is not None:
            raise self.error

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        raise NotImplementedError

    def _summary(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        text = self._summary() if self.error is None else f"{self._subject()}failed: {self.error.message}"
        return f"{type(self).__name__}({text if len(text) <= _SHORT else text[: _SHORT - 3] + '...'})"

    def _subject(self) -> str:
        return ""


@dataclass(frozen=True, repr=False, eq=False)
class Comparison(Result):
    """A comparison of schemes: a sequence, also by the scheme's id.

    Attributes:
        results: One entry per scheme that a target supports; `reason` says why one was not built.
        targets: Target ids that were compared.
        notes: Assumptions about the model and the samples.
        source: `{format, bytes, sha256}` of the model.
    """

    results: "tuple[ComparedScheme, ...]"
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    source: Mapping[str, Any]
    error: EdgepackError | None = None

    def __iter__(self) -> "Iterator[ComparedScheme]":
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, key: int | str) -> "ComparedScheme":
        """Return the entry at an index, or that of a scheme: `comparison["int8"]`.

        Raises:
            UsageError: No such scheme was compared.
        """
        if isinstance(key, int):
            return self.results[key]
        found = next((entry for entry in self.results if entry.scheme == key), None)
        if found is None:
            known = ", ".join(entry.scheme for entry in self.results)
            raise UsageError(f"no results for scheme '{key}'", hint=f"the results are for: {known}")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack compare --json`."""
        entries = [entry.to_json() for entry in self.results]
        return plain(document("compare", entries, notes=self.notes, source=self.source))

    def _summary(self) -> str:
        built = [entry.scheme for entry in self.results if not entry.reason]
        return f"{', '.join(built)} for {', '.join(self.targets)}"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render

        built = [entry for entry in self.results if not entry.reason]
        rows = [
            (
                entry.scheme,
                readable_size(entry.bytes),
                accuracy(entry.quality),
                *(share(entry.targets.get(target)) for target in self.targets),
            )
            for entry in built
        ]
        header = ("scheme", "file", "accuracy", *(f"ops on {target}" for target in self.targets))
        missing = [f"{entry.scheme} was not built: {entry.reason}" for entry in self.results if entry.reason]
        return render("edgepack compare", header, rows, points=built, notes=(*missing, *self.notes))


@dataclass(frozen=True, repr=False, eq=False)
class TrainResult(Result):
    """A training.

    Attributes:
        model: Path of the .tflite.
        report_file: Path of the JSON report.
        recipe: The recipe.
        quality: Loss against the float model on the validation samples, None without them.
        report: Sparsity and clusters of every layer, sizes.
        entry: The entry of `results` in the JSON document.
        error: None: a training that fails raises.
    """

    model: Path
    report_file: Path
    recipe: str
    quality: "Quality | None"
    report: "FileReport"
    entry: Mapping[str, Any]
    error: EdgepackError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack train --json`."""
        return plain(document("train", [self.entry]))

    def _summary(self) -> str:
        figure = accuracy(self.quality)
        return f"{self.recipe}: {self.model.name}, {readable_size(self.report.bytes)}{', ' * bool(figure)}{figure}"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render

        header = ("recipe", "file", "size", "gzip", "accuracy")
        sizes = readable_size(self.report.bytes), readable_size(self.report.gzip_bytes)
        row = (self.recipe, self.model.name, *sizes, accuracy(self.quality))
        return render("edgepack train", header, [row], notes=self.entry["notes"])


@dataclass(frozen=True, repr=False, eq=False)
class VerifyResult(Result):
    """A verification.

    Attributes:
        bundle: The folder.
        problems: All problems; empty for a valid bundle.
        notes: What was not verified and why.
        manifest: The manifest; empty when it cannot be read.
        signature: What is known of the bundle's signature.
        entry: The entry of `results` in the JSON document.
        error: Why the bundle is not valid, None when it is.
        device: Figures of a device, None where none ran it.
    """

    bundle: Path
    problems: "tuple[Problem, ...]"
    notes: tuple[str, ...]
    manifest: Mapping[str, Any]
    signature: str
    entry: Mapping[str, Any]
    error: EdgepackError | None = None
    device: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack verify --json`."""
        return plain(document("verify", [self.entry], self.error))

    def _summary(self) -> str:
        return f"{self.bundle.name}: {self.entry['files']} files, signature {self.signature}"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render

        rows = [(problem.path, problem.what, problem.fix) for problem in self.problems]
        title = f"{self.bundle.name}: {'verified' if self.ok else 'does not match its manifest'}"
        return render(title, ("where", "problem", "fix"), rows, notes=self.notes)


@dataclass(frozen=True, repr=False, eq=False)
class Inspection(Result):
    """The description of a model.

    Attributes:
        entry: What `edgepack inspect --json` has as its only result: inputs, outputs, ops, tensors, sizes.
        error: None: a model that cannot be read raises.
    """

    entry: Mapping[str, Any]
    error: EdgepackError | None = None

    def __getitem__(self, key: str) -> Any:
        """Return a part of the description: `inspection["inputs"]`."""
        return self.entry[key]

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """The inputs: name, shape, dtype, scale and zero point."""
        return list(self.entry["inputs"])

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs: name, shape, dtype, scale and zero point."""
        return list(self.entry["outputs"])

    def to_json(self) -> dict[str, Any]:
        """Return the document of `edgepack inspect --json`."""
        return plain(document("inspect", [self.entry]))

    def _summary(self) -> str:
        size = readable_size(self.entry["bytes"])
        return f"{self.entry['file']}: {size}, {self.entry['scheme']}, {len(self.entry['ops'])} ops"

    def _repr_html_(self) -> str:
        from edgepack.api.html import render

        rows = [
            (kind, tensor["name"], tensor["dtype"], str(list(tensor["shape"])))
            for kind, tensors in (("input", self.inputs), ("output", self.outputs))
            for tensor in tensors
        ]
        ops = ", ".join(f"{op} x{count}" for op, count in self.entry["op_counts"].items())
        return render(self._summary(), ("", "name", "type", "shape"), rows, notes=(f"ops: {ops}",))


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a program reads from the command line's JSON: lists, dicts, texts, finite numbers."""
    read: dict[str, Any] = json.loads(json_text(value))
    return read


def placed(report: "Report | None") -> str:
    """Return `64 of 71`: ops on the accelerator; nothing without a report."""
    return "" if report is None else share(report.summary)


def share(summary: Mapping[str, int] | None) -> str:
    """Return `64 of 71`: ops on the accelerator; nothing without a summary."""
    return "" if summary is None else f"{summary['accelerator']} of {summary['total']}"


def accuracy(quality: "Quality | None") -> str:
    """Return `top-1 99.11 -> 98.90`, `SNR 41.2 dB`, `equal`, or nothing."""
    if quality is None:
        return ""
    known = quality.accuracy
    if known is not None:
        return f"{known.metric} {known.change}"
    return "equal" if quality.snr_db is None else f"SNR {quality.snr_db:.1f} dB"
