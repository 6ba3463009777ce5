"""LSTM layers of every origin become TFLite's fused op, and loops that cannot are reported with the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.convert import FloatModel
from edgepack.convert.compare import relative_difference
from edgepack.convert.recurrent import fuse_lstms
from edgepack.graph import Model, read_model
from edgepack.runtime import Runner

Convert = Callable[..., FloatModel]
Make = Callable[..., Path]

pytestmark = pytest.mark.slow

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def names(model: Model) -> list[str]:
    return [op.name for graph in model.graphs for op in graph.ops]


def steps(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(1, 6, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("library", "kind", "file", "count"),
    [
        ("keras", "stack", "stack.keras", 2),
        ("tf_keras", "bidirectional", "bidirectional.h5", 2),
        ("keras", "no bias", "no_bias.keras", 1),
        ("tf_keras", "twice", "twice.keras", 2),
        ("keras", "bidirectional", "exported", 2),
    ],
)
def test_lstm_layers_are_fused(converted: Convert, make: Make, library: str, kind: str, file: str, count: int) -> None:
    """Keras 2, Keras 3 and SavedModels give the fused op and no loop, with the outputs of the original every time."""
    path = make("recurrent", file, library, kind)
    result = converted(path)
    model = read_model(result.tflite)
    assert names(model).count(FUSED) == count
    assert "WHILE" not in names(model)
    assert len(model.graphs) == 1
    assert model.is_stateful
    runner = Runner(result.tflite)
    expected = np.load(path.with_name("expected.npz"))
    for x, y in zip(expected["inputs"], expected["outputs"], strict=True):
        assert relative_difference([y], runner.run([x])) < 1e-5


@pytest.mark.parametrize(
    ("library", "kind", "reason"),
    [
        ("keras", "gru", "no LSTM"),
        ("tf_keras", "mask", "a mask leaves out"),
        ("keras", "relu", "no LSTM"),
        ("keras", "state", "return_state"),
    ],
)
def test_other_loops_stay_with_a_reason(converted: Convert, make: Make, library: str, kind: str, reason: str) -> None:
    """A loop that the fused op does not compute stays, and a note names the layer, the reason and the way out."""
    result = converted(make("recurrent", f"{kind}.keras", library, kind))
    assert "WHILE" in names(read_model(result.tflite))
    (note,) = result.notes
    assert reason in note
    assert "unroll=True" in note
    assert ("gru" if kind == "gru" else "lstm") in note


def test_a_tflite_with_a_loop(converted: Convert, make: Make) -> None:
    """A .tflite whose LSTM is a loop is fused as well, and computes the same."""
    path = make("looping", "loop.tflite", "stack")
    before, result = path.read_bytes(), converted(path)
    assert names(read_model(before)).count("WHILE") == 2
    assert names(read_model(result.tflite)).count(FUSED) == 2
    assert len(result.tflite) < len(before)
    assert "fused" in result.notes[0]
    for seed in range(3):
        expected = Runner(before).run([steps(seed)])
        assert relative_difference(expected, Runner(result.tflite).run([steps(seed)])) < 1e-5
    assert fuse_lstms(result.tflite).tflite == result.tflite
