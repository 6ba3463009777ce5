"""Reads op tables (ops.toml): `[[row]]` entries with `ops`, `source` and constraints of the vocabulary."""

import re
from collections.abc import Mapping
from typing import Any

from edgepack.profiles.faults import Faults
from edgepack.profiles.model import FailingOps, FileRule, OpRule, OpTable
from edgepack.profiles.toml_table import TomlTable
from edgepack.profiles.vocabulary import CONSTRAINTS, OP_NAME, TENSOR_TYPES, is_op_name, validate_constraints


def read_op_table(data: Mapping[str, Any], source_ids: frozenset[str], faults: Faults) -> OpTable:
    """Convert the contents of an op table file to values.

    Args:
        data: The file's contents.
        source_ids: Ids of the profile's sources; every row must name one of them.
        faults: Where faults are added.

    Returns:
        The table; incomplete when faults were added.
    """
    top = TomlTable(data, "", faults)
    defaults = top.unchecked("defaults")
    validate_constraints(defaults, "[defaults]", faults, may_cancel=False)
    max_versions = top.integers_by_name("max_version")
    min_runtimes = top.integers_by_name("min_runtime")
    rules: dict[str, OpRule] = {}
    for row in top.tables("row"):
        ops = row.strings("ops")
        source = _source(row, source_ids, faults)
        constraints = row.rest()
        validate_constraints(constraints, row.path, faults)
        if not ops:
            faults.add(f"{row.path}.ops", "expected at least one op name")
        for op in ops:
            if not is_op_name(op):
                faults.expected(f"{row.path}.ops", OP_NAME, op)
            if op in rules:
                faults.add(f"{row.path}.ops", f"{op} is in an earlier row as well")
            own: dict[str, Any] = dict(constraints)
            if op in max_versions:
                own.setdefault("max-version", max_versions[op])
            if op in min_runtimes:
                own.setdefault("min-runtime", min_runtimes[op])
            rules[op] = OpRule(op, override(defaults, own), source)
    for name, table in (("max_version", max_versions), ("min_runtime", min_runtimes)):
        for op in table:
            if op not in rules:
                faults.add(f"[{name}].{op}", "no row has this op")
    refused = top.texts_by_name("refused")
    for op in refused:
        if op in rules:
            faults.add(f"[refused].{op}", "a row supports this op")
    file_rule = _file_rule(top.table("file", optional=True), source_ids, faults)
    top.reject_unknown_keys()
    if not rules:
        faults.add("[[row]]", "an op table needs at least one row")
    return OpTable(defaults=defaults, ops=dict(sorted(rules.items())), refused=refused, file=file_rule)


def override(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table's defaults, overridden by a row's constraints.

    A row's argument replaces the default. Tables of constraints that merge are overridden key by key, and `false`
    cancels a default.
    """
    merged: dict[str, Any] = dict(defaults)
    for key, argument in own.items():
        if argument is False:
            merged.pop(key, None)
        elif key in CONSTRAINTS and CONSTRAINTS[key].merges and isinstance(merged.get(key), dict):
            # An argument of another type is a fault already.
            merged[key] = {**merged[key], **(argument if isinstance(argument, dict) else {})}
        else:
            merged[key] = argument
    return dict(sorted(merged.items()))


def _source(table: TomlTable, source_ids: frozenset[str], faults: Faults) -> str:
    source = table.text("source")
    if source and source not in source_ids:
        faults.add(f"{table.path}.source", f"no [[sources]] entry of profile.toml has the id '{source}'")
    return source


def _file_rule(table: TomlTable, source_ids: frozenset[str], faults: Faults) -> FileRule | None:
    if not table.present:
        return None
    rule = FileRule(
        source=_source(table, source_ids, faults),
        max_versions=table.integers_by_name("max_versions"),
        max_builtin_code=table.integer("max_builtin_code", 0, lowest=0),
        static_shapes=table.boolean("static_shapes", False),
        max_runtime_version=table.text("max_runtime_version", ""),
        refused_types=table.strings("refused_types"),
        refused_io_types=table.strings("refused_io_types"),
        variables=table.boolean("variables", True),
        external_state=table.boolean("external_state", False),
        distinct_names=table.boolean("distinct_names", False),
        failing=tuple(_failing(entry, source_ids, faults) for entry in table.tables("failing")),
        uncertain=tuple(_failing(entry, source_ids, faults) for entry in table.tables("uncertain")),
    )
    for key, types in (("refused_types", rule.refused_types), ("refused_io_types", rule.refused_io_types)):
        if unknown := sorted(set(types) - TENSOR_TYPES):
            faults.expected(f"{table.path}.{key}", "tensor types", unknown)
    version = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", rule.max_runtime_version)
    if rule.max_runtime_version and version is None:
        faults.expected(f"{table.path}.max_runtime_version", "a version such as '2.6'", rule.max_runtime_version)
    table.reject_unknown_keys()
    return rule


def _failing(table: TomlTable, source_ids: frozenset[str], faults: Faults) -> FailingOps:
    ops, why, fix = table.strings("ops"), table.text("reason"), table.text("fix", "")
    source = _source(table, source_ids, faults)
    constraints = table.rest()
    validate_constraints(constraints, table.path, faults, may_cancel=False)
    for op in ops:
        if not is_op_name(op):
            faults.expected(f"{table.path}.ops", OP_NAME, op)
    return FailingOps(ops, dict(sorted(constraints.items())), why, fix, source)
