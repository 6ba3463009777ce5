"""Models that keep a state in variables are converted, start from their initial state, and follow the original."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import FloatModel
from edgepack.graph import read_model
from edgepack.runtime.runner import Runner


@pytest.mark.parametrize("kind", ["saved-model", "LSTM", "GRU", "loop"])
def test_a_stream_follows_the_original(
    kind: str, tmp_path: Path, tensorflow_worker: Worker, converted: Callable[..., FloatModel]
) -> None:
    """Over 12 runs; the comparison and the conversion have run the original before, and leave no trace."""
    path = tmp_path / ("stream" if kind == "saved-model" else "layer.keras")
    shape = (1, 1, 6) if kind == "saved-model" else (1, 2, 6)
    samples = [value.astype(np.float32) for value in np.random.default_rng(0).normal(size=(12, *shape))]
    call = tensorflow_worker.call
    if kind == "saved-model":
        call("stateful_modules:ring_buffer", str(path))
    else:
        call("stateful_modules:stateful_layer", str(path), "LSTM" if kind == "loop" else kind, kind != "loop")
    expected = call("stateful_modules:stream_of", str(path), kind, samples)
    model = converted(path)
    assert read_model(model.tflite).state == "resource-variables"
    assert not any("freezing" in note for note in model.notes)
    runner = Runner(model.tflite)
    for number, (sample, right) in enumerate(zip(samples, expected, strict=True)):
        [result] = runner.run([sample], keep_state=number > 0)
        np.testing.assert_allclose(result, right, rtol=0, atol=1e-5 * np.abs(right).max())
