"""Memory of results about parts of a graph, for a search that examines many variants of one model.

Variants share most of their tensors and options as the same objects. A result is looked up by the identity of the
objects that it depends on, which costs a fraction of computing it again.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from edgepack.graph.model import Graph, Op, Tensor

T = TypeVar("T")


class Memo:
    """Results by the identity of objects and by further hashable values.

    The objects are kept alive, so that no identity is reused; a memo lives as long as one search.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[object, ...], Any] = {}
        self._kinds: dict[int, int] = {}
        self._known_kinds: dict[tuple[object, ...], int] = {}
        self._kept: list[object] = []

    def get(self, objects: tuple[object, ...], rest: tuple[object, ...], compute: Callable[[], T]) -> T:
        """Return the result for objects and further values, computed when it is not known.

        Args:
            objects: The objects that the result depends on; none of them changes.
            rest: Whatever else it depends on, beginning with the name of the computation.
            compute: Computes the result.
        """
        key = (rest, *map(id, objects))
        try:
            return self._results[key]  # type: ignore[no-any-return]
        except KeyError:
            result = self._results[key] = compute()
            self._kept.append(objects)
            return result

    def about(self, name: str, compute: Callable[[Graph, Op], T], graph: Graph, op: Op, *facts: object) -> T:
        """Return a result about an op that depends on its kind, version, options and tensors, and on further facts.

        Args:
            name: Name of the computation.
            compute: Computes the result.
            graph: The op's graph.
            op: The op.
            facts: What else the result depends on.
        """
        tensors = graph.tensors
        kinds = tuple([self.kind(tensors[i]) if i >= 0 else -1 for i in (*op.inputs, *op.outputs)])
        rest = (name, op.label, op.version, len(op.inputs), kinds, facts)
        return self.get((op.options,), rest, lambda: compute(graph, op))

    def kind(self, tensor: Tensor) -> int:
        """Return a number that tensors share which differ in name, index and buffer only."""
        known = self._kinds.get(id(tensor))
        if known is not None:
            return known
        facts = (
            tensor.dtype, tensor.shape, tensor.shape_signature, id(tensor.raw), id(tensor.quantization),
            tensor.is_variable, tensor.has_sparsity, tensor.has_rank,
        )  # fmt: skip
        number = self._kinds[id(tensor)] = self._known_kinds.setdefault(facts, len(self._known_kinds))
        self._kept.append(tensor)
        return number
