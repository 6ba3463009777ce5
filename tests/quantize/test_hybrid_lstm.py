"""Dynamic range gives LSTM ops int8 weights, and leaves small ones and special ones in float."""

import builders
import numpy as np
from state_models import fused_lstm

from edgepack.graph import read_model
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.hybrid_lstm import hybrid_weights
from edgepack.quantize.preview import preview
from edgepack.quantize.quantizer import quantize
from edgepack.runtime import Runner

RULE = SchemeRule("dynamic-range")


def test_weights_become_int8() -> None:
    """The file is less than half as large, agrees with the preview, and runs with little loss from sample to sample."""
    tflite = fused_lstm(24)
    quantized = quantize(tflite, RULE).tflite
    assert len(quantized) < 0.5 * len(tflite)
    model, previewed = read_model(quantized), preview(read_model(tflite), RULE)
    for one in (model, previewed):
        (op,) = one.main.ops
        types = [None if tensor is None else tensor.dtype for tensor in one.main.op_inputs(op)]
        assert types[1:9] == ["INT8"] * 8
        assert types[12:16] == ["FLOAT32"] * 4
        assert op.version == 2
    samples = [np.random.default_rng(i).normal(size=(1, 4, 2)).astype(np.float32) for i in range(10)]
    reference, got = ([runner.run([x])[0].copy() for x in samples] for runner in (Runner(tflite), Runner(quantized)))
    assert builders.snr(reference, got) > 30


def test_small_weights_stay_float() -> None:
    """Fewer values than the threshold stay float32, as for other ops."""
    tflite = fused_lstm(3)
    assert hybrid_weights(read_model(tflite).main, read_model(tflite).main.ops[0]) == ()
    assert read_model(quantize(tflite, RULE).tflite).is_float
