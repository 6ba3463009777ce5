"""TFLiteConverter's quantizer converts the fused LSTM to int8, with ranges inside the op measured sample by sample."""

import numpy as np
import pytest
from builders import snr
from state_models import STEPS, UNITS, fused_lstm

from edgepack.child import Worker
from edgepack.convert.mlir_quantize import MLIR_QUANTIZE
from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.calibrate import calibrate
from edgepack.quantize.preview import preview
from edgepack.quantize.quantizer import adopt, with_ranges
from edgepack.quantize.ranges import choose_ranges
from edgepack.runtime import Runner
from edgepack.samples import SampleSet

pytestmark = pytest.mark.slow

RULE = SchemeRule("int8", "INT8")


def test_fused_lstm_becomes_int8(tensorflow_worker: Worker) -> None:
    """The file has int8 activations and weights, a 16-bit cell state as the preview says, and loses little."""
    tflite = fused_lstm()
    arrays = np.random.default_rng(0).normal(size=(60, STEPS, 2)).astype(np.float32)
    samples = SampleSet("x", "d", {"x": arrays[:40]}, {"x": (1, STEPS, 2)}, {"x": arrays.dtype})
    calibration = calibrate(tflite, (samples.sample(i) for i in range(len(samples))))
    ranges = choose_ranges(calibration, read_model(tflite))
    call = MLIR_QUANTIZE.call(with_ranges(tflite, ranges), io="INT8", samples=samples)
    data = adopt(tensorflow_worker.call(call), tflite, RULE, "TFLiteConverter").tflite
    quantized = read_model(data)
    previewed = preview(read_model(tflite), RULE)
    (made,), (expected,) = (one.main.ops for one in (quantized, previewed))
    types = [
        [None if tensor is None else tensor.dtype for tensor in one.main.op_inputs(op)]
        for one, op in ((quantized, made), (previewed, expected))
    ]
    assert types[0] == types[1]
    assert made.version == expected.version
    float_model, int8_model = Runner(tflite), Runner(data)
    reference = [float_model.run_real([x[None]])[0] for x in arrays[40:]]
    got = [int8_model.run_real([x[None]])[0] for x in arrays[40:]]
    assert reference[0].shape == (1, STEPS, UNITS)
    assert snr(reference, got) > 25


def test_without_samples_there_are_no_ranges(tensorflow_worker: Worker) -> None:
    """The ranges inside the op need samples: without them there is an error, and no crash of TensorFlow."""
    with pytest.raises(QuantizationError, match="need samples"):
        tensorflow_worker.call(MLIR_QUANTIZE.call(fused_lstm(), samples=0))
