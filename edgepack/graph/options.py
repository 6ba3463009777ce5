"""Builtin options of ops that edgepack writes: conversion of `Op.options` to the objects of the schema."""

from collections.abc import Mapping
from typing import Any

from edgepack.graph.read import ENUM_FIELDS, enum_names, plain_name, plain_options, schema, snake_case

#: Schema table of the options of each op that edgepack writes; the other ops it writes have no options.
_TABLES = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CALL_ONCE": "CallOnceOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "CUMSUM": "CumsumOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SPLIT": "SplitOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
    "VAR_HANDLE": "VarHandleOptions",
}


def full_options(op: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of an op as `read_model` returns them, with the schema's defaults for those left out.

    Raises:
        KeyError: The op has no option of that name, which is an error in the caller.
    """
    defaults = plain_options(vars(getattr(schema(), f"{_TABLES[op]}T")())) if op in _TABLES else {}
    unknown = set(options) - set(defaults)
    if unknown:
        raise KeyError(f"{op} has no option {', '.join(sorted(unknown))}")
    return {**defaults, **options}


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
