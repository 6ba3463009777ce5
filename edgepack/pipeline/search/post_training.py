"""Post-training quantization, each part cached: calibration, the quantizers, the PTQ steps."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgepack.choices import Effort
from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.job import JobCall
from edgepack.pipeline.jobs import (
    CALIBRATE,
    CHOOSE_RANGES,
    MOST_SAMPLES,
    QUANTIZE,
    QUANTIZE_MIXED,
    QUANTIZE_WITH_CONVERTER,
    QUANTIZE_WITH_RANGES,
    RUN_PTQ_STEPS,
    FinishedPart,
    MixedResult,
    PtqResult,
)
from edgepack.pipeline.search.ptq_checkpoint import PtqCheckpoint
from edgepack.pipeline.session import Session
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.profiles.model import SchemeRule
from edgepack.quantize.ptq.normalizations import find_normalizations
from edgepack.quantize.ptq.step import work
from edgepack.quantize.ptq.tuning import CHEAP_WORK
from edgepack.quantize.quantizer import QuantizationRefused, Quantized
from edgepack.quantize.ranges import Range
from edgepack.samples import SampleSet
from edgepack.schemes import plain_type

#: Seconds between two messages about one step: people see that it goes on.
_PROGRESS_SECONDS = 5.0

#: Seconds of a step from which its speed tells how long the rest takes.
_SPEED_SECONDS = 10.0

#: Limit of the finished parts of a run: this many times the model, and bytes. Learned blocks take a byte per weight, a
#: quarter of the float file, for each of up to six fits.
_CHECKPOINT_SHARE, _CHECKPOINT_BYTES = 4, 64 << 20


def calibrate(session: Session, tflite: bytes, samples: SampleSet | int) -> bytes:
    """Return the statistics of a float model's activations on samples, or on a number of random ones."""
    random = isinstance(samples, int)
    count = samples if isinstance(samples, int) else len(samples)

    def compute() -> bytes:
        session.progress(f"calibrating on {count} {'random ' if random else ''}samples")
        return session.workers.run(CALIBRATE.call(tflite, samples, session.workers.threads))

    return session.steps.memoize("calibrate", {"model": tflite, "samples": samples}, _CALIBRATION, compute)


def quantize_calibrated(
    session: Session,
    tflite: bytes,
    rule: SchemeRule,
    calibration: bytes | None,
    method: str,
    samples: SampleSet | int = 0,
) -> Quantized:
    """Quantize with one range method for all activations.

    TFLiteConverter's quantizer takes over where ai-edge-quantizer refuses the model.

    Args:
        session: Child processes and cache.
        tflite: The float model.
        rule: The scheme with the target's constraints.
        calibration: Result of `calibrate`; None for schemes without ranges.
        method: Range method; empty for the default.
        samples: The samples of the calibration, which TFLiteConverter's quantizer runs again where an op has ranges
            inside.

    Raises:
        QuantizationError: Neither quantizer can quantize the model.
    """

    def compute() -> Quantized:
        session.progress(f"quantizing to {rule.scheme}")
        try:
            return session.workers.run(QUANTIZE.call(tflite, rule, calibration, method))
        except QuantizationRefused as refused:
            if calibration is None:
                raise
            ranges = session.workers.run(CHOOSE_RANGES.call(tflite, rule, calibration, method))
            return _quantize_with_converter(session, tflite, rule, ranges, samples, refused)

    inputs = {"model": tflite, "rule": _file_fields(rule), "calibration": calibration, "method": method}
    return session.steps.memoize("quantize", inputs, _QUANTIZED, compute)


def quantize_with_ptq(
    session: Session,
    tflite: bytes,
    rule: SchemeRule,
    samples: SampleSet,
    effort: str,
    *,
    judged: SampleSet,
    limit: float | None = None,
    kept_as: str = "float32",
) -> tuple[Quantized, Mapping[str, Any]]:
    """Quantize to int8 with the PTQ steps of an effort.

    The steps run with TFLiteConverter's quantizer where ai-edge-quantizer refuses the model.

    Args:
        session: Child processes and cache.
        tflite: The float model.
        rule: An int8 rule.
        samples: Calibration samples.
        effort: `low`, `medium` or `high`.
        judged: Samples that a limit is checked on.
        limit: Most percentage points that may be lost; then the fewest ops that meet it keep more precision.
        kept_as: Precision of those ops: `float32` or `int16`.

    Returns:
        The file and the report of the steps.

    Raises:
        AccuracyError: The limit is not met with every op kept that may be.
        QuantizationRefused: ai-edge-quantizer cannot quantize the model, and TFLiteConverter's quantizer cannot either,
            or it would have to keep single ops.
    """
    ptq = _run_ptq_steps(session, tflite, rule, samples, effort)
    inputs = {"model": ptq.tflite, "rule": _file_fields(rule), "ranges": ptq.ranges}
    if limit is None:
        # Samples matter to TFLiteConverter's quantizer only, but whether it is needed is known too late for the key.
        quantized = session.steps.memoize(
            "quantize",
            {**inputs, "samples": samples, "refused": ptq.refused},
            _QUANTIZED,
            lambda: _quantize_improved(session, ptq, rule, samples),
        )
        return quantized, ptq.report
    if ptq.refused:
        raise QuantizationRefused(f"single ops cannot be kept in {plain_type(kept_as)}: {ptq.refused}")

    def mix() -> MixedResult:
        session.progress(f"keeping single ops in {plain_type(kept_as)}")
        call = QUANTIZE_MIXED.call(ptq.tflite, rule, ptq.ranges, samples, tflite, judged, limit, kept_as)
        return session.workers.run(call, on_event=_step_progress(session))

    mixed = session.steps.memoize(
        "mix",
        {**inputs, "reference": tflite, "samples": samples, "judged": judged, "limit": limit, "kept_as": kept_as},
        _MIXED,
        mix,
    )
    return mixed.file, {**ptq.report, "mixed": mixed.report}


