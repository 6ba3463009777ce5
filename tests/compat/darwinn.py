"""Reads the parameters of files compiled by edgetpu_compiler from their DarwiNN packages."""

import struct

#: Identifier of a package's flatbuffer, four bytes after its root offset.
_MAGIC = b"DWN1"
#: Fields by number: the package's serialized multi-executable, its executables, an executable's parameters.
_MULTI, _EXECUTABLES, _PARAMETERS = 1, 0, 6


def compiled_parameter_bytes(data: bytes) -> int:
    """Return the bytes of parameters in a compiled file, all executables together."""
    total = 0
    at = data.find(_MAGIC)
    while at >= 0:
        package = data[at - 4 :]
        multi = _vector(package, _root(package), _MULTI)
        start, count = _place(multi, _root(multi), _EXECUTABLES)
        for i in range(count):
            offset = _follow(multi, start + 4 * i)
            size = struct.unpack_from("<I", multi, offset)[0]
            executable = multi[offset + 4 : offset + 4 + size]
            total += _place(executable, _root(executable), _PARAMETERS)[1]
        at = data.find(_MAGIC, at + 4)
    return total


def _root(buffer: bytes) -> int:
    return _follow(buffer, 0)


def _follow(buffer: bytes, at: int) -> int:
    return int(at + struct.unpack_from("<I", buffer, at)[0])


def _place(buffer: bytes, table: int, field: int) -> tuple[int, int]:
    """Return the offset and the number of a vector's elements; (0, 0) for an absent vector."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    offset = struct.unpack_from("<H", buffer, vtable + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
    if not offset:
        return 0, 0
    vector = _follow(buffer, table + offset)
    return vector + 4, int(struct.unpack_from("<I", buffer, vector)[0])


def _vector(buffer: bytes, table: int, field: int) -> bytes:
    start, count = _place(buffer, table, field)
    return buffer[start : start + count]
