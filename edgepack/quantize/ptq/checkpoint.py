"""Finished parts of a search, so that one that was killed continues where it was."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class Checkpoint:
    """Results of parts by what they depend on.

    Whoever keeps it between runs discards it when the model, the samples, the effort or the code change: names tell
    parts of one search apart.

    Args:
        known: Parts of an earlier run, by name.
        save: Called with the name and the content of each further part.
    """

    def __init__(
        self, known: Mapping[str, bytes] | None = None, save: Callable[[str, bytes], None] = lambda name, data: None
    ) -> None:
        self._known, self._save = dict(known or {}), save

    def get(self, name: str) -> Arrays | None:
        """Return the arrays of a part, None where it is not finished or cannot be read."""
        data = self._known.get(name)
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception:
            # A damaged part is computed again.
            return None

    def put(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep a finished part."""
        stream = io.BytesIO()
        np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]
        self._save(name, stream.getvalue())


def part_name(kind: str, *depends: Any) -> str:
    """Return the name of a part.

    Args:
        kind: What it is.
        depends: What it depends on, within one search: bytes and JSON values.
    """
    content = hashlib.sha256(kind.encode())
    for value in depends:
        content.update(value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode())
        content.update(b"\0")
    return content.hexdigest()[:40]
