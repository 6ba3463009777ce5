"""QNN's names of data types in the field's terms."""

import re
from collections.abc import Iterable

#: `SFIXED_POINT_8` is a quantized int8, `INT_8` one without a scale; both are int8 to a user.
_NAME = re.compile(r"(?:QNN_DATATYPE_)?(SFIXED_POINT|UFIXED_POINT|INT|UINT|FLOAT|BFLOAT|BOOL)_(4|8|16|32|64)")
_KINDS = {"SFIXED_POINT": "int", "UFIXED_POINT": "uint", "INT": "int", "UINT": "uint", "FLOAT": "float",
          "BFLOAT": "bfloat"}  # fmt: skip


def type_name(name: str) -> str:
    """Return a data type as `int8`, `uint16` or `float16`; empty for a name that QNN's log cuts off or leaves open."""
    match = _NAME.fullmatch(name)
    if match is None:
        return ""
    return "bool" if match[1] == "BOOL" else f"{_KINDS[match[1]]}{match[2]}"


def type_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the data types without repetitions and without incomplete names, integers by width first."""
    known = {type_name(name) for name in names} - {""}
    return tuple(sorted(known, key=lambda name: ("float" in name, int(re.sub(r"\D", "", name) or 1), name)))
