"""Models in memory: Keras 3, tf-keras and tf.Module, with datasets, in a process that has TensorFlow loaded.

The models live in one program of its own, because TensorFlow stays in the process that imports it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "live_program.py"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the program reports."""
    folder = tmp_path_factory.mktemp("live")
    environment = {**os.environ, "EDGEPACK_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    left = [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("edgepack")]
    return {**json.loads((folder / "report.json").read_text()), "left": left}


@pytest.mark.parametrize("kind", ["keras", "tf_keras", "layer of its own", "module"])
def test_a_live_model_is_built(outcome: Any, kind: str) -> None:
    """A model in memory gives a valid bundle whose outputs are those of the model."""
    assert outcome[kind]["ok"], outcome[kind]
    assert outcome[kind]["snr"] is None or outcome[kind]["snr"] > 30


@pytest.mark.parametrize("kind", ["keras", "tf_keras", "layer of its own", "module"])
def test_the_same_model_gives_the_same_bytes(outcome: Any, kind: str) -> None:
    """A second build of the model gives the same files and converts nothing: the cache knows its content."""
    assert outcome[kind]["same files"]
    assert not [message for message in outcome[kind]["again"] if message.startswith("converting")]


def test_other_weights_are_another_model(outcome: Any) -> None:
    """After a change of the weights, the same object is converted again."""
    assert outcome["changed weights"]["source"] != outcome["keras"]["source"]
    assert [message for message in outcome["changed weights"]["messages"] if message.startswith("converting")]


def test_a_dataset_is_read_as_far_as_needed(outcome: Any) -> None:
    """An endless tf.data.Dataset calibrates a model, as an array of its first samples does."""
    # 30 are asked for, in batches of 5, and tf.data reads ahead in threads of its own.
    assert outcome["dataset"]["ok"] and outcome["dataset"]["read"] <= 60
    assert "never end" in outcome["dataset"]["endless eval"]


def test_what_cannot_be_saved_is_explained(outcome: Any) -> None:
    """A module without signature, a model without weights, training of a module: one error with a hint."""
    for message, hint in outcome["errors"].values():
        assert message and hint


def test_nothing_is_left(outcome: Any) -> None:
    """The files that models and samples were saved to are removed."""
    assert outcome["left"] == []
