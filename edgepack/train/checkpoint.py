"""Where a training stands after each epoch, as one file that is there whole or not at all."""

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_NAME = "training.npz"


@dataclass
class Checkpoint:
    """The state after an epoch.

    Attributes:
        identity: What is trained on what and how; a state of another training is not taken up.
        stage: Index of the stage.
        epoch: Epochs of it that are done.
        base: Weights by layer that the stage started from.
        variables: The wrapped model's variables, in its own order; empty before the first epoch.
        optimizer: The optimizer's variables, in its own order.
        history: One entry per epoch so far.
        notes: Sentences for the user so far.
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
        """Write the state in one step; a kill while writing leaves the state before."""
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
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{_NAME}.{os.getpid()}"
        temporary.write_bytes(stream.getvalue())
        temporary.replace(folder / _NAME)

    @classmethod
    def load(cls, folder: Path, identity: str) -> "Checkpoint | None":
        """Return the state in a folder, None when there is none that can be read or it is of another training."""
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


def forget(folder: Path) -> None:
    """Remove the state of a training that is done."""
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink()
        folder.rmdir()
