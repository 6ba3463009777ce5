"""Per-op accelerator support of a model on a target, with reasons and fixes.

Reads the file only: needs no TensorFlow and runs nothing.
"""

from edgepack.compat.check import check, cut_note
from edgepack.compat.reasons import REASONS, ReasonKind, reason
from edgepack.compat.rules import RULES
from edgepack.compat.support import accelerated_ops, doubtful_ops, refuses_file

__all__ = [
    "REASONS",
    "RULES",
    "ReasonKind",
    "accelerated_ops",
    "check",
    "cut_note",
    "doubtful_ops",
    "reason",
    "refuses_file",
]
