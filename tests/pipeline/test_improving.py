import builders
import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.graph import read_model
from edgepack.pipeline.improving import improve_and_quantize
from edgepack.profiles.model import SchemeRule
from edgepack.samples import InputSpec, load_samples


@pytest.mark.slow
def test_improving_runs_in_a_child_and_reports(tmp_path):
    """The child gives back the same int8 file as a direct call, tells its progress, and reports each step's figures."""
    tflite = builders.classifier()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(0, 1, (12, 8, 8, 3)).astype(np.float32))
    spec = InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))
    samples = load_samples(str(tmp_path / "x.npy"), [spec])
    rule = SchemeRule("int8", "INT8")
    told: list[tuple[str, int, int]] = []
    with Worker() as worker:
        data, tool, notes, report = worker.call(
            "edgepack.pipeline.improving:improve_and_quantize",
            tflite,
            rule,
            samples,
            "high",
            ("absorb",),
            on_event=told.append,
        )
    assert (data, tool, notes, report) == improve_and_quantize(tflite, rule, samples, "high", ("absorb",))
    assert read_model(data).is_quantized and tool.startswith("ai-edge-quantizer")
    assert (report["effort"], report["samples"]) == ("high", 12)
    tried = [step["step"] for step in report["steps"]]
    assert tried[:3] == ["ranges", "margin", "pools"] and "rounding" in tried and "absorb" not in tried
    assert {step for step, _, _ in told} >= {"ranges", "equalize", "rounding"}
    assert all(0 <= done < parts for _, done, parts in told)
