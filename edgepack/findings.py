"""The result of a compatibility check: a placement for every op, with reasons and fixes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Placement(StrEnum):
    """Where an op runs."""

    ACCELERATOR = "accelerator"
    HOST = "host"
    UNSUPPORTED = "unsupported"


class Basis(StrEnum):
    """What a placement is based on: the vendor's compiler, or facts of the profile, by how they are known."""

    COMPILER = "compiler"
    MEASURED = "measured"
    SOURCE_CODE = "source"
    DOCUMENTATION = "documentation"
    INFERRED = "inferred"
    RECALLED = "recalled"


@dataclass(frozen=True)
class Reason:
    """Why an op is not on the accelerator.

    Attributes:
        code: Stable, documented identifier such as `rank-above-3`.
        message: What was expected and what the file has.
        fix: What the user can do; never empty.
    """

    code: str
    message: str
    fix: str

    def to_json(self) -> dict[str, str]:
        """Return the `reasons` entry of the JSON contract."""
        return {"code": self.code, "message": self.message, "fix": self.fix}


@dataclass(frozen=True)
class OpFinding:
    """One op of the checked file.

    Attributes:
        index: Operator index in subgraph 0 of the file.
        op: TFLite builtin name, or `CUSTOM:name`.
        version: Operator version in the file.
        output: Name of the op's first output tensor.
        placement: Where the op runs.
        reasons: Empty for an op on the accelerator.
        source: Whose word the placement is, a value of `Basis`; empty where nothing records it.
    """

    index: int
    op: str
    version: int
    output: str
    placement: Placement
    reasons: tuple[Reason, ...] = ()
    source: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the `ops` entry of the JSON contract."""
        document = {
            "index": self.index,
            "op": self.op,
            "version": self.version,
            "output": self.output,
            "placement": str(self.placement),
            "reasons": [reason.to_json() for reason in self.reasons],
        }
        if self.source:
            document["source"] = self.source
        return document


@dataclass(frozen=True)
class Report:
    """The check of one model against one target.

    Attributes:
        target: Target id.
        compatible: True when the target can run the model; host ops count unless the profile denies host fallback.
        partitions: Number of partitions that run on the accelerator.
        ops: One finding for each op of subgraph 0, in file order.
        model_reasons: Reasons that concern the whole model.
        notes: Sentences for people: estimates and assumptions.
        estimates: Figures for programs (bytes of parameters and of on-chip memory, for example).
        variant: Id of the profile's variant that was checked; empty when the profile has only one.
        sources: For each `Basis` of the ops, who or what it is: the compiler with its version, or the profile's facts.
    """

    target: str
    compatible: bool
    partitions: int
    ops: tuple[OpFinding, ...]
    model_reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    estimates: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def count(self, placement: Placement) -> int:
        """Return how many ops have `placement`."""
        return sum(1 for finding in self.ops if finding.placement is placement)

    @property
    def summary(self) -> dict[str, int]:
        """The `summary` object of the JSON contract."""
        return {
            "total": len(self.ops),
            "accelerator": self.count(Placement.ACCELERATOR),
            "host": self.count(Placement.HOST),
            "unsupported": self.count(Placement.UNSUPPORTED),
            "partitions": self.partitions,
        }

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `results` in the JSON contract."""
        document: dict[str, Any] = {
            "target": self.target,
            "compatible": self.compatible,
            "summary": self.summary,
            "ops": [finding.to_json() for finding in self.ops],
            "reasons": [reason.to_json() for reason in self.model_reasons],
            "notes": list(self.notes),
            "estimates": self.estimates,
        }
        if self.variant:
            document["variant"] = self.variant
        if self.sources:
            document["sources"] = dict(self.sources)
        return document
