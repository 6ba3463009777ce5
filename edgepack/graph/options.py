"""Builtin options of ops that are written: the way back from `Op.options` to the schema's objects."""

from collections.abc import Mapping
from typing import Any

from edgepack.graph.read import ENUM_FIELDS, enum_names, plain_name, plain_options, schema, snake_case

#: Schema table of the options of each op that edgepack writes itself; ops without one have no options.
_TABLES = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SLICE": "SliceOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}


def full_options(op: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an op's options as `read_model` would give them: what is not given has the schema's default.

    Raises:
        KeyError: The op has no option of that name: a mistake in the caller.
    """
    found = plain_options(vars(getattr(schema(), f"{_TABLES[op]}T")())) if op in _TABLES else {}
    unknown = set(given) - set(found)
    if unknown:
        raise KeyError(f"{op} has no option {', '.join(sorted(unknown))}")
    return {**found, **given}


def packed_options(op: str, options: Mapping[str, Any]) -> tuple[int, Any]:
    """Return (union type, options object) for a mutable `OperatorT`; (0, None) for an op without options."""
    if op not in _TABLES:
        return 0, None
    table = getattr(schema(), f"{_TABLES[op]}T")()
    for field in vars(table):
        name = plain_name(field)
        if name in options:
            value = options[name]
            enum = ENUM_FIELDS.get(snake_case(field))
            if enum is not None and isinstance(value, str):
                value = next(number for number, known in enum_names(enum).items() if known == value)
            setattr(table, field, value)
    return getattr(schema().BuiltinOptions, _TABLES[op]), table
