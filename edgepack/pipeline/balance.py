"""The balancing stage: values of very different ranges get scales of their own, by exact rewrites proven on samples."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from edgepack.errors import EdgepackError
from edgepack.graph import Model, read_model
from edgepack.graph.edit import tensor_keys
from edgepack.pipeline.jobs import PROVE_EQUIVALENCE
from edgepack.pipeline.options import TargetOptions
from edgepack.pipeline.rewrite import PROOF_SAMPLES, RewrittenModel, off_accelerator, rewritten_codec
from edgepack.pipeline.search.post_training import calibrate
from edgepack.pipeline.session import Session
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.quantize.calibrate import Calibration
from edgepack.repair import TOLERANCE, ChannelRange, balance_ranges, has_shared_ranges
from edgepack.samples import SampleSet


def balance_proven(
    session: Session,
    rewritten: RewrittenModel,
    profile: TargetProfile,
    rule: SchemeRule,
    target_options: TargetOptions,
    samples: SampleSet,
) -> RewrittenModel:
    """Separate unequal ranges of a float model that will have int8 activations.

    A kind of rewrite is left out where it changes the float outputs, or moves ops off the target's accelerator.

    Args:
        session: Child processes and cache.
        rewritten: The float model after the rewrites for the target.
        profile: The target.
        rule: Scheme that the model will have.
        target_options: Variant, chip, runtime version, which rewrites are allowed.
        samples: Calibration samples: ranges are measured on all of them, and the first few are the proof.
    """
    model = read_model(rewritten.tflite)
    if target_options.repair == "none" or not model.is_float or not has_shared_ranges(model.main):
        return rewritten

    def compute() -> RewrittenModel:
        return _balance(session, rewritten, model, profile, rule, target_options, samples)

    inputs = {
        "model": rewritten.tflite, "before": rewritten.notes, "profile": profile.sha256, "rule": rule,
        "target_options": target_options, "samples": samples,
    }  # fmt: skip
    return session.steps.memoize("balance", inputs, rewritten_codec(), compute)


def _balance(
    session: Session,
    rewritten: RewrittenModel,
    model: Model,
    profile: TargetProfile,
    rule: SchemeRule,
    target_options: TargetOptions,
    samples: SampleSet,
) -> RewrittenModel:
    ranges = channel_ranges(model, Calibration.from_bytes(calibrate(session, rewritten.tflite, samples)))
    score = off_accelerator(profile, rule, target_options)
    off = len(score(model))
    skip: frozenset[str] = frozenset()
    notes: list[str] = []
    while True:
        tflite, rewrites = balance_ranges(rewritten.tflite, ranges, skip)
        if not rewrites:
            return replace(rewritten, notes=(*rewritten.notes, *notes))
        problem = "it moves ops off the accelerator" if len(score(read_model(tflite))) > off else ""
        if not problem:
            try:
                call = PROVE_EQUIVALENCE.call(rewritten.tflite, tflite, samples.limited(PROOF_SAMPLES))
                difference = session.workers.run(call)
            except EdgepackError as error:
                return replace(rewritten, notes=(*rewritten.notes, f"ranges are not balanced: {error.message}"))
            if difference <= TOLERANCE:
                return replace(
                    rewritten,
                    tflite=tflite,
                    rewrites=(*rewritten.rewrites, *rewrites),
                    difference=max(rewritten.difference, difference),
                    notes=(*rewritten.notes, *notes),
                )
            problem = "it changes the model's outputs"
        # The kind that has most to do with it is not known: leave one out after the other.
        code = rewrites[0].code
        notes.append(f"the rewrite {code} is left out: {problem}")
        skip |= {code}


def channel_ranges(model: Model, calibration: Calibration) -> Mapping[int, ChannelRange]:
    """Return the measured range of each activation's channels, by tensor index."""
    index_of = {key: index for index, key in enumerate(tensor_keys(model.main))}
    ranges = {}
    for key, statistics in calibration.tensors.items():
        low, high = statistics.channel_minimum, statistics.channel_maximum
        if not low.size:
            low, high = (np.array([value], np.float32) for value in (statistics.minimum, statistics.maximum))
        ranges[index_of[key]] = ChannelRange(low, high)
    return ranges
