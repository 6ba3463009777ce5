"""A target's latency model: constants fitted on measured figures, with the error of the fit."""

import re
from dataclasses import dataclass

from edgepack.profiles.faults import Faults
from edgepack.profiles.toml_table import TomlTable
from edgepack.profiles.vocabulary import OP_NAME, is_op_name

#: Largest padding of channels, and largest constant: beyond any machine's.
_WIDEST, _LARGEST = 4096, 1e15

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class LatencyHost:
    """A bus and the host behind it.

    Attributes:
        id: Key in JSON documents.
        title: Name for people, after "on".
        fixed_ms: Milliseconds of each inference, whatever the model.
        io_bytes_per_ms: Transfer of inputs and outputs.
        parameter_bytes_per_ms: Transfer of parameters that the chip does not keep.
    """

    id: str
    title: str
    fixed_ms: float
    io_bytes_per_ms: float
    parameter_bytes_per_ms: float


@dataclass(frozen=True)
class LatencyError:
    """Errors of the estimate for networks that were left out of the fit, in percent of the published figure.

    Attributes:
        median: Median of the absolute errors.
        within_25: Percent of the figures that the estimate misses by at most 25 %.
        most_within: Error that 80 % of the figures do not exceed, rounded up to a multiple of 5.
        figures: Published figures.
        networks: Networks that they are of.
    """

    median: float
    within_25: float
    most_within: float
    figures: int
    networks: int


@dataclass(frozen=True)
class LatencyRule:
    """Constants of an accelerator; `edgepack.compat.latency` has the formula.

    Attributes:
        source: Id of the `[[sources]]` entry with the measured figures.
        fitted: Date of the fit, YYYY-MM-DD.
        array: Multiples to which the products of a sum (kernel taps times input channels) and the output channels are
            padded.
        macs_per_ms: Padded multiply-accumulates.
        depthwise_macs_per_ms: Multiply-accumulates of depthwise convolutions.
        activation_bytes_per_ms: Activations read and written.
        op_ms: Milliseconds of each op, whatever its size.
        hosts: The hosts that figures were published for.
        ops: Ops of the networks of the fit.
        error: Error of the fit.
    """

    source: str
    fitted: str
    array: tuple[int, int]
    macs_per_ms: float
    depthwise_macs_per_ms: float
    activation_bytes_per_ms: float
    op_ms: float
    hosts: tuple[LatencyHost, ...]
    ops: tuple[str, ...]
    error: LatencyError


def is_date(text: str) -> bool:
    """Return whether a text is a date, YYYY-MM-DD."""
    return _DATE.fullmatch(text) is not None


def read_latency(table: TomlTable, source_ids: frozenset[str], faults: Faults) -> LatencyRule:
    """Return the latency model of a table, which adds its faults."""
    source = table.identifier("source")
    if source and source not in source_ids:
        faults.add(f"{table.path}source", f"no [[sources]] entry has the id '{source}'")
    fitted = table.text("fitted")
    if table.has("fitted") and not is_date(fitted):
        faults.expected(f"{table.path}fitted", "a date, YYYY-MM-DD", fitted)
    numbers = table.numbers("array", 2, (1.0, 1.0))
    if not all(1 <= number <= _WIDEST and number == int(number) for number in numbers):
        faults.expected(f"{table.path}array", f"two whole numbers from 1 to {_WIDEST}", list(numbers))
        numbers = (1.0, 1.0)
    array = tuple(int(number) for number in numbers)
    ops = table.strings("ops")
    if not ops or not all(map(is_op_name, ops)):
        faults.expected(f"{table.path}ops", OP_NAME, list(ops))
    hosts = []
    for entry in table.tables("hosts"):
        hosts.append(
            LatencyHost(
                id=entry.identifier("id"),
                title=entry.text("title"),
                fixed_ms=_number(entry, "fixed_ms", faults, zero=True),
                io_bytes_per_ms=_number(entry, "io_bytes_per_ms", faults),
                parameter_bytes_per_ms=_number(entry, "parameter_bytes_per_ms", faults),
            )
        )
        entry.reject_unknown_keys()
    if not hosts:
        faults.add("[[hosts]]", "a latency model needs at least one host")
    error = table.table("error")
    rule = LatencyRule(
        source=source,
        fitted=fitted,
        array=(max(1, array[0]), max(1, array[1])),
        macs_per_ms=_number(table, "macs_per_ms", faults),
        depthwise_macs_per_ms=_number(table, "depthwise_macs_per_ms", faults),
        activation_bytes_per_ms=_number(table, "activation_bytes_per_ms", faults),
        op_ms=_number(table, "op_ms", faults, zero=True),
        hosts=tuple(hosts),
        ops=ops,
        error=LatencyError(
            median=_number(error, "median", faults, zero=True),
            within_25=_number(error, "within_25", faults, zero=True),
            most_within=_number(error, "most_within", faults),
            figures=_count(error, "figures", faults),
            networks=_count(error, "networks", faults),
        ),
    )
    error.reject_unknown_keys()
    table.reject_unknown_keys()
    return rule


def _number(table: TomlTable, key: str, faults: Faults, *, zero: bool = False) -> float:
    value = table.number(key)
    if table.has(key) and not (0 if zero else 1 / _LARGEST) <= value <= _LARGEST:
        faults.expected(f"{table.path}.{key}", f"a number from {'0' if zero else 'above 0'} to {_LARGEST:g}", value)
        return 1.0
    return value if value > 0 or zero else 1.0


def _count(table: TomlTable, key: str, faults: Faults) -> int:
    value = table.integer(key, lowest=1)
    if value > _LARGEST:
        faults.expected(f"{table.path}.{key}", f"a number from 1 to {_LARGEST:g}", value)
    return value
