"""Candidates: the ways to produce a target's file, in the order a build tries them. Pure: nothing is produced here.

The order is that of TensorFlow's model optimization guide: post-training quantization first, because it takes seconds
to minutes and no labels; quantization-aware training where that loses too much; pruning and clustering before it where
the compressed file is too large.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from edgepack.choices import Effort
from edgepack.errors import QuantizationError
from edgepack.graph import read_model
from edgepack.graph.fake_quant import learned_ranges
from edgepack.pipeline.context import BuildContext
from edgepack.pipeline.options import BuildOptions
from edgepack.pipeline.search.loss import AUTO_DROP
from edgepack.pipeline.training import untrainable_reason
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import resolve_variant
from edgepack.quantize.ranges import unlearned
from edgepack.quantize.select import scheme_of, select
from edgepack.schemes import Needs, get_scheme, plain_type

#: Recipes that make the compressed file smaller, mildest first: (recipe, sparsity, clusters per layer).
#: The guide's own figures: 50 and 80 % sparsity, 16 clusters; a small network with many weights for its task tolerates
#: 90 % (docs/reference/commands/train.md).
SIZE_RECIPES = (
    ("prune+qat", 0.5, 0),
    ("cluster+qat", 0.0, 16),
    ("prune+cluster+qat", 0.5, 16),
    ("prune+cluster+qat", 0.8, 16),
    ("prune+cluster+qat", 0.9, 16),
)


@dataclass(frozen=True)
class Candidate:
    """One way to produce a target's file.

    Attributes:
        rule: The target's rule for the scheme.
        effort: `low`, `medium` or `high`: the effort of int8 post-training quantization.
        mixed: Percentage points that may be lost, where single ops keep more precision than int8; None where none do.
        mixed_as: Precision of those ops: `float32` or `int16`.
        recipe: Training recipe, empty for post-training quantization.
        sparsity: Share of zeros of a recipe that prunes.
        clusters: Distinct weights per layer of a recipe that clusters.
        as_is: True for a file that is quantized already.
        missing: Why it cannot be tried, empty when it can.
    """

    rule: SchemeRule
    effort: str = "low"
    mixed: float | None = None
    mixed_as: str = "float32"
    recipe: str = ""
    sparsity: float = 0.0
    clusters: int = 0
    as_is: bool = False
    missing: str = ""

    @property
    def name(self) -> str:
        """Name for people: `int8, effort high`, `prune+qat, 50 % zeros`."""
        words = [self.recipe or self.rule.scheme]
        if self.as_is:
            return words[0]
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
        """True when its purpose is the compressed size."""
        return bool(self.sparsity or self.clusters)


@dataclass(frozen=True)
class CandidatePlan:
    """What a build may try for a target.

    Attributes:
        candidates: In the order they are tried, also those that data is missing for.
        reason: Why the first one comes first, one sentence; empty for a search with limits.
        competing: True when a candidate that loses much gives way to the next one.
    """

    candidates: tuple[Candidate, ...]
    reason: str
    competing: bool


def resolve_profile(profile: TargetProfile, options: BuildOptions) -> TargetProfile:
    """Return the profile of the variant and the chip of the options, with the schemes that --per-tensor leaves.

    Raises:
        UsageError: There is no such variant or chip.
    """
    resolved = resolve_variant(profile, variant=options.target.variant, soc=options.target.soc)
    return replace(resolved, schemes=per_tensor(resolved.schemes)) if options.per_tensor else resolved


def per_tensor(schemes: Sequence[SchemeRule]) -> tuple[SchemeRule, ...]:
    """Return the rules with one scale per weight tensor; training cannot produce these and is left out."""
    return tuple(
        replace(rule, weights="per-tensor", fully_connected="per-tensor")
        for rule in schemes
        if get_scheme(rule.scheme).needs is not Needs.LABELS
    )


def plan_candidates(context: BuildContext, profile: TargetProfile) -> CandidatePlan:
    """Return what a build may try for a target, in order, and what is missing for the rest.

    Args:
        context: The build.
        profile: The target, with the variant resolved.

    Raises:
        UsageError: The target does not support the requested scheme.
        SamplesError: The requested scheme, or every scheme of the target, needs data that was not given.
        QuantizationError: The model is quantized already, in a form that the target or the request does not allow.
    """
    options = context.options
    if context.float_model.quantized:
        return _as_is(context, profile)
    selection = select(profile, available_data(context), options.scheme)
    if options.limits:
        candidates = search_order(
            profile.schemes,
            available_data(context),
            requested=options.scheme,
            effort=options.effort,
            improvable=context.samples is not None,
            drop=AUTO_DROP if options.limits.drop is None else options.limits.drop,
            untrainable=untrainable_reason(context.path),
        )
        return CandidatePlan(candidates, "", competing=True)
    rules = selection.candidates if options.scheme == "auto" else (selection.rule,)
    return CandidatePlan(
        tuple(candidate_for(rule, options) for rule in rules), selection.reason, competing=len(rules) > 1
    )


def available_data(context: BuildContext) -> frozenset[Needs]:
    """Return which kinds of data the user gave."""
    available = {Needs.NOTHING}
    given = context.samples is not None or context.options.random_calibration
    if given or not needs_samples(context.float_model.tflite):
        available.add(Needs.SAMPLES)
    if context.training is not None:
        available.add(Needs.LABELS)
    return frozenset(available)


def needs_samples(tflite: bytes) -> bool:
    """Return whether quantization needs ranges that the model did not learn in training."""
    learned = learned_ranges(tflite)
    return not learned or bool(unlearned(read_model(tflite), learned))


def candidate_for(rule: SchemeRule, options: BuildOptions) -> Candidate:
    """Return the candidate that a build without limits tries for a scheme."""
    recipe = "qat" if get_scheme(rule.scheme).needs is Needs.LABELS else ""
    return Candidate(rule, options.effort, recipe=recipe)


def search_order(
    schemes: Sequence[SchemeRule],
    available: Collection[Needs],
    *,
    requested: str = "auto",
    effort: str = "low",
    improvable: bool = True,
    drop: float = AUTO_DROP,
    untrainable: str = "",
) -> tuple[Candidate, ...]:
    """Return the candidates of a search with limits, also those that data is missing for.

    Args:
        schemes: The target's rules in its order of preference.
        available: Which kinds of data the user gave.
        requested: `auto`, or a scheme's id: then only its candidates; training also makes `int8`.
        effort: Where the effort for int8 begins.
        improvable: False without real samples: more effort would be fitted to random numbers.
        drop: Percentage points that may be lost where single ops keep float or int16.
        untrainable: Why the model cannot be trained at all, empty when it can.
    """
    candidates: list[Candidate] = []
    efforts = list(Effort)[list(Effort).index(Effort(effort)) :] if improvable else [Effort.LOW]
    for rule in schemes:
        needs = get_scheme(rule.scheme).needs
        if requested not in {"auto", rule.scheme} or needs is Needs.LABELS:
            continue
        missing = "it needs --samples" if needs is Needs.SAMPLES and Needs.SAMPLES not in available else ""
        tried = efforts if rule.scheme == "int8" else [Effort.LOW]
        candidates.extend(Candidate(rule, one, missing=missing) for one in tried)
        if rule.scheme == "int8" and improvable:
            candidates.extend(Candidate(rule, efforts[-1], drop, kind, missing=missing) for kind in rule.mixed)
    trained = next((rule for rule in schemes if get_scheme(rule.scheme).needs is Needs.LABELS), None)
    if trained is not None and requested in {"auto", "int8", trained.scheme}:
        missing = untrainable or ("" if Needs.LABELS in available else "it needs --train")
        candidates.append(Candidate(trained, recipe="qat", missing=missing))
        candidates.extend(
            Candidate(trained, recipe=recipe, sparsity=sparsity, clusters=clusters, missing=missing)
            for recipe, sparsity, clusters in SIZE_RECIPES
        )
    return tuple(candidates)


def _as_is(context: BuildContext, profile: TargetProfile) -> CandidatePlan:
    """Return the plan for a file that is quantized already, when the target supports its scheme."""
    scheme = scheme_of(read_model(context.float_model.tflite))
    requested = context.options.scheme
    rule = profile.scheme_rule(scheme)
    if requested not in {"auto", scheme} or rule is None:
        needed = requested if requested not in {"auto", scheme} else " or ".join(r.scheme for r in profile.schemes)
        raise QuantizationError(
            f"the model is already quantized ({scheme}); {profile.id} with {needed} would need the float model",
            hint="give the .keras, SavedModel or float .tflite it was made from",
        )
    return CandidatePlan(
        (Candidate(rule, as_is=True),), "the file is already quantized and is used as it is", competing=False
    )
