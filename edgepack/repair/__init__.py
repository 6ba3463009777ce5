"""Rewrite ops that a target does not support as ops that it supports, and verify that both compute the same."""

from edgepack.repair.affine import FOLDED, fold_arithmetic
from edgepack.repair.equivalence import TOLERANCE, prove
from edgepack.repair.graph_edits import CODES
from edgepack.repair.postprocessing import before_class_choice, cuttable
from edgepack.repair.rewrite_search import APPROXIMATE, EXACT, MODES, Repaired, Rewrite, repair

__all__ = [
    "APPROXIMATE",
    "CODES",
    "EXACT",
    "FOLDED",
    "MODES",
    "TOLERANCE",
    "Repaired",
    "Rewrite",
    "before_class_choice",
    "cuttable",
    "fold_arithmetic",
    "prove",
    "repair",
]
