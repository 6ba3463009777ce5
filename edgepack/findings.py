"""What a compatibility check finds: a placement for every op, with reasons and fixes."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Placement(StrEnum):
    """Where an op will run."""

    ACCELERATOR = "accelerator"
    HOST = "host"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Reason:
    """Why an op is not on the accelerator.

    Attributes:
        code: Stable, documented identifier such as `rank-above-3`.
        message: What was expected and what was got.
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
    """

    index: int
    op: str
    version: int
    output: str
    placement: Placement
    reasons: tuple[Reason, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the `ops` entry of the JSON contract."""
        return {
            "index": self.index,
            "op": self.op,
            "version": self.version,
            "output": self.output,
            "placement": str(self.placement),
            "reasons": [reason.to_json() for reason in self.reasons],
        }


@dataclass(frozen=True)
class Report:
    """The check of one model against one target.

    Attributes:
        target: Target id.
        compatible: True when the target can run the model (host ops are allowed unless the profile denies them).
        partitions: Number of accelerator partitions that the delegate or compiler would use.
        ops: One finding for every op of subgraph 0, in file order.
        model_reasons: Reasons that concern the whole model.
        notes: Sentences for people: estimates, assumptions.
        estimates: Numbers for machines (bytes of parameters against on-chip memory, say).
        variant: Id of the profile's variant that was used; empty when the profile has only one.
    """

    target: str
    compatible: bool
    partitions: int
    ops: tuple[OpFinding, ...]
    model_reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()
    estimates: dict[str, Any] = field(default_factory=dict)
    variant: str = ""

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
        return document
