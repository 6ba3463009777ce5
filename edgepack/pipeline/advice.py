"""What the user is told of a file that loses accuracy: which tensors hurt most, and what would help on this target."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from edgepack.choices import Effort
from edgepack.errors import EdgepackError
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.jobs import ATTRIBUTE
from edgepack.pipeline.search.acceptance import Choice
from edgepack.pipeline.search.loss import AUTO_SNR, columns_text, judge
from edgepack.pipeline.search.produce import rewrite
from edgepack.pipeline.search.trials import ProducedTrial, Trial
from edgepack.pipeline.step_cache import Codec, to_json_bytes
from edgepack.profiles.model import TargetProfile
from edgepack.quantize.attribution import Attribution, Cause
from edgepack.runtime.metrics import OutputQuality, Quality
from edgepack.schemes import Needs, get_scheme

#: Samples on which single tensors are measured.
SAMPLES = 32
#: PTQ steps that change the values of channels: ranges of their files do not fit the float model's activations.
CHANNEL_STEPS = frozenset({"absorb", "balance", "center", "equalize"})
#: With fewer calibration samples than this, more of them are the first advice: the default of TensorFlow's guide.
FEW_SAMPLES = 100


def explain_loss(
    context: BuildContext, profile: TargetProfile, choice: Choice, trials: Sequence[Trial]
) -> tuple[str, ...]:
    """Return where the loss of the chosen file comes from and what would help, nothing for a sound one.

    Args:
        context: The build.
        profile: The target, with the variant resolved.
        choice: The chosen file.
        trials: All trials of the build.
    """
    quality = choice.trial.quality
    findings = () if quality is None else judge(quality)
    if quality is None or not findings:
        return ()
    output = next((one for one in quality.outputs if one.name == findings[0].output), quality.worst)
    # An error of class numbers has no size that single tensors could be compared by.
    comparable = output is not None and output.kind != "numbers"
    attribution = None
    if output is not None and comparable:
        attribution = _attribution(context, profile, choice.trial, output, quality)
    texts = []
    causes: tuple[Cause, ...] = ()
    if attribution is not None and attribution.causes and output is not None:
        causes = attribution.causes
        texts.append(_causes_text(attribution, output))
    help_texts = [*_structural(causes, output), *remedies(context, profile, choice, trials)]
    return (*texts, f"what would help: {'; '.join(help_texts)}")


def remedies(context: BuildContext, profile: TargetProfile, choice: Choice, trials: Sequence[Trial]) -> list[str]:
    """Return the options that may lose less, the cheapest first; at least one."""
    candidate, samples, options = choice.trial.candidate, context.samples, context.options
    scheme = get_scheme(candidate.rule.scheme)
    texts = []
    if scheme.is_integer and samples is not None and len(samples) < FEW_SAMPLES:
        texts.append(f"more representative samples ({len(samples)} were given, {FEW_SAMPLES} or more are usual)")
    if candidate.rule.scheme == "int8" and samples is not None and candidate.effort != Effort.HIGH:
        texts.append("--effort high")
    tried = {trial.candidate.rule.scheme for trial in trials if trial.produced}
    others = [rule.scheme for rule in profile.schemes if rule.scheme not in tried]
    free = [one for one in others if get_scheme(one).needs is not Needs.LABELS]
    if free:
        text = " or ".join(free)
        texts.append(f"--scheme auto, which also tries {text}" if options.scheme != "auto" else f"--scheme {text}")
    if any(get_scheme(one).needs is Needs.LABELS for one in others) and context.training is None:
        texts.append("--train with labelled samples, for quantization-aware training")
    if all(get_scheme(rule.scheme).is_integer for rule in profile.schemes):
        texts.append("another target that computes in float, such as cpu or android-gpu")
    return texts or ["the float model"]


def _causes_text(attribution: Attribution, output: OutputQuality) -> str:
    """Return which tensors hurt most, in one sentence."""
    causes = attribution.causes
    measured = f"{len(causes)} of {attribution.tensors} tensors were measured alone"
    verb = "leave" if causes[0].kind == "weights" else "leaves"
    first = f"{_name(causes[0])}, which alone {verb} {_left(output)} {causes[0].snr_db:.1f} dB"
    if causes[0].snr_db >= AUTO_SNR + 3.0:
        return f"no single tensor explains the loss; the largest part comes from {first} ({measured})"
    more = [f"{_name(cause)} ({cause.snr_db:.1f} dB)" for cause in causes[1:3] if cause.snr_db < AUTO_SNR + 3.0]
    then = f", then {' and '.join(more)}" if more else ""
    return f"what hurts most in int8: {first}{then} ({measured})"


def _left(output: OutputQuality) -> str:
    return f"{columns_text(output)} of '{output.name}'" if output.columns else f"'{output.name}'"


def _name(cause: Cause) -> str:
    if cause.kind == "weights":
        return f"the weights of {cause.op} '{cause.tensor}'"
    return f"the {cause.kind} '{cause.tensor}'" + (f" of {cause.op}" if cause.op else "")


def _structural(causes: Sequence[Cause], output: OutputQuality | None) -> list[str]:
    """Return changes of the model that remove the largest cause, where it is known which ones do."""
    if not causes or causes[0].snr_db >= AUTO_SNR + 3.0:
        return []
    first = causes[0]
    if first.kind == "input":
        return [f"give the values of input '{first.tensor}' one range, or inputs of their own: they share one scale"]
    if first.op == "CONCATENATION":
        return [f"give the values that '{first.tensor}' joins one range: they share one scale"]
    at_output = any(cause.kind == "output" and cause.snr_db < AUTO_SNR for cause in causes[:2])
    if at_output and output is not None and output.columns:
        own = "its" if len(output.columns) == 1 else "their"
        return [f"give {columns_text(output)} an output of {own} own: all of '{output.name}' shares one scale"]
    if first.kind == "activation":
        return [f"give the channels of '{first.tensor}' similar ranges: they share one scale"]
    return []


def _attribution(
    context: BuildContext, profile: TargetProfile, trial: ProducedTrial, output: OutputQuality, quality: Quality
) -> Attribution | None:
    """Return the measured causes, None for a file whose tensors cannot be compared with the float model's."""
    candidate, samples, session = trial.candidate, context.measured_on, context.session
    if (
        samples is None
        or candidate.recipe
        or candidate.as_is
        or get_scheme(candidate.rule.scheme).activations != "INT8"
    ):
        return None
    position = quality.outputs.index(output)
    used = samples.limited(SAMPLES)
    report = trial.quantized.report or {"kept": []}
    own_ranges = not CHANNEL_STEPS.intersection(report["kept"])
    try:
        tflite = rewrite(context, profile, candidate).tflite

        def compute() -> Attribution:
            session.progress("measuring which tensors hurt most")
            return session.workers.run(
                ATTRIBUTE.call(
                    tflite,
                    trial.quantized.tflite,
                    used,
                    position,
                    output.columns,
                    output.axis,
                    own_ranges,
                )
            )

        inputs = {
            "float": tflite,
            "model": trial.quantized.tflite,
            "samples": used,
            "output": [position, list(output.columns), output.axis, own_ranges],
        }
        return session.steps.memoize("attribution", inputs, _ATTRIBUTION, compute)
    except EdgepackError:
        # The attribution only explains: without it the finding stands, and the build goes on.
        return None


def _decode(document: bytes) -> Attribution:
    fields = json.loads(document)
    return Attribution(tuple(Cause(**cause) for cause in fields["causes"]), fields["tensors"])


_ATTRIBUTION: Codec[Attribution] = Codec(
    lambda attribution: {"attribution.json": to_json_bytes(asdict(attribution))},
    lambda files: _decode(files["attribution.json"]),
)
