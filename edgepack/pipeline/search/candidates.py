"""The ladder: what a build tries, in which order, until the limits hold. Pure: no file is made here.

The order is that of TensorFlow's model-optimization guide: after training first, because it costs seconds to minutes
and no labels; quantization-aware training where that loses too much; zeros and few different weights in front of it
where the compressed file is too large.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgepack.pipeline.options import Limits
from edgepack.pipeline.search.acceptance import AUTO_DROP, acceptable, loss, loss_text
from edgepack.profiles.model import SchemeRule
from edgepack.runtime.metrics import Quality
from edgepack.schemes import Needs, get_scheme, plain_type

EFFORTS = ("low", "medium", "high")

#: Recipes that make the compressed file smaller, mildest first: (recipe, share of zeros, different weights per layer).
#: The guide's own figures: 50 and 80 % zeros, 16 clusters; 90 % is what a small network bears
#: that has many weights for its task (docs/commands/train.md).
SIZE_RECIPES = (
    ("prune+qat", 0.5, 0),
    ("cluster+qat", 0.0, 16),
    ("prune+cluster+qat", 0.5, 16),
    ("prune+cluster+qat", 0.8, 16),
    ("prune+cluster+qat", 0.9, 16),
)


@dataclass(frozen=True)
class Candidate:
    """One way to make the file.

    Attributes:
        rule: The target's rule for the scheme.
        effort: `low`, `medium` or `high`: how much is done for int8 after training.
        mixed: Points that may be lost when single ops are kept in more than int8, None when none are.
        mixed_as: What those are kept in: `float32` or `int16`.
        recipe: Recipe of `edgepack.train`, empty for quantization after training.
        sparsity: Share of zeros of a recipe that prunes.
        clusters: Different weights per layer of a recipe that clusters.
        missing: Why it cannot be tried, empty when it can.
    """

    rule: SchemeRule
    effort: str = "low"
    mixed: float | None = None
    mixed_as: str = "float32"
    recipe: str = ""
    sparsity: float = 0.0
    clusters: int = 0
    missing: str = ""

    @property
    def name(self) -> str:
        """What it is, for people: `int8, effort high`, `prune+qat, 50 % zeros`."""
        words = [self.recipe or self.rule.scheme]
        if self.rule.scheme == "int8":
            words.append(f"effort {self.effort}")
        if self.mixed is not None:
            words.append(f"single ops in {plain_type(self.mixed_as)}")
        if self.sparsity:
            words.append(f"{100 * self.sparsity:g} % zeros")
        if self.clusters:
            words.append(f"{self.clusters} clusters")
        return ", ".join(words)

    @property
    def compresses(self) -> bool:
        """True when it is there for the compressed size."""
        return bool(self.sparsity or self.clusters)


@dataclass(frozen=True)
class Step:
    """A rung and what became of it.

    Attributes:
        rung: The rung.
        bytes: Size of the file, 0 when none was made.
        gzip_bytes: Size compressed with gzip, level 9.
        quality: What was lost, None when nothing was measured.
        misses: The limits that do not hold: `drop`, `size`, `download`, or `target` when the target refuses the file.
        why: Why it was not enough, or not tried; empty for the rung that holds.
    """

    rung: Candidate
    bytes: int = 0
    gzip_bytes: int = 0
    quality: Quality | None = None
    misses: frozenset[str] = field(default_factory=frozenset)
    why: str = ""

    @property
    def made(self) -> bool:
        """True when there is a file."""
        return self.bytes > 0

    def to_json(self) -> dict[str, Any]:
        """Return one entry of `ladder` in `build --json` and in the manifest."""
        rung, quality = self.rung, self.quality
        figures = None if quality is None else quality.to_json()
        return {
            "rung": rung.name,
            "scheme": rung.rule.scheme,
            "tried": self.made,
            "holds": self.made and not self.misses,
            "bytes": self.bytes if self.made else None,
            "gzip_bytes": self.gzip_bytes if self.made else None,
            "top1_float": None if figures is None else figures["top1_float"],
            "top1": None if figures is None else figures["top1"],
            "snr_db": None if figures is None else figures["snr_db"],
            "why": self.why,
        }

    def __str__(self) -> str:
        """Return the rung with its figures on one line."""
        if not self.made:
            return f"{self.rung.name}: {self.why}"
        told = [f"{self.bytes} bytes, {self.gzip_bytes} compressed"]
        if self.quality is not None:
            told.append(f"loses {loss_text(self.quality)}")
        return f"{self.rung.name}: {', '.join(told)}: {self.why or 'holds'}"


def rungs(
    schemes: Sequence[SchemeRule],
    available: Collection[Needs],
    *,
    asked: str = "auto",
    effort: str = "low",
    improvable: bool = True,
    drop: float = AUTO_DROP,
    untrainable: str = "",
) -> tuple[Candidate, ...]:
    """Return the rungs of a target from bottom to top, also those that data is missing for.

    Args:
        schemes: The target's rules in its order of preference.
        available: What data was given.
        asked: `auto`, or the scheme asked for: then only its rungs; training also makes `int8`.
        effort: Where the effort for int8 begins.
        improvable: False when there are no real samples, which more effort would be fitted to.
        drop: Points that may be lost, for which single ops are kept in float or int16 where the target takes that.
        untrainable: Why the model cannot be trained at all, empty when it can.
    """
    found: list[Candidate] = []
    efforts = EFFORTS[EFFORTS.index(effort) :] if improvable else ("low",)
    for rule in schemes:
        needs = get_scheme(rule.scheme).needs
        if asked not in {"auto", rule.scheme} or needs is Needs.LABELS:
            continue
        missing = "it needs --samples" if needs is Needs.SAMPLES and Needs.SAMPLES not in available else ""
        found.extend(Candidate(rule, one, missing=missing) for one in (efforts if rule.scheme == "int8" else ("low",)))
        if rule.scheme == "int8" and improvable:
            found.extend(Candidate(rule, efforts[-1], drop, kind, missing=missing) for kind in rule.mixed)
    trained = next((rule for rule in schemes if get_scheme(rule.scheme).needs is Needs.LABELS), None)
    if trained is not None and asked in {"auto", "int8", trained.scheme}:
        missing = untrainable or ("" if Needs.LABELS in available else "it needs --train")
        found.append(Candidate(trained, recipe="qat", missing=missing))
        found.extend(
            Candidate(trained, recipe=recipe, sparsity=sparsity, clusters=clusters, missing=missing)
            for recipe, sparsity, clusters in SIZE_RECIPES
        )
    return tuple(found)


def pointless(rung: Candidate, before: Sequence[Step], limits: Limits) -> str:
    """Return why a rung is not worth trying after what was tried, empty when it is."""
    scheme = get_scheme(rung.rule.scheme)
    # A file with single ops in float is larger than one without, and larger than one with ops in int16.
    tried = [step for step in before if step.made and step.rung.mixed is None]
    for step in tried:
        other = get_scheme(step.rung.rule.scheme)
        same = (scheme.weights, scheme.activations) == (other.weights, other.activations)
        if "size" in step.misses and (same or scheme.size_ratio > other.size_ratio):
            return f"its file is as large as that of {step.rung.name}, or larger"
        if "download" in step.misses and scheme.size_ratio > other.size_ratio:
            return f"its file is larger than that of {step.rung.name}"
        if "target" in step.misses and same:
            return f"the target refuses {step.rung.name} for its ops"
        if "drop" in step.misses and rung.compresses and step.rung.recipe in {"qat", rung.recipe}:
            return f"{step.rung.name} loses too much already"
    eight_bit = [
        step for step in tried if not step.rung.compresses and get_scheme(step.rung.rule.scheme).activations == "INT8"
    ]
    accurate = any("drop" not in step.misses for step in eight_bit)
    if rung.compresses:
        if limits.download is None:
            return "it makes the compressed file smaller, and there is no --max-download"
        if eight_bit and all("download" not in step.misses for step in eight_bit):
            return "the compressed file is small enough without it"
        return ""
    if accurate and scheme.activations == "INT8":
        return "it is there for accuracy, which is not what is missing"
    return ""


def judge(
    rung: Candidate, size: int, gzip_size: int, quality: Quality | None, limits: Limits, refused: str = ""
) -> Step:
    """Hold a file against the limits.

    Args:
        rung: How it was made.
        size: Its bytes.
        gzip_size: Its bytes compressed.
        quality: What it lost, None when nothing could be measured.
        limits: What it has to hold; without a limit on the drop, `AUTO_DROP` counts.
        refused: Why the target refuses the file, empty when it takes it.
    """
    misses, why = set(), []
    if refused:
        misses.add("target")
        why.append(refused)
    drop = AUTO_DROP if limits.drop is None else limits.drop
    if quality is not None and not acceptable(quality, drop):
        misses.add("drop")
        why.append("an output has one value only" if quality.collapsed else f"more than {drop:g} may be lost")
    if limits.size is not None and size > limits.size:
        misses.add("size")
        why.append(f"larger than {limits.size} bytes")
    if limits.download is not None and gzip_size > limits.download:
        misses.add("download")
        why.append(f"compressed larger than {limits.download} bytes")
    return Step(rung, size, gzip_size, quality, frozenset(misses), " and ".join(why))


def chosen(steps: Sequence[Step], limits: Limits) -> Step | None:
    """Return the step that a build takes, None when no file holds the limits.

    Without a limit on the drop, of the files that hold the others but lose much, the one that loses least will do.
    """
    holding = [step for step in steps if step.made and not step.misses]
    if holding or limits.drop is not None:
        return holding[0] if holding else None
    lossy = [step for step in steps if step.misses == {"drop"} and step.quality is not None]
    return min(lossy, key=lambda step: loss(step.quality) if step.quality else 0.0) if lossy else None


def best(steps: Sequence[Step], limits: Limits) -> Step:
    """Return the step nearest to the limits: fewest missed, then by the least part over them, then the earliest.

    Args:
        steps: At least one of them made.
        limits: The limits.
    """

    def distance(step: Step) -> tuple[int, float]:
        over = 0.0
        if step.quality is not None and "drop" in step.misses:
            # Points count in full: a limit of 0 would make any part of it infinite.
            over += loss(step.quality) - (AUTO_DROP if limits.drop is None else limits.drop)
        if limits.size is not None:
            over += max(0.0, step.bytes / limits.size - 1.0)
        if limits.download is not None:
            over += max(0.0, step.gzip_bytes / limits.download - 1.0)
        return len(step.misses) + 9 * ("target" in step.misses), over

    return min((step for step in steps if step.made), key=distance)
