"""The ops of TensorFlow that a SavedModel may contain without `--allow-code`, from `graph_ops.toml`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class GraphOps:
    """Every op that a TensorFlow defines.

    Attributes:
        tensorflow: The version of TensorFlow that the lists were derived from.
        allowed: Ops that compute on tensors.
        constrained: Ops that are allowed in one form only, with the name of the rule in `graph_rules`.
        refused: All other ops, with the reason as a predicate.
    """

    tensorflow: str
    allowed: frozenset[str]
    constrained: Mapping[str, str]
    refused: Mapping[str, str]


@cache
def graph_ops() -> GraphOps:
    """Return the lists of the installed package."""
    document = tomllib.loads(Path(__file__).with_name("graph_ops.toml").read_text(encoding="utf-8"))
    return GraphOps(
        tensorflow=document["tensorflow"],
        allowed=frozenset(name for text in document["allowed"].values() for name in text.split()),
        constrained=document["constrained"],
        refused={name: reason for reason, text in document["refused"].items() for name in text.split()},
    )
