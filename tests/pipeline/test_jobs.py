import json

import builders
import numpy as np
import pytest

from edgepack.child import Worker
from edgepack.graph import read_model
from edgepack.pipeline.improving import improve_float, mix_ops, with_ranges
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
        better, ranges, report = worker.call(
            "edgepack.pipeline.improving:improve_float",
            tflite,
            rule,
            samples,
            "high",
            ("absorb",),
            on_event=told.append,
        )
    assert (better, ranges, report) == improve_float(tflite, rule, samples, "high", ("absorb",))
    data, tool, notes = with_ranges(better, rule, json.loads(json.dumps(ranges)))
    assert (data, tool, notes) == with_ranges(better, rule, ranges)
    assert read_model(data).is_quantized and tool.startswith("ai-edge-quantizer")
    assert (report["effort"], report["samples"]) == ("high", 12)
    tried = [step["step"] for step in report["steps"]]
    assert tried[:3] == ["ranges", "margin", "bounds"] and "rounding" in tried and "absorb" not in tried
    assert {step for step, _, _ in told} >= {"ranges", "balance", "rounding"}
    assert all(0 <= done < parts for _, done, parts in told)


@pytest.mark.slow
def test_mixing_runs_in_a_child_and_reports(tmp_path):
    """The child gives the file that holds the limit, and the report says which ops stayed float and what it cost."""
    tflite = builders.classifier()
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(0, 1, (12, 8, 8, 3)).astype(np.float32))
    samples = load_samples(str(tmp_path / "x.npy"), [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))])
    rule = SchemeRule("int8", "FLOAT32", mixed=("float32",))
    model, ranges, _ = improve_float(tflite, rule, samples, "low")
    given = (model, rule, json.loads(json.dumps(ranges)), samples, tflite, samples, 0.0)
    with Worker() as worker:
        data, tool, _, report = worker.call("edgepack.pipeline.improving:mix_ops", *given)
    assert (data, tool) == mix_ops(*given)[:2]
    assert report["after"]["agreement"] == 100.0
    assert report["kept_as"] == "float32"
    assert report["ops"] == len(read_model(tflite).main.ops)
