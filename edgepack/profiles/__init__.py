"""Targets: profiles in TOML, validated, and registered by entry points."""

from edgepack.profiles.load import load_profile
from edgepack.profiles.model import (
    BundleRule,
    CompilerRule,
    FileRule,
    MemoryLayout,
    MemoryRule,
    OpRule,
    OpTable,
    PartitionRule,
    SchemeRule,
    Source,
    TargetProfile,
    Variant,
)
from edgepack.profiles.registry import all_targets, get_target

__all__ = [
    "BundleRule",
    "CompilerRule",
    "FileRule",
    "MemoryLayout",
    "MemoryRule",
    "OpRule",
    "OpTable",
    "PartitionRule",
    "SchemeRule",
    "Source",
    "TargetProfile",
    "Variant",
    "all_targets",
    "get_target",
    "load_profile",
]
