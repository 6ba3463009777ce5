"""Published files with float16 weights: check and build treat them alike, as the float models that they are."""

from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.pipeline.build import build
from edgepack.pipeline.check import check
from edgepack.pipeline.options import BuildOptions
from edgepack.quantize.float16 import to_float16


@pytest.mark.slow
def test_check_and_build_agree_on_float16_weights(tmp_path: Path) -> None:
    """Both plan int8 for the Edge TPU, list the ops of the float model, and the int8 file keeps its outputs."""
    plain = builders.classifier()
    path = tmp_path / "half.tflite"
    path.write_bytes(to_float16(plain))
    samples = builders.samples(plain, 40)
    np.savez(tmp_path / "samples.npz", **{name: np.concatenate([s[name] for s in samples]) for name in samples[0]})
    checked = check(path, ["edgetpu"]).results[0]
    options = BuildOptions(samples=str(tmp_path / "samples.npz"), dry_run=True)
    built = build(path, ["edgetpu"], options).results[0]
    assert checked.error is None and built.error is None
    assert checked.planned == built.scheme == "int8"
    assert checked.report is not None and built.report is not None
    # Quantization gives the average over the image a scale of its own where samples gain by it.
    forms = {"AVERAGE_POOL_2D": "MEAN"}
    assert [forms.get(op.op, op.op) for op in checked.report.ops] == [op.op for op in built.report.ops]
    assert not any(op.op == "DEQUANTIZE" for op in checked.report.ops)
    (tmp_path / "plain.tflite").write_bytes(plain)
    same = build(tmp_path / "plain.tflite", ["edgetpu"], options).results[0]
    assert built.quality is not None and same.quality is not None
    # Half precision rounds the weights a thousand times finer than int8 does.
    assert built.quality.snr_db == pytest.approx(same.quality.snr_db, abs=1)
