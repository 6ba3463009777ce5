"""The state of a training is there whole or not at all."""

from pathlib import Path

import numpy as np

from edgepack.train.checkpoint import Checkpoint, forget


def test_state_comes_back(tmp_path: Path) -> None:
    """Every part of the state survives the file, scalars and layers without weights too."""
    state = Checkpoint(
        "me", 1, 3, {"b/c": [np.arange(6).reshape(2, 3)], "a": []}, [np.float32(2.5)], [np.int64(7)],
        [{"stage": "qat", "loss": 0.5}], ["a note"], b"\0tflite",
    )  # fmt: skip
    state.save(tmp_path / "deep" / "folder")
    found = Checkpoint.load(tmp_path / "deep" / "folder", "me")
    assert Checkpoint.load(tmp_path / "deep" / "folder", "you") is None
    assert found is not None
    assert (found.stage, found.epoch, found.history, found.notes) == (1, 3, state.history, state.notes)
    assert found.base["b/c"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.base["a"] == []
    assert float(found.variables[0]) == 2.5
    assert int(found.optimizer[0]) == 7
    assert found.before_qat == b"\0tflite"


def test_a_damaged_state_is_no_state(tmp_path: Path) -> None:
    """A truncated file starts the training again instead of failing."""
    Checkpoint("me", 0, 1, {"a": [np.zeros(100)]}).save(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:300])
    assert Checkpoint.load(tmp_path, "me") is None
    forget(tmp_path)
    assert not tmp_path.exists()
    assert Checkpoint.load(tmp_path, "me") is None
