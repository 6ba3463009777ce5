"""Where the PTQ steps run, whose results targets share, and what happens where ai-edge-quantizer refuses a model."""

from collections.abc import Iterator
from typing import Any

import builders
import numpy as np
import pytest
from state_models import STEPS, fused_lstm

from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.pipeline.jobs import PtqResult
from edgepack.pipeline.options import ModelOptions
from edgepack.pipeline.search import post_training
from edgepack.pipeline.search.post_training import calibrate, quantize_calibrated, quantize_with_ptq
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.activations import logits, snr_db
from edgepack.quantize.quantizer import QuantizationRefused
from edgepack.samples import SampleSet

CPU, CORAL = SchemeRule("int8", "FLOAT32"), SchemeRule("int8", "INT8", fully_connected="per-tensor")


@pytest.fixture
def session() -> Iterator[Session]:
    with Session(ModelOptions(cache=False)) as opened:
        yield opened


def samples_for(tflite: bytes, count: int) -> SampleSet:
    arrays = builders.samples(tflite, count)
    stacked = {name: np.concatenate([sample[name] for sample in arrays]) for name in arrays[0]}
    shapes = {name: (1, *value.shape[1:]) for name, value in stacked.items()}
    return SampleSet("samples", "digest", stacked, shapes, {name: value.dtype for name, value in stacked.items()})


def sequences(count: int, seed: int = 0) -> SampleSet:
    arrays = np.random.default_rng(seed).normal(size=(count, STEPS, 2)).astype(np.float32)
    return SampleSet("x", f"digest {seed}", {"x": arrays}, {"x": (1, STEPS, 2)}, {"x": arrays.dtype})


@pytest.mark.parametrize(("make", "runs"), [(builders.classifier, 2), (builders.standing_alone, 1)])
def test_targets_share_one_search_unless_their_dense_layers_differ(
    make: Any, runs: int, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types of inputs and wide biases do not matter; one scale for dense weights does, where there are any."""
    searched: list[SchemeRule] = []

    def run(session: Session, steps: Any) -> PtqResult:
        searched.append(steps.rule)
        return PtqResult(steps.tflite, {}, {"steps": []})

    monkeypatch.setattr(post_training, "_run_steps_with_quantizer", run)
    tflite = make()
    samples = samples_for(tflite, 4)
    for rule in (
        CPU,
        CORAL,
        SchemeRule("int8", "UINT8", wide_bias=False),
        SchemeRule("int8", "INT8", mixed=("int16",)),
    ):
        post_training._run_ptq_steps(session, tflite, rule, samples, "low")
    assert len(searched) == runs
    post_training._run_ptq_steps(session, tflite, CPU, samples, "medium")
    assert len(searched) == runs + 1


def test_the_search_of_a_large_network_serves_targets_with_other_dense_layers(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found with a scale per channel is passed on, whichever target is built first; small ones search anew."""
    searched: list[tuple[str, Any]] = []

    def run(session: Session, steps: Any) -> PtqResult:
        searched.append((steps.rule.fully_connected, steps.known and steps.known.settings))
        return PtqResult(steps.tflite, {}, {"steps": [], "kept": [], "notes": ["a limit"]}, settings={"ranges": "mse"})

    monkeypatch.setattr(post_training, "_run_steps_with_quantizer", run)
    tflite = builders.classifier()
    samples = samples_for(tflite, 4)
    post_training._run_ptq_steps(session, tflite, CORAL, samples, "low")
    assert searched == [("per-tensor", None)]
    monkeypatch.setattr(post_training, "CHEAP_WORK", 1.0)
    post_training._run_ptq_steps(session, tflite, CORAL, samples, "medium")
    assert searched[1:] == [("per-channel", None), ("per-tensor", {"ranges": "mse"})]


@pytest.mark.parametrize(("effort", "process"), [("low", "native"), ("medium", "tensorflow"), ("high", "tensorflow")])
def test_only_more_effort_runs_where_tensorflow_is(
    effort: str, process: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Effort low runs in the child that never loads TensorFlow."""
    ran: list[str] = []

    def receiver(name: str) -> Any:
        def run(call: Any, **_: object) -> PtqResult:
            ran.append(name)
            return PtqResult(b"", {}, {"steps": []})

        return run

    monkeypatch.setattr(session.workers, "run", receiver("native"))
    monkeypatch.setattr(session.workers.tensorflow, "run", receiver("tensorflow"))
    post_training._run_ptq_steps(session, builders.classifier(), CPU, samples_for(builders.classifier(), 4), effort)
    assert ran == [process]


def test_progress_is_reported_by_step_and_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred events of a step within a second are one message; a long one gives more, with the time left."""
    told: list[str] = []
    now = [0.0]
    monkeypatch.setattr(post_training.time, "monotonic", lambda: now[0])
    with Session(ModelOptions(cache=False), told.append) as opened:
        report = post_training._step_progress(opened)
        for part in range(100):
            now[0] += 0.01
            report(("rounding", part, 100))
        assert told == ["  rounding: 0 of 100"]
        report(("ranges", 0, 2))
        now[0] += 60.0
        report(("ranges", 1, 2))
    assert told[1:] == ["  ranges: 0 of 2", "  ranges: 1 of 2, about 60 s left"]


@pytest.mark.slow
def test_a_model_that_one_quantizer_refuses_gets_the_steps_from_the_other(session: Session) -> None:
    """An LSTM is quantized by TFLiteConverter's quantizer with the steps' ranges, no worse than calibrated alone."""
    tflite, samples, unseen = fused_lstm(), sequences(20), sequences(60, 9)
    quantized, report = quantize_with_ptq(session, tflite, CORAL, samples, "low", judged=samples)
    assert {step["step"] for step in report["steps"]} >= {"ranges"} and report["effort"] == "low"
    assert quantized.tool.startswith("TFLiteConverter 2.")
    assert quantized.notes[0].startswith("quantized by TFLiteConverter: ai-edge-quantizer leaves UNIDIRECTIONAL")
    model = read_model(quantized.tflite)
    assert model.input_names() == read_model(tflite).input_names()
    assert model.main.tensors[model.main.inputs[0]].dtype == "INT8"
    plain = quantize_calibrated(session, tflite, CORAL, calibrate(session, tflite, samples), "", samples)
    arrays = [unseen.sample(i) for i in range(len(unseen))]
    reference = logits(tflite, arrays)
    before, after = (snr_db(reference, logits(file.tflite, arrays)) for file in (plain, quantized))
    assert after > before - 0.5
    with pytest.raises(QuantizationRefused, match="single ops cannot be kept in float: ai-edge-quantizer leaves"):
        quantize_with_ptq(session, tflite, CPU, samples, "low", judged=samples, limit=0.5)


def test_where_both_quantizers_fail_both_reasons_are_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller may try plain calibration; the message has what either quantizer said."""

    def refuse(*_: object, **__: object) -> PtqResult:
        raise QuantizationRefused("one says no", hint="change the model")

    def fail(*_: object, **__: object) -> PtqResult:
        raise QuantizationError("the other fails")

    monkeypatch.setattr(session.workers, "run", refuse)
    monkeypatch.setattr(session.workers.tensorflow, "run", fail)
    tflite = builders.classifier()
    with pytest.raises(QuantizationRefused, match=r"one says no\. TFLiteConverter: the other fails") as caught:
        quantize_with_ptq(session, tflite, CPU, samples_for(tflite, 4), "low", judged=samples_for(tflite, 4))
    assert caught.value.hint == "change the model"
