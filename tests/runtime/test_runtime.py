"""Running models on this machine: names and quantization of the file, and the quality metrics."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.errors import ModelFileError, UnfitModelError
from edgepack.graph import read_model
from edgepack.graph.edit import pack, unpack
from edgepack.runtime import QualityMeter, Runner, TensorInfo, dequantize, quantize
from edgepack.runtime.evaluate import evaluate, golden_vectors, kernel_spread, synthetic_samples
from edgepack.runtime.logits import expose_logits
from edgepack.samples import InputSpec, load_samples


def info(scale: float, zero_point: int, dtype: str = "int8") -> TensorInfo:
    return TensorInfo("x", "x", 0, (1,), (1,), dtype.upper(), np.dtype(dtype), scale, zero_point)


def test_quantize_rounds_half_to_even_and_saturates() -> None:
    """XNNPACK's QUANTIZE, the runtime's default, rounds halves to even."""
    got = quantize(info(1.0, 0), np.array([0.5, -0.5, 1.5, 2.5, -2.5, 300, -300, 0.49]))
    assert got.tolist() == [0, 0, 2, 2, -2, 127, -128, 0]


def test_quantize_agrees_with_the_runtime(shared_models: Path) -> None:
    """Values quantized with the parameters of a real file are at most half a scale step off."""
    runner = Runner((shared_models / "mlperf-tiny/kws_reference_int8.tflite").read_bytes())
    tensor = runner.inputs[0]
    real = np.linspace(-200, 50, 490, dtype=np.float32).reshape(tensor.shape)
    back = dequantize(tensor, quantize(tensor, real))
    inside = (real > (-128 - tensor.zero_point) * tensor.scale) & (real < (127 - tensor.zero_point) * tensor.scale)
    assert np.abs(back - real)[inside].max() <= tensor.scale * 0.5001


def test_real_accuracy_of_a_published_model(shared_models: Path) -> None:
    """MLPerf Tiny's int8 keyword spotter reaches its published 90 % on half of its test set."""
    data = (shared_models / "mlperf-tiny/kws_reference_int8.tflite").read_bytes()
    tensor = Runner(data).inputs[0]
    spec = InputSpec(tensor.name, tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point)
    samples = load_samples(str(shared_models / "mlperf-tiny/kws_samples.npz"), [spec])
    quality = evaluate(data, {"same": data}, samples)["same"]
    assert quality.top1 is not None
    assert 89.5 < quality.top1 < 91.5
    assert (quality.snr_db, quality.agreement, quality.collapsed) == (None, 100.0, ())


