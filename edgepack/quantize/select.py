"""Select the scheme by the target's rules, the data that is available and the user's request."""

from collections.abc import Collection
from dataclasses import dataclass

from edgepack.errors import SamplesError, UsageError
from edgepack.graph import Model
from edgepack.graph.op_layout import TYPE_CONVERSIONS
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.profiles.variants import chips_for
from edgepack.schemes import Needs, Scheme, get_scheme

_SAMPLES_HINT = (
    "give --samples with 100 to 500 unlabelled inputs: an .npz with arrays named like the model's inputs, "
    "a folder of images, or module:function"
)

_TRAIN_HINT = (
    "give --train with labelled samples: an .npz with arrays x and y, a folder of images with one sub-folder per "
    "class, or module:function that yields (sample, label)"
)


@dataclass(frozen=True)
class Selection:
    """The selected scheme.

    Attributes:
        rule: The target's rule for the scheme.
        reason: Why it was selected, one sentence for the report.
        candidates: The rules that the available data allows, `rule` first, then in the target's order; only `rule`
            where the user requested the scheme.
    """

    rule: SchemeRule
    reason: str
    candidates: tuple[SchemeRule, ...]


def select(profile: TargetProfile, available: Collection[Needs], requested: str = "auto") -> Selection:
    """Select the scheme for a target.

    Args:
        profile: The target.
        available: The data that the user supplied; `Needs.NOTHING` may be left out.
        requested: `auto`, or a scheme's id.

    Raises:
        UsageError: The scheme does not exist, or the target (or the chip) does not support it.
        SamplesError: The scheme, or every scheme that the target supports, needs data that is missing.
    """
    data = {Needs.NOTHING, *available}
    if requested == "auto":
        return _automatic(profile, data)
    scheme = get_scheme(requested)
    rule = profile.scheme_rule(requested)
    if rule is None:
        chips = chips_for(profile, requested)
        if chips:
            raise UsageError(
                f"{profile.title} supports {requested} on some chips only",
                hint=f"give one of them with --soc: {', '.join(chips)}",
            )
        raise UsageError(f"{profile.title} does not support {requested}", hint=f"it supports {_listed(profile)}")
    if scheme.needs not in data:
        raise SamplesError(f"{requested} needs {scheme.need_text}, and none were given", hint=_hint(scheme.needs))
    return Selection(rule, f"{requested} was requested", (rule,))


def _automatic(profile: TargetProfile, data: Collection[Needs]) -> Selection:
    # Training takes minutes to hours: it is a candidate only where its data is available.
    usable = [
        rule for rule in profile.schemes if Needs.LABELS in data or get_scheme(rule.scheme).needs is not Needs.LABELS
    ]
    candidates = tuple(rule for rule in usable if get_scheme(rule.scheme).needs in data)
    if not candidates:
        needs = [get_scheme(rule.scheme).needs for rule in profile.schemes]
        raise SamplesError(
            f"{profile.title} supports only schemes that need data, and none was given: {_listed(profile)}",
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
        return f"{rule.scheme} is the best scheme that {profile.title} supports without more data{because}; {missing}"
    return f"{rule.scheme} is the scheme that {profile.title} prefers{because}"


def _listed(profile: TargetProfile) -> str:
    return ", ".join(f"{scheme.id} ({scheme.need_text})" for scheme in _schemes(profile))


def _schemes(profile: TargetProfile) -> list[Scheme]:
    return [get_scheme(rule.scheme) for rule in profile.schemes]


def scheme_of(model: Model) -> str:
    """Return the id of the scheme of a .tflite, `float32` for one without quantization."""
    if model.is_float:
        return "float32"
    graph = model.main
    computed = {
        graph.tensors[i].dtype for op in graph.ops if op.name not in TYPE_CONVERSIONS for i in op.outputs if i >= 0
    }
    # A file in int8 with some ops in int16 counts as int8.
    if "INT16" in computed and not computed & {"INT8", "UINT8"}:
        return "int16x8"
    if model.is_quantized:
        return "int8"
    if any(t.dtype == "FLOAT16" and t.is_constant for t in graph.tensors):
        return "float16"
    return "dynamic-range"