def _quantize_improved(session: Session, ptq: PtqResult, rule: SchemeRule, samples: SampleSet) -> Quantized:
    """Return the integer file of the result of the PTQ steps."""
    refused = QuantizationRefused(ptq.refused)
    if not ptq.refused:
        try:
            return session.workers.run(QUANTIZE_WITH_RANGES.call(ptq.tflite, rule, ptq.ranges))
        except QuantizationRefused as error:
            # The form of the file that this target needs: the steps were judged on another.
            refused = error
    return _quantize_with_converter(session, ptq.tflite, rule, ptq.ranges, samples, refused)


def _run_ptq_steps(session: Session, tflite: bytes, rule: SchemeRule, samples: SampleSet, effort: str) -> PtqResult:
    """Return the result of the PTQ steps: the long part, computed once for all targets and candidates that need it."""
    # Weights are rounded to the grid of their granularity; nothing else about the file changes what the steps choose.
    dense = rule.fully_connected if rule.weights == "per-channel" and _has_dense_layers(tflite) else rule.weights
    layer_norm = rule.layer_norm if find_normalizations(read_model(tflite).main) else ""
    shared = SchemeRule(rule.scheme, "INT8", fully_connected=dense, weights=rule.weights, layer_norm=layer_norm)
    known: PtqResult | None = None
    if dense != rule.weights and work(read_model(tflite).main, min(len(samples), MOST_SAMPLES)) > CHEAP_WORK:
        # The search of a large network takes long, and its dense layers are few: what fits other targets comes first.
        known = _run_ptq_steps(session, tflite, replace(shared, fully_connected=rule.weights), samples, effort)

    def compute() -> PtqResult:
        session.progress("improving int8" if effort == Effort.LOW else f"improving int8 with effort {effort}")
        kept = effort != Effort.LOW and session.steps.cache.enabled
        folder = session.steps.cache.root / f".{session.steps.key('improve', inputs)}.checkpoint" if kept else None
        checkpoint = PtqCheckpoint(folder, _CHECKPOINT_SHARE * len(tflite) + _CHECKPOINT_BYTES)
        steps = _Steps(tflite, shared, samples, effort, checkpoint, known)
        try:
            result = _run_steps_with_quantizer(session, steps)
        except QuantizationRefused as refused:
            checkpoint.remove()
            result = _run_steps_with_converter(session, steps, refused)
        checkpoint.remove()
        if known is not None and "notes" in known.report and "notes" not in result.report:
            result = replace(result, report={**result.report, "notes": known.report["notes"]})
        return result

    fields = {**_file_fields(shared), "layer_norm": layer_norm}
    inputs = {"model": tflite, "rule": fields, "samples": samples, "effort": effort}
    return session.steps.memoize("improve", inputs, _PTQ, compute)


def _has_dense_layers(tflite: bytes) -> bool:
    return any(op.name == "FULLY_CONNECTED" for graph in read_model(tflite).graphs for op in graph.ops)


@dataclass(frozen=True)
class _Steps:
    """A run of the PTQ steps; `known` is the result for another granularity of dense layers, tried first."""

    tflite: bytes
    rule: SchemeRule
    samples: SampleSet
    effort: str
    checkpoint: PtqCheckpoint
    known: PtqResult | None

    def call(self, *, with_converter: bool = False) -> JobCall[PtqResult]:
        """Return the call of the job, which goes on from the checkpoint."""
        return RUN_PTQ_STEPS.call(
            self.tflite,
            self.rule,
            self.samples,
            self.effort,
            with_converter=with_converter,
            finished=self.checkpoint.parts(),
            settings=self.known.settings if self.known else None,
        )


def _run_steps_with_quantizer(session: Session, steps: _Steps) -> PtqResult:
    """Run the steps on files of ai-edge-quantizer; effort low needs no TensorFlow, which takes seconds to load."""
    if steps.effort == Effort.LOW:
        return session.workers.run(steps.call(), on_event=_step_progress(session))
    return session.workers.tensorflow.run(steps.call(), on_event=_step_progress(session, steps.checkpoint))


