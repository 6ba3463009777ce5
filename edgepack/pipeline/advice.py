"""What the user is told of a file that loses accuracy: what would help on this target."""

from collections.abc import Sequence

from edgepack.choices import Effort
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.search.acceptance import Choice
from edgepack.pipeline.search.loss import columns_text, judge
from edgepack.pipeline.search.trials import Trial
from edgepack.profiles.model import TargetProfile
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs, get_scheme

#: With fewer calibration samples than this, more of them are the first advice: the default of TensorFlow's guide.
FEW_SAMPLES = 100


def explain_loss(
    context: BuildContext, profile: TargetProfile, choice: Choice, trials: Sequence[Trial]
) -> tuple[str, ...]:
    """Return what would help against the loss of the chosen file, nothing for a sound one.

    Args:
        context: The build.
        profile: The target, with the variant resolved.
        choice: The chosen file.
        trials: All trials of the build.
    """
    quality = choice.trial.quality
    if quality is None or not judge(quality):
        return ()
    return (f"what would help: {'; '.join(remedies(context, profile, choice, trials, quality))}",)


def remedies(
    context: BuildContext, profile: TargetProfile, choice: Choice, trials: Sequence[Trial], quality: Quality
) -> list[str]:
    """Return what may lose less, the cheapest first; at least one sentence."""
    candidate, samples, options = choice.trial.candidate, context.samples, context.options
    scheme = get_scheme(candidate.rule.scheme)
    texts = []
    worst = quality.worst
    if worst is not None and worst.columns and scheme.is_integer:
        texts.append(
            f"give {columns_text(worst)} an output of {'its' if len(worst.columns) == 1 else 'their'} own, because one "
            f"scale serves all of '{worst.name}'"
        )
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
