"""Files that differ in the constants of their layers only: what was worked out for one serves all of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepack.graph import Graph, read_model
from edgepack.quantize.ptq.layers import find_layers


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: npt.NDArray[Any], data: bytes) -> "Place | None":
        """Return the place of a view, None where the array is not part of the file."""
        base = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
        start = array.__array_interface__["data"][0] - base
        if not array.flags.c_contiguous or not 0 <= start <= len(data) - array.nbytes:
            return None
        return cls(start, array.shape, array.dtype)

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + int(np.prod(self.shape)) * self.dtype.itemsize

    def read(self, data: bytes | bytearray) -> npt.NDArray[Any]:
        """Return the array of a file, a view."""
        return np.frombuffer(data, self.dtype, int(np.prod(self.shape)), self.start).reshape(self.shape)

    def write(self, data: bytearray, values: npt.ArrayLike) -> None:
        """Write an array into a file."""
        data[self.start : self.end] = np.ascontiguousarray(values, self.dtype).tobytes()


@dataclass(frozen=True)
class Variants:
    """All float files that differ from one of them in the constants of its layers only.

    Attributes:
        tflite: That one.
        graph: Its graph.
        constants: Places of its layers' weights and biases, by tensor index.
    """

    tflite: bytes
    graph: Graph
    constants: dict[int, Place]

    @classmethod
    def of(cls, tflite: bytes) -> "Variants":
        """Return the variants of a file."""
        graph = read_model(tflite).main
        places = {}
        for layer in find_layers(graph):
            for index in (layer.weights, layer.bias):
                data = graph.tensors[index].data if index >= 0 else None
                place = None if data is None else Place.of(data, tflite)
                if place is not None:
                    places[index] = place
        return cls(tflite, graph, places)

    def contains(self, tflite: bytes) -> bool:
        """Return whether a file is one of them."""
        if len(tflite) != len(self.tflite):
            return False
        start = 0
        ours, theirs = np.frombuffer(self.tflite, np.uint8), np.frombuffer(tflite, np.uint8)
        for place in sorted(self.constants.values(), key=lambda place: place.start):
            if not np.array_equal(ours[start : place.start], theirs[start : place.start]):
                return False
            start = place.end
        return np.array_equal(ours[start:], theirs[start:])
