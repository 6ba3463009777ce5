"""Bytes behind the flatbuffer of a file that LiteRT's compiler wrote: the context binaries that its custom ops name.

An op `DISPATCH_OP` has the place of its binary as `bytecode_offset` in its options, counted from the start of the file,
so that an edit of the flatbuffer moves it.
"""

import struct
from typing import Any

import numpy as np

from edgepack.errors import ModelFileError
from edgepack.graph.edit import pack, unpack
from edgepack.graph.read import read_model

#: LiteRT aligns the binaries to 8 bytes and more; a cache line suits any of them.
_ALIGNMENT = 64


def bytecode(options: Any) -> tuple[int, int, str]:
    """Return offset, size and name of the binary that the options of a `DISPATCH_OP` name.

    Raises:
        ModelFileError: The options cannot be read.
    """
    from flatbuffers import flexbuffers

    try:
        entries = flexbuffers.Loads(bytes(bytearray(options)))
        return int(entries["bytecode_offset"]), int(entries["bytecode_size"]), str(entries["name"])
    except Exception as error:
        raise ModelFileError(f"the options of a compiled op cannot be read: {type(error).__name__}") from error


class AppendedBytes:
    """The binaries of a compiled file, to be put behind an edited flatbuffer.

    Args:
        compiled: The file.
    """

    def __init__(self, compiled: bytes) -> None:
        self._compiled = compiled
        self._start = min((offset for offset, _, _ in _binaries(compiled)), default=len(compiled))

    def after(self, flatbuffer: bytes) -> bytes:
        """Return an edited file with the binaries of the original one behind it, and their new offsets.

        Args:
            flatbuffer: The edited file as `pack` returns it, still with the offsets of the original.

        Raises:
            ModelFileError: The offsets cannot be replaced.
        """
        moved = flatbuffer
        if self._start < len(self._compiled):
            # The offsets have a fixed width, so that the length does not depend on them.
            place = -(-len(flatbuffer) // _ALIGNMENT) * _ALIGNMENT
            file = unpack(flatbuffer)
            for op in _dispatching(file, flatbuffer):
                op.customOptions = _replaced(op.customOptions, place - self._start)
            moved = pack(file)
            if len(moved) != len(flatbuffer):
                raise ModelFileError("the compiled file changed its length when its binaries were moved")
            moved = moved.ljust(place, b"\0") + self._compiled[self._start :]
        return moved


def _binaries(tflite: bytes) -> list[tuple[int, int, str]]:
    return [bytecode(op.customOptions) for op in _dispatching(unpack(tflite), tflite)]


def _dispatching(file: Any, tflite: bytes) -> list[Any]:
    """Return the ops of a `ModelT` that name a binary, in all graphs."""
    return [
        file.subgraphs[number].operators[op.index]
        for number, graph in enumerate(read_model(tflite).graphs)
        for op in graph.ops
        if op.label == "CUSTOM:DISPATCH_OP"
    ]


def _replaced(options: Any, shift: int) -> Any:
    """Return options with another offset; the flexbuffer's integers keep their eight bytes."""
    data = bytes(bytearray(options))
    offset, size, name = bytecode(options)
    old, new = struct.pack("<Q", offset), struct.pack("<Q", offset + shift)
    start = data.find(old)
    while start >= 0:
        changed = np.frombuffer(data[:start] + new + data[start + 8 :], np.uint8)
        if bytecode(changed) == (offset + shift, size, name):
            return changed
        start = data.find(old, start + 1)
    raise ModelFileError("the offset of a compiled op's binary is not written in eight bytes")
