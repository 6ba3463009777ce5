"""How much a file lost: the thresholds, the judgement of each output, an order, and words for it.

docs/concepts/quality.md has the reasons for the thresholds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgepack.choices import Verdict
from edgepack.runtime.metrics import OutputQuality, Quality

#: Without --max-drop, `auto` leaves a scheme that loses more than this many percentage points, beyond chance.
AUTO_DROP = 1.0
#: Below this SNR (dB) the error exceeds a third of what varies: the values are likely unusable. Classes may survive it.
AUTO_SNR = 10.0
#: Below this SNR (dB) class scores are likely unusable too: the error is as large as 70 % of what varies.
CLASS_SNR = 3.0
#: With this many points of top-1 lost, beyond chance, class scores are likely unusable.
UNUSABLE_DROP = 10.0
#: Without labels, this many points of top-1 lost by the float model's own probabilities are a loss: an estimate, which
#: therefore gets more room than a measured drop.
EXPECTED_DROP = 2.0
#: One int8 step of a probability. TFLite fixes the scale of SOFTMAX and LOGISTIC at 1/256.
PROBABILITY_STEP = 1 / 256


@dataclass(frozen=True)
class Finding:
    """A loss of one output.

    Attributes:
        output: Name of the output.
        message: What is wrong, with the figure; continues a sentence.
        unusable: True when the output is likely unusable.
    """

    output: str
    message: str
    unusable: bool

    def __str__(self) -> str:
        """Return the finding as a warning."""
        return f"this file {'is likely unusable' if self.unusable else 'loses accuracy'}: {self.message}"


def unjudged(quality: Quality) -> tuple[str, ...]:
    """Return a warning for each output with a low SNR that says little, because its entries may have moved."""
    return tuple(
        f"output '{output.name}' has an SNR of {output.snr_db:.1f} dB and is not judged: {output.ranked_by} ranks its "
        "entries, and one that moves counts as an error; compare detections on your own data"
        for output in quality.outputs
        if output.kind == "ranked" and output.snr_db is not None and output.snr_db < AUTO_SNR
    )


def judge(quality: Quality) -> tuple[Finding, ...]:
    """Return the losses of a file, the worst first; none for a sound one."""
    findings = [
        Finding(name, f"output '{name}' has one value on all samples, and the float model's varies", True)
        for name in quality.collapsed
        if not any(output.name == name and _may_collapse(output) for output in quality.outputs)
    ]
    findings += _class_findings(quality)
    for output in sorted(quality.outputs, key=lambda output: output.snr_db or 0.0):
        if not (quality.trained and quality.top1 is not None and output.kind == "classes"):
            findings += _snr_findings(output)
    return tuple(sorted(findings, key=lambda finding: not finding.unusable))


def verdict(quality: Quality | None) -> Verdict | None:
    """Return the verdict on a file, None when nothing was measured."""
    if quality is None:
        return None
    findings = judge(quality)
    if not findings:
        return Verdict.SOUND
    return Verdict.UNUSABLE if findings[0].unusable else Verdict.LOSSY


def to_json(quality: Quality | None) -> dict[str, Any] | None:
    """Return the figures with the verdict for JSON documents, None without figures."""
    judged = verdict(quality)
    return None if quality is None or judged is None else {**quality.to_json(), "verdict": judged.value}


def acceptable(quality: Quality, limit: float | None) -> bool:
    """Return whether a file is good enough.

    Args:
        quality: What it lost.
        limit: The user's limit on the drop in percentage points, which the measured drop must not exceed; every output
            must be usable as well. None for the default: no finding, and no drop of more than `AUTO_DROP` points
            beyond chance.
    """
    findings = judge(quality)
    drop, interval = quality.drop, quality.drop_interval
    if limit is not None:
        lost_class = _class_findings(quality)
        return (drop is None or drop <= limit) and not any(f.unusable for f in findings if f not in lost_class)
    if drop is not None and interval is not None and drop > AUTO_DROP:
        beyond_chance = interval[0] > (0.0 if quality.accuracy is not None else AUTO_DROP)
        return not findings and not beyond_chance
    return not findings


def loss(quality: Quality) -> float:
    """Return a number that grows with the loss, for comparing candidates of one model.

    Points of the drop, plus the dB that outputs lack to `AUTO_SNR`; the SNR decides between equals.
    """
    worst = quality.worst
    snr = AUTO_SNR if worst is None or worst.snr_db is None else worst.snr_db
    below = [o.snr_db for o in quality.outputs if o.snr_db is not None and any(_snr_findings(o))]
    missing = sum(AUTO_SNR - value for value in below)
    return max(quality.drop or 0.0, 0.0) + missing + AUTO_SNR * len(quality.collapsed) - snr / 1000


def loss_text(quality: Quality) -> str:
    """Return the loss in words."""
    unusable = next((finding for finding in judge(quality) if finding.unusable), None)
    accuracy = quality.accuracy
    if accuracy is not None and accuracy.value_float is not None:
        lost = accuracy.value_float - accuracy.value
        points = "nothing" if lost <= 0 else f"{lost:.2f} points"
        text = f"{points} of {accuracy.metric} ({accuracy.value_float:.2f} to {accuracy.value:.2f})"
    elif quality.agreement is not None:
        text = f"{100 - quality.agreement:.2f} points of agreement with the float model"
    elif quality.snr_db is None:
        text = "nothing"
    else:
        text = f"signal down to {quality.snr_db:.1f} dB above the error"
    if unusable is None or unusable in _class_findings(quality):
        return text
    return f"{text} ({unusable.message})"


def _class_findings(quality: Quality) -> list[Finding]:
    """Return the loss of the class, where it is larger than chance explains."""
    drop, interval = quality.drop, quality.drop_interval
    if drop is None or interval is None:
        return []
    output = "" if quality.task else next((o.name for o in quality.outputs if o.kind == "classes"), "")
    named = f"output '{output}'" if output else "the model"
    low, high = interval
    range_text = f"95 % interval {low:.1f} to {high:.1f}, {quality.samples} samples"
    accuracy = quality.accuracy
    if accuracy is not None and accuracy.value_float is not None:
        if drop <= AUTO_DROP or low <= 0.0:
            return []
        message = (
            f"{named} loses {drop:.1f} points of {accuracy.metric}, "
            f"{accuracy.value_float:.1f} to {accuracy.value:.1f} % ({range_text})"
        )
        return [Finding(output, message, low > UNUSABLE_DROP)]
    expected, expected_range = quality.expected_drop, quality.expected_interval
    if expected is None or expected_range is None or expected <= EXPECTED_DROP or expected_range[0] <= 0.0:
        return []
    message = (
        f"{named} has another class than the float model on {drop:.1f} % of {quality.samples} samples; by the float "
        f"model's probabilities this costs {expected:.1f} points of top-1 "
        f"(95 % interval {expected_range[0]:.1f} to {expected_range[1]:.1f})"
    )
    return [Finding(output, message, expected_range[0] > UNUSABLE_DROP)]


def _snr_findings(output: OutputQuality) -> Iterator[Finding]:
    """Yield the loss of an output's values."""
    snr = output.snr_db
    if output.changed is not None and output.changed_interval is not None:
        low, high = output.changed_interval
        if output.changed > EXPECTED_DROP and low > 0.0:
            figure = (
                f"{output.changed:.1f} % of other numbers than the float model (95 % interval {low:.1f} to {high:.1f})"
            )
            yield Finding(output.name, f"output '{output.name}' has {figure}", low > UNUSABLE_DROP)
        return
    if output.kind == "ranked" or snr is None or snr >= AUTO_SNR or _within_a_step(output):
        return
    figure = f"an SNR of {snr:.1f} dB, below {AUTO_SNR:g}"
    if output.interval is not None:
        figure += f" (95 % interval {output.interval[0]:.1f} to {output.interval[1]:.1f})"
    part = f"{columns_text(output)} of output '{output.name}'" if output.columns else f"output '{output.name}'"
    if output.constant:
        yield Finding(output.name, f"{part}, constant in the float model, has {figure}", False)
    elif output.kind == "classes" and snr >= CLASS_SNR:
        yield Finding(output.name, f"the class scores in {part} have {figure}", False)
    else:
        yield Finding(output.name, f"{part} {'have' if len(output.columns) > 1 else 'has'} {figure}", True)


def columns_text(output: OutputQuality) -> str:
    """Return the columns of the worst group in words: `columns 4 to 83 of axis 2`."""
    columns = output.columns
    if len(columns) == 1:
        numbers = f"column {columns[0]}"
    elif columns[-1] - columns[0] == len(columns) - 1:
        numbers = f"columns {columns[0]} to {columns[-1]}"
    else:
        numbers = f"columns {', '.join(map(str, columns[:6]))}" + (", ..." if len(columns) > 6 else "")
    return f"{numbers} of axis {output.axis}"


def _may_collapse(output: OutputQuality) -> bool:
    """Return whether one value on all samples is no loss by itself: few class numbers, or very small probabilities."""
    return output.kind in {"numbers", "ranked"} or _within_a_step(output)


def _within_a_step(output: OutputQuality) -> bool:
    """Return whether no probability is further off than one int8 step: small ones have no finer resolution."""
    return output.bounded and output.max_error <= PROBABILITY_STEP * 1.001
