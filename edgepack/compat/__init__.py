"""Which ops of a model an accelerator takes, which not, why, and what to do.

Pure: needs no TensorFlow and runs nothing.
"""

from edgepack.compat.check import check
from edgepack.compat.reasons import REASONS, ReasonKind
from edgepack.compat.rules import RULES

__all__ = ["REASONS", "RULES", "ReasonKind", "check"]
