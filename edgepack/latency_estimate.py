"""An estimated latency with its origin and error, in the same words and keys wherever it is shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

#: `lower-bound` where ops run on the host, whose time is unknown.
Kind = Literal["estimate", "lower-bound"]


@dataclass(frozen=True)
class HostLatency:
    """Milliseconds of one inference on one host or configuration.

    Attributes:
        id: Key in JSON documents.
        title: Name for people, after "on".
        ms: Milliseconds.
    """

    id: str
    title: str
    ms: float

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `figures`; milliseconds have two significant digits below 100."""
        return {"host": self.id, "title": self.title, "ms": _rounded(self.ms)}


@dataclass(frozen=True)
class LatencyEstimate:
    """The estimated latency of a model.

    Attributes:
        by: Who estimates: `edgepack`, or a compiler with its version.
        figures: At least one figure.
        host_ops: Ops on the host's CPU, whose time is unknown; with any the figures are lower bounds.
        unfitted_ops: Ops that no measured network has: the error is unknown because of them.
        fit: Of estimates fitted on measured figures: `source`, `fitted` (a date) and `error`, which has `most_within`.
        details: Of a compiler's estimate: what it says about it, such as cycles and clock, as JSON values.
    """

    by: str
    figures: tuple[HostLatency, ...]
    host_ops: int = 0
    unfitted_ops: tuple[str, ...] = ()
    fit: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Whether the figures are estimates of the whole model."""
        return "lower-bound" if self.host_ops else "estimate"

    @property
    def text(self) -> str:
        """The estimate for people, such as "about 3.4 ms on USB 3 (estimate, most within 30 %)"."""
        spoken = ", ".join(f"{_rounded(figure.ms):g} ms on {figure.title}" for figure in self.figures)
        whose = "estimate" if self.by == "edgepack" else f"estimate of {self.by}"
        if self.host_ops:
            plural = self.host_ops != 1
            return (
                f"at least about {spoken} for the part on the accelerator ({whose}); the {self.host_ops} "
                f"op{'s' * plural} on the host's CPU add{'s' * (not plural)} an unknown time"
            )
        if self.unfitted_ops:
            names = ", ".join(self.unfitted_ops)
            return f"about {spoken} ({whose} of unknown error: no published figure is of a network with {names})"
        if not self.fit:
            return f"about {spoken} ({whose}, error unknown)"
        return f"about {spoken} ({whose}, most within {self.fit['error']['most_within']:g} %)"

    def to_json(self) -> dict[str, Any]:
        """Return the `latency` object of the JSON contract and of the manifest."""
        return {
            "by": self.by,
            "kind": self.kind,
            "text": self.text,
            "figures": [figure.to_json() for figure in self.figures],
            "unfitted_ops": list(self.unfitted_ops),
            **self.fit,
            **({"details": dict(self.details)} if self.details else {}),
        }


def _rounded(ms: float) -> float:
    return float(f"{ms:.2g}") if ms < 100 else round(ms)
