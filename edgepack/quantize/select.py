"""Choose the scheme: by what the target takes, what data was given and what was asked for. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from edgepack.errors import SamplesError, UsageError
from edgepack.graph import Model
from edgepack.graph.op_layout import TYPE_CONVERSIONS
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import chips_for
from edgepack.schemes import Needs, Scheme, get_scheme

_SAMPLES_HINT = (
    "give --samples with 100 to 500 unlabelled inputs: an .npz with arrays named as the model's inputs, "
    "a folder of images, or module:function"
)

_TRAIN_HINT = (
    "give --train with labelled samples: an .npz with arrays x and y, a folder of images with one sub-folder per "
    "class, or module:function that yields (sample, label)"
)


@dataclass(frozen=True)
class Selection:
    """What was chosen, and why.

    Attributes:
        rule: The target's rule for the scheme.
        reason: One sentence for people.
        candidates: The rules that the data allows, `rule` first, then the target's order; just `rule` when asked for.
    """

    rule: SchemeRule
    reason: str
    candidates: tuple[SchemeRule, ...]


def select(profile: TargetProfile, available: Collection[Needs], asked: str = "auto") -> Selection:
    """Choose the scheme for a target.

    Args:
        profile: The target.
        available: What data was given; `Needs.NOTHING` may be left out.
        asked: `auto`, or a scheme's id.

    Raises:
        UsageError: The scheme does not exist, or the target (or the chip) refuses it.
        SamplesError: The scheme, or every scheme the target takes, needs data that was not given.
    """
    given = {Needs.NOTHING, *available}
    if asked == "auto":
        return _automatic(profile, given)
    scheme = get_scheme(asked)
    rule = profile.scheme_rule(asked)
    if rule is None:
        chips = chips_for(profile, asked)
        if chips:
            raise UsageError(
                f"{profile.title} takes {asked} on some chips only",
                hint=f"give one of them with --soc: {', '.join(chips)}",
            )
        raise UsageError(f"{profile.title} does not take {asked}", hint=f"it takes {_listed(profile)}")
    if scheme.needs not in given:
        raise SamplesError(f"{asked} needs {scheme.need_text}, and none were given", hint=_hint(scheme.needs))
    return Selection(rule, f"{asked} was asked for", (rule,))


def _automatic(profile: TargetProfile, given: Collection[Needs]) -> Selection:
    # Training takes minutes to hours: it is a candidate only when its data is there.
    usable = [
        rule for rule in profile.schemes if Needs.LABELS in given or get_scheme(rule.scheme).needs is not Needs.LABELS
    ]
    candidates = tuple(rule for rule in usable if get_scheme(rule.scheme).needs in given)
    if not candidates:
        needs = [get_scheme(rule.scheme).needs for rule in profile.schemes]
        raise SamplesError(
            f"{profile.title} takes only schemes that need data, and none was given: {_listed(profile)}",
            hint=_hint(Needs.SAMPLES if Needs.SAMPLES in needs else Needs.LABELS),
        )
    rule = candidates[0]
    return Selection(rule, _reason(profile, rule, usable), candidates)


def _hint(needs: Needs) -> str:
    return _TRAIN_HINT if needs is Needs.LABELS else _SAMPLES_HINT


def _reason(profile: TargetProfile, rule: SchemeRule, usable: Collection[SchemeRule]) -> str:
    before = [get_scheme(other.scheme) for other in usable][: list(usable).index(rule)]
    because = f" because {rule.why}" if rule.why else ""
    if before:
        missing = " and ".join(f"{scheme.id} needs {scheme.need_text}" for scheme in before)
        return f"{rule.scheme} is the best {profile.title} takes without more data{because}; {missing}"
    return f"{rule.scheme} is what {profile.title} prefers{because}"


def _listed(profile: TargetProfile) -> str:
    return ", ".join(f"{scheme.id} ({scheme.need_text})" for scheme in _schemes(profile))


def _schemes(profile: TargetProfile) -> list[Scheme]:
    return [get_scheme(rule.scheme) for rule in profile.schemes]


def scheme_of(model: Model) -> str:
    """Return the scheme id that a .tflite has, `float32` for one that nobody quantized."""
    if model.is_float:
        return "float32"
    graph = model.main
    computed = {
        graph.tensors[i].dtype for op in graph.ops if op.name not in TYPE_CONVERSIONS for i in op.outputs if i >= 0
    }
    # int8 with single ops in int16 is int8.
    if "INT16" in computed and not computed & {"INT8", "UINT8"}:
        return "int16x8"
    if model.is_quantized:
        return "int8"
    if any(t.dtype == "FLOAT16" and t.is_constant for t in graph.tensors):
        return "float16"
    return "dynamic-range"
