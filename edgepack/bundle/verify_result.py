"""The result of a verification: problems, notes, and what is known of the signature."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from edgepack.bundle.golden import Difference

#: What to do about a bundle whose files are not those of the build.
BUILD_AGAIN = "rebuild the bundle, or copy it again from where it was built"


class SignatureStatus(StrEnum):
    """What is known of a bundle's signature."""

    UNSIGNED = "unsigned"
    NOT_CHECKED = "not-checked"
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True)
class Problem:
    """One difference between a bundle and its manifest, or between expected and actual outputs.

    Attributes:
        path: File or place in the manifest, relative to the bundle.
        what: What was expected and what the bundle has.
        fix: How to resolve it.
    """

    path: str
    what: str
    fix: str

    def to_json(self) -> dict[str, str]:
        """Return the problem as a JSON object."""
        return {"path": self.path, "what": self.what, "fix": self.fix}


@dataclass(frozen=True)
class VerifyResult:
    """Result of the verification.

    Attributes:
        problems: All problems; empty for a valid bundle.
        golden: One entry per output of each golden case.
        tolerance: The tolerance that applied, `same` or `other`; empty when the model did not run.
        notes: What was not checked and why, in sentences.
        files: Number of hashed files.
        manifest: The manifest; empty when it cannot be read.
        signature: What is known of the bundle's signature.
    """

    problems: tuple[Problem, ...]
    golden: tuple[Difference, ...] = ()
    tolerance: str = ""
    notes: tuple[str, ...] = ()
    files: int = 0
    manifest: Mapping[str, Any] = field(default_factory=dict)
    signature: SignatureStatus = SignatureStatus.UNSIGNED

    @property
    def ok(self) -> bool:
        """True when there are no problems."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        return {
            "ok": self.ok,
            "files": self.files,
            "signature": self.signature.value,
            "tolerance": self.tolerance or None,
            "problems": [problem.to_json() for problem in self.problems],
            "golden": [
                {
                    "case": difference.case,
                    "output": difference.output,
                    "largest": difference.largest if math.isfinite(difference.largest) else None,
                    "allowed": difference.allowed,
                    "ok": difference.ok,
                }
                for difference in self.golden
            ],
            "notes": list(self.notes),
        }
