"""The saved state of a training is complete, or ignored."""

from pathlib import Path

import numpy as np

from edgepack.training.checkpoint import Checkpoint, remove


def test_state_comes_back(tmp_path: Path) -> None:
    """Saving and loading preserves every part of the state, including scalars and layers without weights."""
    state = Checkpoint(
        "me", 1, 3, {"b/c": [np.arange(6).reshape(2, 3)], "a": []}, [np.float32(2.5)], [np.int64(7)],
        [{"stage": "qat", "loss": 0.5}], ["a note"], b"\0tflite",
    )  # fmt: skip
    state.save(tmp_path / "deep" / "folder")
    loaded = Checkpoint.load(tmp_path / "deep" / "folder", "me")
    assert Checkpoint.load(tmp_path / "deep" / "folder", "you") is None
    assert loaded is not None
    assert (loaded.stage, loaded.epoch, loaded.history, loaded.notes) == (1, 3, state.history, state.notes)
    assert loaded.base["b/c"][0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded.base["a"] == []
    assert float(loaded.variables[0]) == 2.5
    assert int(loaded.optimizer[0]) == 7
    assert loaded.before_qat == b"\0tflite"


def test_a_damaged_state_is_no_state(tmp_path: Path) -> None:
    """A truncated file is ignored, so that the training starts again instead of failing."""
    Checkpoint("me", 0, 1, {"a": [np.zeros(100)]}).save(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:300])
    assert Checkpoint.load(tmp_path, "me") is None
    remove(tmp_path)
    assert not tmp_path.exists()
    assert Checkpoint.load(tmp_path, "me") is None