def test_several_inputs_and_outputs(shared_models: Path) -> None:
    """Names are those of the file, and golden vectors are the same in every run."""
    data = (shared_models / "coral/split_concat.tflite").read_bytes()
    runner = Runner(data)
    assert [i.name for i in runner.inputs] == ["input1", "inputs/rnn1", "inputs/rnn2"]
    samples = synthetic_samples(runner.inputs, 2)
    first, second = golden_vectors(data, samples), golden_vectors(data, samples)
    for (inputs, outputs), (inputs2, outputs2) in zip(first, second, strict=True):
        for a, b in zip([*inputs, *outputs], [*inputs2, *outputs2], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(first[0][1]) == 5


def test_a_compiled_edge_tpu_file_is_refused(shared_models: Path) -> None:
    """An _edgetpu.tflite does not run on this machine, and the hint names the file that does."""
    with pytest.raises(UnfitModelError, match="edgetpu_compiler") as caught:
        Runner((shared_models / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes())
    assert "host model" in caught.value.hint


def test_no_model_is_one_error() -> None:
    """Bytes that are no flatbuffer are a ModelFileError."""
    with pytest.raises(ModelFileError):
        Runner(b"nothing")


def test_figures_of_known_errors() -> None:
    """SNR, largest error, top-1 and agreement follow their formulas."""
    meter = QualityMeter(["out"], 0)
    meter.add([np.array([[1.0, 0.0]])], [np.array([[0.9, 0.0]])], 0)
    meter.add([np.array([[0.0, 1.0]])], [np.array([[0.6, 0.5]])], 1)
    quality = meter.result()
    assert quality.snr_db == pytest.approx(10 * np.log10(1 / (0.01 + 0.36 + 0.25)))
    assert quality.max_error == pytest.approx(0.6)
    assert (quality.top1_float, quality.top1, quality.agreement, quality.drop) == (100.0, 50.0, 50.0, 50.0)


def test_a_collapsed_output_is_named() -> None:
    """An output that is constant over all samples is reported where the float model's varies."""
    meter = QualityMeter(["a", "b"], None)
    for value in (0.1, 0.2):
        meter.add([np.array([value]), np.array([value])], [np.array([0.0]), np.array([value])])
    assert meter.result().collapsed == ("a",)


def test_kernels_differ_and_it_is_measured(shared_models: Path) -> None:
    """The difference between the built-in kernels and XNNPACK on a real model is counted in scale steps."""
    data = (shared_models / "mlperf-tiny/kws_reference_int8.tflite").read_bytes()
    cases = golden_vectors(data, synthetic_samples(Runner(data).inputs, 20))
    steps, relative = kernel_spread(data, cases)
    assert 0 <= steps <= 64
    assert relative == 0.0
    moved = [(inputs, [outputs[0] ^ 1]) for inputs, outputs in cases]
    assert kernel_spread(data, moved)[0] >= 1


def test_a_model_that_plain_kernels_refuse_has_no_spread(shared_models: Path) -> None:
    """The spread is zero for a model that the built-in kernels cannot run."""
    data = (shared_models / "coral/mobilenet_v1_0.25_128_quant_edgetpu.tflite").read_bytes()
    assert kernel_spread(data, [([], [])]) == (0, 0.0)


def test_logits_are_measured_where_the_model_ends_in_softmax() -> None:
    """The SNR of the logits is that of the tensor before SOFTMAX; the other metrics are those of the outputs."""
    root = Path(__file__).resolve().parents[2]
    float_model = (root / "tests" / "data" / "digits_float.tflite").read_bytes()
    base = Runner(float_model)
    samples = load_samples(
        str(root / "examples" / "digits" / "eval.npz"),
        [InputSpec(base.inputs[0].name, base.inputs[0].shape, base.inputs[0].dtype, 0.0, 0)],
    ).limited(60)
    # A model with errors only in its last layer: the biases of the classes are changed.
    graph = read_model(float_model).main
    dense = [op for op in graph.ops if op.name == "FULLY_CONNECTED"][-1]
    moved = graph.tensors[dense.inputs[2]].data + np.linspace(0.0, 0.5, 10, dtype=np.float32)
    model = unpack(float_model)
    model.buffers[graph.tensors[dense.inputs[2]].buffer].data = np.frombuffer(moved.tobytes(), np.uint8)
    changed = pack(model)
    quality = evaluate(float_model, {"changed": changed, "same": float_model}, samples)
    runners = [Runner(expose_logits(data)) for data in (float_model, changed)]
    pairs = [[runner.run_real(list(samples.sample(i).values()))[0] for runner in runners] for i in range(len(samples))]
    mean = np.mean([want for want, _ in pairs], axis=0)
    signal = sum(float(np.sum((want - mean) ** 2)) for want, _ in pairs)
    noise = sum(float(np.sum((want - got) ** 2)) for want, got in pairs)
    assert quality["changed"].logits_snr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-6)
    assert quality["changed"].snr_db != quality["changed"].logits_snr_db
    assert (quality["same"].logits_snr_db, quality["same"].snr_db, quality["same"].agreement) == (None, None, 100.0)
    assert quality["changed"].to_json()["logits_snr_db"] == round(quality["changed"].logits_snr_db, 2)
