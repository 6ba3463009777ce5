"""What was found out about the large byte strings that a command handles last: digests, parsed models.

A build hashes and parses the same model a dozen times, in stages that know nothing of each other. The object itself is
the key: bytes never change, and comparing identities costs nothing.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

#: Byte strings that one memory keeps alive, and their size together: the files of a build of four targets. A larger
#: string is not kept.
_MOST = 16
_MOST_BYTES = 64 << 20


class Recent(Generic[T]):
    """Results about the byte strings that were asked for last."""

    def __init__(self) -> None:
        self._results: OrderedDict[int, tuple[bytes, T]] = OrderedDict()
        self._bytes = 0
        #: A program may build in several threads.
        self._lock = threading.Lock()

    def get(self, data: bytes, compute: Callable[[], T]) -> T:
        """Return the result for a byte string, computed unless it is known.

        Args:
            data: The byte string; subclasses and equal strings are other objects.
            compute: Computes the result, which nobody may change afterwards.
        """
        with self._lock:
            known = self._results.get(id(data))
            if known is not None:
                self._results.move_to_end(id(data))
                return known[1]
        result = compute()
        if type(data) is bytes and len(data) <= _MOST_BYTES:
            with self._lock:
                self._keep(data, result)
        return result

    def _keep(self, data: bytes, result: T) -> None:
        if id(data) in self._results:
            # Another thread was faster.
            return
        # The string is kept, so that its identity stays its own.
        self._results[id(data)] = data, result
        self._bytes += len(data)
        while len(self._results) > _MOST or self._bytes > _MOST_BYTES:
            _, (dropped, _) = self._results.popitem(last=False)
            self._bytes -= len(dropped)
