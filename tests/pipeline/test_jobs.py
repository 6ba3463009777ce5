"""The PTQ jobs: what a child returns is what a direct call returns, with progress and a report."""

import json
import subprocess
import sys
from pathlib import Path

import builders
import numpy as np
import pytest

from edgepack.child import Job, Worker
from edgepack.errors import ConversionError, EdgepackError, QuantizationError, SamplesError, UnfitModelError
from edgepack.graph import read_model
from edgepack.pipeline import jobs
from edgepack.pipeline.jobs import (
    QUANTIZE_MIXED,
    RUN_PTQ_STEPS,
    FinishedPart,
    quantize_mixed,
    quantize_with_ranges,
    run_ptq_steps,
)
from edgepack.profiles.model import SchemeRule
from edgepack.samples import InputSpec, SampleSet, load_samples


def pictures(folder: Path) -> SampleSet:
    np.save(folder / "x.npy", np.random.default_rng(0).normal(0, 1, (12, 8, 8, 3)).astype(np.float32))
    return load_samples(str(folder / "x.npy"), [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))])


@pytest.mark.slow
def test_improving_runs_in_a_child_and_reports(tmp_path: Path) -> None:
    """The child returns the same result as a direct call, emits progress, and reports each step's figures."""
    tflite, samples = builders.classifier(), pictures(tmp_path)
    rule = SchemeRule("int8", "INT8")
    events: list[tuple[str, int, int] | FinishedPart] = []
    with Worker() as worker:
        off = ("absorb", "balance", "bias", "center", "equalize")
        result = worker.run(RUN_PTQ_STEPS.call(tflite, rule, samples, "medium", off), on_event=events.append)
    assert result == run_ptq_steps(tflite, rule, samples, "medium", off)
    file = quantize_with_ranges(result.tflite, rule, json.loads(json.dumps(result.ranges)))
    assert file == quantize_with_ranges(result.tflite, rule, result.ranges)
    assert read_model(file.tflite).is_quantized
    assert file.tool.startswith("ai-edge-quantizer")
    assert (result.report["effort"], result.report["samples"]) == ("medium", 12)
    steps = [step["step"] for step in result.report["steps"]]
    assert {"rounding", "ranges", "bounds"} <= set(steps)
    assert "absorb" not in steps
    steps_begun = [event for event in events if not isinstance(event, FinishedPart)]
    assert {step for step, _, _ in steps_begun} >= {"ranges", "bounds", "rounding"}
    assert all(0 <= part < parts for _, part, parts in steps_begun)


def test_the_lowest_effort_loads_no_tensorflow(tmp_path: Path) -> None:
    """The steps of effort low on a .tflite run without TensorFlow, whose import takes seconds and half a gigabyte."""
    (tmp_path / "model.tflite").write_bytes(builders.classifier())
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(0, 1, (12, 8, 8, 3)).astype(np.float32))
    code = """
import sys
from pathlib import Path
import numpy as np
from edgepack.pipeline.jobs import quantize_with_ranges, run_ptq_steps
from edgepack.profiles.model import SchemeRule
from edgepack.samples import InputSpec, load_samples
samples = load_samples(sys.argv[2], [InputSpec("image", (1, 8, 8, 3), np.dtype(np.float32))])
result = run_ptq_steps(Path(sys.argv[1]).read_bytes(), SchemeRule("int8", "INT8"), samples, "low")
quantize_with_ranges(result.tflite, SchemeRule("int8", "INT8"), result.ranges)
sys.exit("tensorflow" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.tflite"), str(tmp_path / "x.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_mixing_runs_in_a_child_and_reports(tmp_path: Path) -> None:
    """The child returns the file that meets the limit, and the report says which ops stayed float and what it cost."""
    tflite, samples = builders.classifier(), pictures(tmp_path)
    rule = SchemeRule("int8", "FLOAT32", mixed=("float32",))
    ptq = run_ptq_steps(tflite, rule, samples, "low")
    ranges = json.loads(json.dumps(ptq.ranges))
    with Worker() as worker:
        mixed = worker.run(QUANTIZE_MIXED.call(ptq.tflite, rule, ranges, samples, tflite, samples, 0.0))
    assert mixed.file == quantize_mixed(ptq.tflite, rule, ranges, samples, tflite, samples, 0.0).file
    assert mixed.report["after"]["agreement"] == 100.0
    assert mixed.report["kept_as"] == "float32"
    assert mixed.report["ops"] == len(read_model(tflite).main.ops)


def abort(*_: object) -> None:
    """Die as native code does."""
    import os

    os.abort()


ALL = {name: job for name, job in vars(jobs).items() if isinstance(job, Job)}


@pytest.mark.parametrize("name", sorted(ALL))
def test_one_kind_of_work_fails_with_one_error(name: str) -> None:
    """Whichever way leads to it: quantization that dies is exit code 4, a file that the runtime cannot run is 3."""
    if name == "PICTURES":
        # It runs no model: samples that cannot be drawn are the user's.
        assert ALL[name].error is SamplesError
        return
    quantizing = name not in {
        "PROVE_EQUIVALENCE", "EVALUATE", "LAYER_ERRORS", "LATENCY", "GOLDEN_VECTORS", "KERNEL_SPREAD",
        "COUNT_HITS", "ATTRIBUTE", "RUN_SIMULATION", "COMPARE_OPS",
    }  # fmt: skip
    assert ALL[name].error is (QuantizationError if quantizing else UnfitModelError)


@pytest.mark.parametrize("error", [QuantizationError, UnfitModelError, ConversionError])
def test_a_child_that_dies_raises_the_error_of_its_job(error: type[EdgepackError]) -> None:
    """The job carries its error class: signal, purpose and the end of the child's log reach the user."""
    with Worker() as worker, pytest.raises(error, match="calibration failed: signal 6") as caught:
        worker.run(Job(abort, error, "calibration").call())
    assert "log_tail" in caught.value.details
    assert caught.value.hint
