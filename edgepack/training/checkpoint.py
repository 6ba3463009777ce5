"""State of a training after each epoch, in one file that is written atomically."""

import contextlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.errors import TransformError, UsageError
from edgepack.files import write_atomically

_NAME = "training.npz"


@dataclass
class Checkpoint:
    """The state after an epoch.

    Attributes:
        identity: Digest of model, data, recipe and options; the state of another training is not resumed.
        stage: Index of the stage.
        epoch: Finished epochs of the stage.
        base: Weights by layer at the start of the stage.
        variables: Variables of the wrapped model, in the model's order; empty before the first epoch.
        optimizer: Variables of the optimizer, in the optimizer's order.
        history: One entry per finished epoch.
        notes: Notes for the user so far.
        before_qat: The float .tflite that quantization-aware training started from, empty before that.
    """

    identity: str
    stage: int
    epoch: int
    base: dict[str, list[Any]]
    variables: Sequence[Any] = ()
    optimizer: Sequence[Any] = ()
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    before_qat: bytes = b""

    def save(self, folder: Path) -> None:
        """Write the state atomically: a process killed while writing leaves the previous state.

        Raises:
            TransformError: The file cannot be written.
        """
        arrays: dict[str, Any] = {"before_qat": np.frombuffer(self.before_qat, np.uint8)}
        names = sorted(self.base)
        for position, name in enumerate(names):
            arrays.update({f"base_{position}_{i}": array for i, array in enumerate(self.base[name])})
        arrays.update({f"variable_{i}": array for i, array in enumerate(self.variables)})
        arrays.update({f"optimizer_{i}": array for i, array in enumerate(self.optimizer)})
        meta = {
            "identity": self.identity,
            "stage": self.stage,
            "epoch": self.epoch,
            "layers": [[name, len(self.base[name])] for name in names],
            "variables": len(self.variables),
            "optimizer": len(self.optimizer),
            "history": self.history,
            "notes": self.notes,
        }
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        try:
            write_atomically(folder / _NAME, stream.getvalue())
        except UsageError as error:
            raise TransformError(f"the state of the training cannot be saved: {error.message}") from error

    @classmethod
    def load(cls, folder: Path, identity: str) -> "Checkpoint | None":
        """Return the state in a folder, None when there is no readable one or it belongs to another training."""
        try:
            with (folder / _NAME).open("rb") as stream:
                stored = np.load(stream, allow_pickle=False)
                meta = json.loads(stored["meta"].tobytes())
                if meta["identity"] != identity:
                    return None
                return cls(
                    identity=identity,
                    stage=meta["stage"],
                    epoch=meta["epoch"],
                    base={
                        name: [stored[f"base_{position}_{i}"] for i in range(count)]
                        for position, (name, count) in enumerate(meta["layers"])
                    },
                    variables=[stored[f"variable_{i}"] for i in range(meta["variables"])],
                    optimizer=[stored[f"optimizer_{i}"] for i in range(meta["optimizer"])],
                    history=meta["history"],
                    notes=meta["notes"],
                    before_qat=stored["before_qat"].tobytes(),
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None


def remove(folder: Path) -> None:
    """Remove the state of a finished training."""
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink()
        folder.rmdir()
