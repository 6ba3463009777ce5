"""Rewrite ops that a target does not support as ops that it supports, and verify that both compute the same."""

from edgepack.repair.affine import FOLDED, fold_arithmetic
from edgepack.repair.broadcast import explicit_broadcasts
from edgepack.repair.constant_shapes import constant_shapes
from edgepack.repair.dense import dense_constants
from edgepack.repair.equivalence import TOLERANCE, prove
from edgepack.repair.explicit_state import explicit_states
from edgepack.repair.graph_edits import CODES
from edgepack.repair.names import distinct_names
from edgepack.repair.postprocessing import before_class_choice, cuttable
from edgepack.repair.range_balance import ChannelRange, balance_ranges, has_shared_ranges
from edgepack.repair.rewrite_search import APPROXIMATE, EXACT, MODES, Repaired, Rewrite, fuse, repair

__all__ = [
    "APPROXIMATE",
    "CODES",
    "EXACT",
    "FOLDED",
    "MODES",
    "TOLERANCE",
    "ChannelRange",
    "Repaired",
    "Rewrite",
    "balance_ranges",
    "before_class_choice",
    "constant_shapes",
    "cuttable",
    "dense_constants",
    "distinct_names",
    "explicit_broadcasts",
    "explicit_states",
    "fold_arithmetic",
    "fuse",
    "has_shared_ranges",
    "prove",
    "repair",
]
