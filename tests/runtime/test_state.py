"""No sample depends on the one before, except where a model is made for a stream: its samples are one."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from state_models import MODELS, StateNet, fused_lstm, memory, svdf

from edgepack.graph import read_model
from edgepack.quantize.calibrate import calibrate
from edgepack.runtime import Runner
from edgepack.runtime.evaluate import evaluate_samples, golden_vectors, kernel_spread
from edgepack.runtime.layers import layer_errors
from edgepack.samples import SampleSet

Array = npt.NDArray[np.float32]


def inputs(tflite: bytes, count: int) -> list[Array]:
    (shape,) = (info.shape for info in Runner(tflite).inputs)
    random = np.random.default_rng(1)
    return [random.normal(size=shape).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("kind", MODELS)
def test_runs_are_independent(kind: str) -> None:
    """A runner forgets the state before each run, and keeps it where the caller asks for a stream."""
    tflite = MODELS[kind]()
    assert read_model(tflite).state == kind
    runner = Runner(tflite)
    first, second = inputs(tflite, 2)
    alone = [Runner(tflite).run([x])[0].copy() for x in (first, second)]
    for x, expected in [(first, alone[0]), (second, alone[1]), (second, alone[1]), (first, alone[0])]:
        assert np.array_equal(runner.run([x])[0], expected)
    assert not np.array_equal(runner.run([second], keep_state=True)[0], alone[1])
    assert np.array_equal(runner.run([second])[0], alone[1])


def test_measurements_do_not_depend_on_the_order() -> None:
    """Calibration, golden vectors and the comparison of layers give for a sample what they give for it alone."""
    tflite = fused_lstm()
    samples = [{"x": x} for x in inputs(tflite, 3)]
    together = calibrate(tflite, samples)
    for sample in samples:
        together_again = calibrate(tflite, [sample])
        for key, statistics in together_again.tensors.items():
            assert together.tensors[key].minimum <= statistics.minimum
            assert together.tensors[key].maximum >= statistics.maximum
    assert calibrate(tflite, samples[::-1]).to_bytes() == together.to_bytes()
    cases = golden_vectors(tflite, samples)
    for sample, (_, outputs) in zip(samples, cases, strict=True):
        assert np.array_equal(outputs[0], golden_vectors(tflite, [sample])[0][1][0])
    assert kernel_spread(tflite, cases)[1] < 1e-5
    arrays = np.concatenate([one["x"] for one in samples])
    shape = {"x": (1, *arrays.shape[1:])}
    errors = layer_errors(tflite, tflite, SampleSet("x", "d", {"x": arrays}, shape, {"x": arrays.dtype}))
    assert all(error.snr_db is None for error in errors)


@pytest.mark.parametrize(
    ("make", "streams"), [(memory, True), (svdf, True), (lambda: fused_lstm(steps=1), True), (fused_lstm, False)]
)
def test_which_models_take_their_samples_as_a_stream(make: Callable[[], bytes], streams: bool) -> None:
    """Variables, an SVDF and an LSTM of one step mean nothing without the runs before; a whole sequence does."""
    tflite = make()
    assert read_model(tflite).is_stream == streams
    x = inputs(tflite, 1)[0]
    [first], [second] = (runner.run([x]) for runner in [Runner(tflite, stream=True)] for _ in range(2))
    assert np.array_equal(first, second) != streams


def test_a_stream_is_calibrated_and_measured_along_its_samples() -> None:
    """The memory's sum grows with each sample, and its range is that of the whole stream; golden cases stay apart."""
    tflite = memory()
    samples = [{"x": np.full((1, 4), 1.0, np.float32)} for _ in range(10)]
    assert [calibrate(tflite, samples).tensors[name].maximum for name in ("x", "y")] == [1.0, 10.0]
    assert [outputs[0].max() for _, outputs in golden_vectors(tflite, samples)] == [1.0] * 10
    arrays = np.concatenate([one["x"] for one in samples])
    forgets = StateNet()
    x = forgets.input("x")
    forgetful = forgets.build([x], [forgets.add("y", forgets.read(forgets.variable("memory"), "before"), x)])
    sample_set = SampleSet("x", "d", {"x": arrays}, {"x": (1, 4)}, {"x": arrays.dtype})
    assert evaluate_samples(tflite, {"same": tflite}, sample_set)["same"].quality.snr_db is None
    # Without the state it is right on the first sample only.
    snr_db = evaluate_samples(tflite, {"other": forgetful}, sample_set)["other"].quality.snr_db
    assert snr_db is not None and snr_db < 3
