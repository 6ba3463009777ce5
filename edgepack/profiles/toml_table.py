"""A TOML table that is read key by key, with a fault for every missing or unknown key and every wrong type."""

import re
from collections.abc import Mapping
from typing import Any, Final

from edgepack.profiles.faults import LARGEST_INTEGER, Faults, did_you_mean, integer_fault, is_finite, is_number


class _Required:
    """Marks a key without a default."""


REQUIRED: Final = _Required()


class TomlTable:
    """One table of a TOML file.

    Every getter returns a value of its type even when it adds a fault, so that reading continues and finds further
    faults.

    Attributes:
        path: Key path for messages: "" for the whole file, `[quantization]`, `[quantization].schemes[1]`.
        present: False for an optional table that the file does not have.
    """

    def __init__(self, data: Any, path: str, faults: Faults, *, present: bool = True) -> None:
        self.path = path
        self.present = present
        self._faults = faults
        self._data: Mapping[str, Any] = {}
        self._known: set[str] = set()
        if isinstance(data, dict):
            self._data = data
        else:
            self.present = False
            faults.expected(path, "a table", data)

    def _key(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def _table_key(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else f"[{key}]"

    def _value(self, key: str, default: Any, kind: type | tuple[type, ...], what: str, empty: Any) -> Any:
        self._known.add(key)
        if key not in self._data:
            if default is not REQUIRED:
                return default
            if self.present:
                self._faults.add(self._key(key), f"missing: expected {what}")
            return empty
        value = self._data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self._faults.expected(self._key(key), what, value)
            return empty
        return value

    def has(self, key: str) -> bool:
        """Return whether the table has the key."""
        return key in self._data

    def names(self) -> list[str]:
        """Return the table's keys, sorted, and mark them as known."""
        self._known.update(self._data)
        return sorted(self._data)

    def text(self, key: str, default: str | _Required = REQUIRED, *, blank: bool = False) -> str:
        """Return a string, which must not be empty unless it may be `blank`."""
        value = str(self._value(key, default, str, "a string", ""))
        if not value.strip() and not blank and self.has(key) and isinstance(self._data[key], str):
            self._faults.expected(self._key(key), "a string that is not empty", value)
        return value

    def identifier(self, key: str) -> str:
        """Return an id: lower-case letters, digits, '-' and '_'."""
        value = self.text(key)
        if value and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", value):
            self._faults.expected(self._key(key), "an id of lower-case letters, digits, '-' and '_'", value)
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | _Required = REQUIRED) -> str:
        """Return one of `choices`."""
        value = str(self._value(key, default, object, f"one of {', '.join(choices)}", ""))
        if key in self._data and self._data[key] not in choices:
            self._faults.choice(self._key(key), choices, self._data[key])
        return value

    def integer(
        self, key: str, default: int | _Required = REQUIRED, *, lowest: int = 0, highest: int = LARGEST_INTEGER
    ) -> int:
        """Return an integer from `lowest` to `highest`."""
        value = int(self._value(key, default, int, f"an integer from {lowest}", lowest))
        if what := integer_fault(value, lowest, highest):
            self._faults.expected(self._key(key), what, value)
            return lowest
        return value

    def number(self, key: str) -> float:
        """Return a number."""
        value = self._value(key, REQUIRED, (int, float), "a number", 0.0)
        if not is_number(value):
            self._faults.expected(self._key(key), "a number", value)
            return 0.0
        return float(value)

    def boolean(self, key: str, default: bool | _Required = REQUIRED) -> bool:
        """Return true or false."""
        return bool(self._value(key, default, bool, "true or false", False))

    def strings(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self._value(key, default, (list, tuple), "a list of strings", default)
        if not all(isinstance(item, str) for item in value):
            self._faults.expected(self._key(key), "a list of strings", value)
            return default
        return tuple(value)

    def numbers(self, key: str, count: int, default: tuple[float, ...]) -> tuple[float, ...]:
        """Return a list of `count` numbers."""
        value = self._value(key, default, (list, tuple), f"a list of {count} numbers", default)
        if len(value) != count or not all(map(is_number, value)):
            self._faults.expected(self._key(key), f"a list of {count} numbers", value)
            return default
        return tuple(float(n) for n in value)

    def integers_by_name(self, key: str) -> dict[str, int]:
        """Return a table of names and integers from 1."""
        table = self._value(key, {}, dict, "a table", {})
        for name, value in table.items():
            if what := integer_fault(value, 1):
                self._faults.expected(f"{self._table_key(key)}.{name}", what, value)
        return {name: value for name, value in sorted(table.items()) if isinstance(value, int)}

    def texts_by_name(self, key: str) -> dict[str, str]:
        """Return a table of names and strings."""
        table = self._value(key, {}, dict, "a table", {})
        for name, value in table.items():
            if not isinstance(value, str) or not value.strip():
                self._faults.expected(f"{self._table_key(key)}.{name}", "a sentence", value)
        return {name: str(value) for name, value in sorted(table.items())}

    def unchecked(self, key: str) -> dict[str, Any]:
        """Return a table that the caller validates."""
        return dict(self._value(key, {}, dict, "a table", {}))

    def free(self, key: str) -> dict[str, Any]:
        """Return a table whose keys are not checked here; its values are plain, or lists of plain values."""
        table = self.unchecked(key)
        for name, value in table.items():
            for item in value if isinstance(value, list) else [value]:
                if not isinstance(item, str | bool) and not is_finite(item):
                    what = "a string, a finite number, true or false, or a list of these"
                    self._faults.expected(f"{self._table_key(key)}.{name}", what, value)
                    break
        return table

    def table(self, key: str, *, optional: bool = False) -> "TomlTable":
        """Return a sub-table."""
        self._known.add(key)
        path = self._table_key(key)
        if key not in self._data:
            if not optional and self.present:
                self._faults.add(path, "missing: expected a table")
            return TomlTable({}, path, self._faults, present=False)
        return TomlTable(self._data[key], path, self._faults)

    def tables(self, key: str) -> list["TomlTable"]:
        """Return an array of tables, empty when the key is absent."""
        value = self._value(key, [], list, "an array of tables", [])
        path = self._key(key) if self.path else f"[[{key}]]"
        return [TomlTable(entry, f"{path}[{i}]", self._faults) for i, entry in enumerate(value)]

    def rest(self) -> dict[str, Any]:
        """Return the entries that no getter has read, and mark them as known."""
        rest = {key: value for key, value in self._data.items() if key not in self._known}
        self._known.update(rest)
        return rest

    def reject_unknown_keys(self) -> None:
        """Add a fault for every key that no getter has read."""
        for key in self._data:
            if key not in self._known:
                self._faults.add(self._key(key), f"unknown key{did_you_mean(key, self._known)}")