def _run_steps_with_converter(session: Session, steps: _Steps, refused: QuantizationRefused) -> PtqResult:
    """Run the steps on files of TFLiteConverter's quantizer.

    Raises:
        QuantizationRefused: That quantizer fails on the model as well.
    """
    session.progress("ai-edge-quantizer refused the model; using TFLiteConverter's quantizer (TensorFlow)")
    call = steps.call(with_converter=True)
    try:
        ptq = session.workers.tensorflow.run(call, on_event=_step_progress(session, steps.checkpoint))
    except QuantizationError as error:
        raise QuantizationRefused(
            f"{refused.message}. TFLiteConverter: {error.message}", hint=refused.hint, details=refused.details
        ) from error
    return replace(ptq, refused=refused.message)


def _step_progress(
    session: Session, checkpoint: PtqCheckpoint | None = None
) -> Callable[[tuple[str, int, int] | FinishedPart], None]:
    """Return a receiver of the steps' events that reports each step, long ones every few seconds with the time left."""
    last, when, began, first = "", -math.inf, 0.0, 0

    def report(event: tuple[str, int, int] | FinishedPart) -> None:
        nonlocal last, when, began, first
        if isinstance(event, FinishedPart):
            if checkpoint is not None:
                checkpoint.save(event.name, event.data)
            return
        step, part, parts = event
        now = time.monotonic()
        if step != last or part < first:
            began, first = now, part
        if step != last or now - when >= _PROGRESS_SECONDS:
            last, when = step, now
            session.progress(f"  {step}: {part} of {parts}{time_left(now - began, part - first, parts - part)}")

    return report


def time_left(seconds: float, done: int, left: int) -> str:
    """Return how long the rest takes at the speed so far, as the end of a sentence; empty where that is not known."""
    rest = seconds * left / done if done > 0 and seconds >= _SPEED_SECONDS else 0.0
    if rest <= 0.0:
        return ""
    return f", about {rest:.0f} s left" if rest < 100.0 else f", about {rest / 60.0:.0f} min left"


def _quantize_with_converter(
    session: Session,
    tflite: bytes,
    rule: SchemeRule,
    ranges: Mapping[str, Range],
    samples: SampleSet | int,
    refused: QuantizationRefused,
) -> Quantized:
    """Quantize with TFLiteConverter's own quantizer and our ranges."""
    session.progress("ai-edge-quantizer refused the model; using TFLiteConverter's quantizer (TensorFlow)")
    try:
        quantized = session.workers.tensorflow.run(QUANTIZE_WITH_CONVERTER.call(tflite, rule, ranges, samples))
    except QuantizationError as error:
        raise QuantizationError(
            "neither quantizer can quantize the model. "
            f"ai-edge-quantizer: {refused.message}. TFLiteConverter: {error.message}",
            hint=_loop_hint(tflite) or refused.hint or error.hint,
            details={"log_tail": error.details.get("log_tail", "")},
        ) from error
    return Quantized(
        quantized.tflite, quantized.tool, (f"quantized by TFLiteConverter: {refused.message}", *quantized.notes)
    )


def _file_fields(rule: SchemeRule) -> dict[str, Any]:
    """Return the fields of a rule that decide what the file is."""
    return {field: getattr(rule, field) for field in ("scheme", "io", "fully_connected", "weights", "wide_bias")}


def _loop_hint(tflite: bytes) -> str:
    """Return what to change in a model with loops, whose insides no quantizer converts; empty without loops."""
    model = read_model(tflite)
    if not any(op.name in {"WHILE", "CALL_ONCE"} for op in model.main.ops):
        return ""
    return (
        "its loop (WHILE) cannot become integers: make the recurrent layers with unroll=True, or use LSTM layers with "
        "tanh and sigmoid, which become one op; float16 and dynamic-range need no change"
    )


def _encode_quantized(quantized: Quantized, **extra: Any) -> dict[str, bytes]:
    meta = {"tool": quantized.tool, "notes": list(quantized.notes), **extra}
    return {"model.tflite": quantized.tflite, "meta.json": to_json_bytes(meta)}


def _decode_quantized(files: Mapping[str, bytes]) -> Quantized:
    meta = json.loads(files["meta.json"])
    return Quantized(files["model.tflite"], meta["tool"], tuple(meta["notes"]))


def _decode_ptq(files: Mapping[str, bytes]) -> PtqResult:
    meta = json.loads(files["meta.json"])
    # JSON has lists where settings have tuples.
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in meta["settings"].items()}
    return PtqResult(files["model.tflite"], meta["ranges"], meta["report"], meta["refused"], settings)


_CALIBRATION: Codec[bytes] = Codec(lambda data: {"calibration.npz": data}, lambda files: files["calibration.npz"])
_QUANTIZED: Codec[Quantized] = Codec(_encode_quantized, _decode_quantized)
_MIXED: Codec[MixedResult] = Codec(
    lambda result: _encode_quantized(result.file, mixed=result.report),
    lambda files: MixedResult(_decode_quantized(files), json.loads(files["meta.json"])["mixed"]),
)
_PTQ: Codec[PtqResult] = Codec(
    lambda ptq: {
        "model.tflite": ptq.tflite,
        "meta.json": to_json_bytes(
            {"ranges": ptq.ranges, "report": ptq.report, "refused": ptq.refused, "settings": ptq.settings}
        ),
    },
    _decode_ptq,
)
