"""Rewrite ops that a target refuses by ops that it takes, in the float model, and prove that both compute the same."""

from edgepack.repair.drive import APPROXIMATE, EXACT, MODES, Repaired, Rewrite, repair
from edgepack.repair.edits import CODES
from edgepack.repair.prove import TOLERANCE, prove
from edgepack.repair.tail import before_class_choice, cuttable

__all__ = [
    "APPROXIMATE",
    "CODES",
    "EXACT",
    "MODES",
    "TOLERANCE",
    "Repaired",
    "Rewrite",
    "before_class_choice",
    "cuttable",
    "prove",
    "repair",
]
