"""Models that were trained with TFMOT convert without --allow-code, and keep the ranges that they learned."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.convert import FloatModel
from edgepack.graph import read_model
from edgepack.graph.fake_quant import learned_ranges, with_fake_quant
from edgepack.quantize.ranges import unlearned
from edgepack.runtime import Runner

pytestmark = pytest.mark.slow

IMAGES = np.random.default_rng(5).random((32, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["quantized.h5", "quantized_saved", "pruned.h5", "clustered.h5"])
def test_wrapped_models_convert(
    name: str, tmp_path: Path, tensorflow_worker: Worker, converted: Callable[..., FloatModel]
) -> None:
    """Wrappers leave a plain float file with the outputs of the saved model; quantized ones leave their ranges."""
    path = tmp_path / name
    kind = name.split(".", maxsplit=1)[0].split("_", maxsplit=1)[0]
    tensorflow_worker.call("tfmot_models:save", str(path), kind)
    tflite = converted(path).tflite
    model = read_model(tflite)
    assert (model.is_float, [op.name for op in model.main.ops]) == (
        True,
        ["CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED"],
    )
    ranges = learned_ranges(tflite)
    assert bool(ranges) == (kind == "quantized")
    assert kind != "quantized" or unlearned(model, ranges) == ()
    runner = Runner(with_fake_quant(tflite))
    outputs = np.concatenate([runner.run([image[None]])[0] for image in IMAGES])
    expected = np.load(path.with_suffix(".npy"))
    # In steps of the output's range. Its own rounding, half a step, is left to the int8 file; a value between two steps
    # in an inner layer may go either way.
    low, high = ranges.get(model.main.tensors[model.main.outputs[0]].name, (0.0, 255 * 1e-5))
    steps = np.abs(outputs - expected) / ((high - low) / 255)
    assert (steps.mean() < 0.5, steps.max() < 2) == (True, True)
