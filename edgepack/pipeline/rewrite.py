"""The rewriting stage: exact equivalents of ops that a target refuses, proven on samples."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from edgepack.errors import UnfitModelError
from edgepack.graph import Model, read_model
from edgepack.graph.fake_quant import learned_ranges
from edgepack.graph.memo import Memo
from edgepack.graph.op_layout import STATE_OPS
from edgepack.pipeline.options import TargetOptions
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.repair import (
    FOLDED,
    TOLERANCE,
    Repaired,
    Rewrite,
    constant_shapes,
    dense_constants,
    distinct_names,
    explicit_broadcasts,
    explicit_states,
    fold_arithmetic,
    fuse,
    repair,
)
from edgepack.runtime.postprocessing import PostprocessStep
from edgepack.schemes import get_scheme

if TYPE_CHECKING:
    # A check needs none of these, and they take long to import.
    from edgepack.pipeline.session import Session
    from edgepack.pipeline.step_cache import Codec
    from edgepack.samples import SampleSet

#: Samples that a rewrite is proven on: a wrong one shows on any, and each runs the float model twice.
PROOF_SAMPLES = 8


@dataclass(frozen=True)
class RewrittenModel:
    """A model after its rewrites.

    Attributes:
        tflite: The file.
        rewrites: What was rewritten.
        postprocessing: Last steps that are left to the loader.
        moved_ops: Ops that the rewrites move onto the accelerator.
        difference: Largest difference of the outputs on the samples, relative to their largest value; 0 without
            rewrites, above 1e-5 only with approximate ones.
        notes: Sentences for people.
    """

    tflite: bytes
    rewrites: tuple[Rewrite, ...] = ()
    postprocessing: tuple[PostprocessStep, ...] = ()
    moved_ops: int = 0
    difference: float = 0.0
    notes: tuple[str, ...] = ()


def has_accelerator(profile: TargetProfile) -> bool:
    """Return whether a target has an accelerator that ops can be moved to."""
    return profile.compiler is not None or profile.bundle.delegate != "none"


def rewrite_unproven(
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    target_options: TargetOptions,
    *,
    mode: str = "exact",
    cut_tail: bool = False,
    skip: frozenset[str] = frozenset(),
) -> RewrittenModel:
    """Rewrite what the target refuses, as far as that moves ops onto its accelerator, without running anything.

    For a target without an accelerator (the CPU) an op is only rewritten where it would stay float in an integer file
    and its equivalent does not. A softmax written as a chain of ops is fused for every target; before integer
    quantization, scales and offsets are folded into the layers around them.

    Args:
        tflite: The float model; of a quantized one only last steps are cut.
        profile: The target.
        rule: Scheme that the model will have.
        target_options: Variant, chip and runtime version.
        mode: `exact`, `approximate` or `none`.
        cut_tail: Leave refused last steps to the loader.
        skip: Codes of rewrites to leave out.
    """
    fused = fuse(tflite, skip) if mode != "none" else Repaired(tflite)
    tflite, rewrites = fused.tflite, fused.rewrites
    if mode != "none" and FOLDED not in skip and _rounds_activations(rule) and not learned_ranges(tflite):
        tflite, folded = fold_arithmetic(tflite)
        rewrites = (*rewrites, *folded)
    if not has_accelerator(profile):
        score, cut_tail = left_in_float(rule), False
        if not get_scheme(rule.scheme).is_integer:
            return RewrittenModel(tflite, rewrites)
    else:
        score = off_accelerator(profile, rule, target_options)
    refuses = refuses_whole(profile, rule, target_options)
    moved = 0
    doubts = doubts_of(profile, rule, target_options)
    for code, rewrite in _OF_FILES if mode != "none" else ():
        if code not in skip and (code != "explicit-state" or profile.external_state):
            tflite, gain, done = _where_it_helps(rewrite, tflite, score, doubts)
            rewrites, moved = (*rewrites, *done), moved + gain
    repaired = repair(tflite, score, mode=mode, cut_tail=cut_tail, skip=skip, refuses=refuses)
    if mode != "none" and "distinct-names" not in skip and compares_names(profile, target_options):
        again = partial(repair, score=score, mode=mode, cut_tail=cut_tail, skip=skip, refuses=refuses)
        repaired = _with_distinct_names(tflite, repaired, score, again)
    rewrites = (*rewrites, *repaired.rewrites)
    result = RewrittenModel(repaired.tflite, rewrites, repaired.postprocessing, moved + repaired.moved_ops)
    if not has_accelerator(profile) or not get_scheme(rule.scheme).is_integer:
        return result
    # What the accelerator does not take in any form may still become integers on the host.
    integer = repair(result.tflite, left_in_float(rule), mode=mode, skip=skip)
    if not integer.rewrites or len(score(read_model(integer.tflite))) > len(score(read_model(result.tflite))):
        return result
    return replace(
        result, tflite=integer.tflite, rewrites=(*rewrites, *(replace(r, moved_ops=0) for r in integer.rewrites))
    )


def compares_names(profile: TargetProfile, target_options: TargetOptions) -> bool:
    """Return whether the target's compiler refuses tensors of one name."""
    from edgepack.profiles.variants import choose_variant

    file = choose_variant(profile, variant=target_options.variant, soc=target_options.soc).ops.file
    return file is not None and file.distinct_names


#: Rewrites of any file, also of a quantized one, by the code of their last entry.
_OF_FILES: Sequence[tuple[str, Callable[[bytes], tuple[bytes, tuple[Rewrite, ...]]]]] = (
    ("dense-constant", dense_constants),
    ("constant-shape", constant_shapes),
    ("explicit-broadcast", explicit_broadcasts),
    # Where that is not enough, because an op on the host computes a value.
    ("explicit-broadcast", partial(explicit_broadcasts, computed=True)),
    ("explicit-state", explicit_states),
)


def _where_it_helps(
    rewrite: Callable[[bytes], tuple[bytes, tuple[Rewrite, ...]]],
    tflite: bytes,
    score: Callable[[Model], frozenset[int]],
    doubts: Callable[[Model], int],
) -> tuple[bytes, int, tuple[Rewrite, ...]]:
    """Return the rewritten file, the ops that this moves onto the accelerator, and the rewrites.

    The same file, 0 and none where it moves no op and leaves as many with which the compiler perhaps fails.
    """
    rewritten, rewrites = rewrite(tflite)
    if not rewrites:
        return tflite, 0, ()
    before, after = read_model(tflite), read_model(rewritten)
    moved = len(score(before)) - len(score(after))
    if moved < 0 or (moved == 0 and doubts(after) >= doubts(before)):
        return tflite, 0, ()
    return rewritten, moved, (*rewrites[:-1], replace(rewrites[-1], moved_ops=moved))


def _with_distinct_names(
    tflite: bytes,
    repaired: Repaired,
    score: Callable[[Model], frozenset[int]],
    repair_again: Callable[[bytes], Repaired],
) -> Repaired:
    """Return the repairs of the model with distinct names where more of it runs on the accelerator then."""
    left = len(score(read_model(repaired.tflite)))
    renamed, rewrites = distinct_names(tflite) if left else (tflite, ())
    if not rewrites:
        return repaired
    again = repair_again(renamed)
    gain = left - len(score(read_model(again.tflite)))
    if gain <= 0:
        return repaired
    moved = tuple(replace(rewrite, moved_ops=gain) for rewrite in rewrites)
    return replace(again, rewrites=(*moved, *again.rewrites), moved_ops=again.moved_ops + gain)


def rewrite_proven(
    session: "Session",
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    target_options: TargetOptions,
    *,
    samples: "SampleSet | None" = None,
) -> RewrittenModel:
    """Rewrite and prove the result on samples, random ones without; rewrites that change the outputs are left out.

    Args:
        session: Child processes and cache.
        tflite: The float model; of a quantized one only last steps are cut.
        profile: The target.
        rule: Scheme that the model will have.
        target_options: Variant, chip, runtime version, which rewrites are allowed.
        samples: Samples of the user; the first few are used.
    """

    def compute() -> RewrittenModel:
        return _prove(session, tflite, profile, rule, target_options, samples)

    inputs = {
        "model": tflite,
        "profile": profile.sha256,
        "rule": rule,
        "target_options": target_options,
        "samples": samples,
    }
    return session.steps.memoize("repair", inputs, rewritten_codec(), compute)


def _prove(
    session: "Session",
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    target_options: TargetOptions,
    samples: "SampleSet | None",
) -> RewrittenModel:
    from edgepack.pipeline.jobs import PROVE_EQUIVALENCE

    def attempt(mode: str, skip: frozenset[str], cut_tail: bool) -> RewrittenModel:
        return rewrite_unproven(tflite, profile, rule, target_options, mode=mode, cut_tail=cut_tail, skip=skip)

    def difference(rewritten: RewrittenModel) -> float:
        if rewritten.tflite == tflite:
            return 0.0
        proof: SampleSet | int = PROOF_SAMPLES if samples is None else samples.limited(PROOF_SAMPLES)
        return session.workers.run(PROVE_EQUIVALENCE.call(tflite, rewritten.tflite, proof, rewritten.postprocessing))

    mode, cut_tail = target_options.repair, target_options.cut_tail
    first = "none" if mode == "none" else "exact"
    exact = attempt(first, frozenset(), cut_tail)
    notes = []
    failed: frozenset[str] = frozenset()
    try:
        if exact.postprocessing and difference(exact) > TOLERANCE:
            # A class changes where two scores are nearly equal, whatever rounds them: try without the cut first.
            uncut = attempt(first, frozenset(), False)
            if difference(uncut) <= TOLERANCE:
                notes.append("the last steps stay in the model: its outputs differ when the loader does them")
                exact, cut_tail = uncut, False
        if difference(exact) > TOLERANCE:
            failed = _unproven(exact, lambda skip: difference(attempt("exact", skip, cut_tail)))
        rewritten = attempt(mode, failed, cut_tail) if mode == "approximate" or failed else exact
        remaining = difference(rewritten)
    except UnfitModelError as error:
        # A custom op of the user's own app: nothing can be proven, so nothing is rewritten.
        return RewrittenModel(tflite, notes=(f"not rewritten, because nothing can be proven here: {error.message}",))
    notes += [f"the rewrite {code} is left out: it changes the model's outputs" for code in sorted(failed)]
    if any(not rewrite.exact for rewrite in rewritten.rewrites):
        notes.append(f"approximate rewrites change the float outputs by at most {remaining:.2g} of the largest value")
    return replace(rewritten, difference=remaining, notes=tuple(notes))


def _unproven(exact: RewrittenModel, difference_without: Callable[[frozenset[str]], float]) -> frozenset[str]:
    """Return the codes of rewrites without which the others are proven exact: one code, or else all."""
    codes = frozenset(rewrite.code for rewrite in exact.rewrites)
    for code in sorted(codes):
        if difference_without(frozenset({code})) <= TOLERANCE:
            return frozenset({code})
    return codes


def _rounds_activations(rule: SchemeRule) -> bool:
    return get_scheme(rule.scheme).activations in {"INT8", "INT16"} and rule.scheme != "int8-qat"


def left_in_float(rule: SchemeRule) -> Callable[[Model], frozenset[int]]:
    """Return a function that lists the ops of a model that stay float in a scheme, by their first output."""
    from edgepack.graph.op_layout import float_ops
    from edgepack.quantize.preview import preview

    memo = Memo()

    def score(model: Model) -> frozenset[int]:
        return frozenset(op.outputs[0] for op in float_ops(preview(model, rule, memo).main) if op.outputs)

    return score


def off_accelerator(
    profile: TargetProfile, rule: SchemeRule, target_options: TargetOptions
) -> Callable[[Model], frozenset[int]]:
    """Return a function that lists the ops a target would not run on its accelerator, by their first output."""
    from edgepack.compat import accelerated_ops
    from edgepack.profiles.variants import choose_variant, soc_model
    from edgepack.quantize.preview import preview

    variant = choose_variant(profile, variant=target_options.variant, soc=target_options.soc)
    facts = profile.socs.get(soc_model(profile, target_options.soc), {})
    memo = Memo()

    def score(model: Model) -> frozenset[int]:
        subject = preview(model, rule, memo) if model.is_float else model
        accelerated = accelerated_ops(
            subject, variant, soc=facts, runtime_version=target_options.runtime_version, memo=memo
        )
        # Ops that access a variable compute nothing, wherever they run.
        ops = (op for op in subject.main.ops if op.outputs and op.name not in STATE_OPS)
        return frozenset(op.outputs[0] for op in ops if op.index not in accelerated)

    return score


def doubts_of(profile: TargetProfile, rule: SchemeRule, target_options: TargetOptions) -> Callable[[Model], int]:
    """Return a function that counts the ops of a model with which a target's compiler perhaps fails."""
    from edgepack.compat import doubtful_ops
    from edgepack.profiles.variants import choose_variant, soc_model
    from edgepack.quantize.preview import preview

    variant = choose_variant(profile, variant=target_options.variant, soc=target_options.soc)
    if variant.ops.file is None or not variant.ops.file.uncertain:
        return lambda model: 0
    facts = profile.socs.get(soc_model(profile, target_options.soc), {})
    memo = Memo()

    def doubts(model: Model) -> int:
        subject = preview(model, rule, memo) if model.is_float else model
        version = target_options.runtime_version
        return len(doubtful_ops(subject, variant, soc=facts, runtime_version=version, memo=memo))

    return doubts


def refuses_whole(
    profile: TargetProfile, rule: SchemeRule, target_options: TargetOptions
) -> Callable[[Model], bool] | None:
    """Return a function that tells whether a target's compiler refuses a model as a whole; None if it never does."""
    from edgepack.compat import refuses_file
    from edgepack.profiles.variants import choose_variant, soc_model
    from edgepack.quantize.preview import preview

    variant = choose_variant(profile, variant=target_options.variant, soc=target_options.soc)
    if variant.ops.file is None:
        return None
    facts = profile.socs.get(soc_model(profile, target_options.soc), {})
    memo = Memo()

    def refuses(model: Model) -> bool:
        subject = preview(model, rule, memo) if model.is_float else model
        return refuses_file(subject, variant, soc=facts, runtime_version=target_options.runtime_version)

    return refuses


def _encode(rewritten: RewrittenModel) -> Mapping[str, bytes]:
    meta = {
        "rewrites": [asdict(rewrite) for rewrite in rewritten.rewrites],
        "postprocessing": [asdict(step) for step in rewritten.postprocessing],
        "moved_ops": rewritten.moved_ops,
        "difference": rewritten.difference,
        "notes": rewritten.notes,
    }
    return {"model.tflite": rewritten.tflite, "meta.json": json.dumps(meta, sort_keys=True).encode()}


def _decode(files: Mapping[str, bytes]) -> RewrittenModel:
    meta = json.loads(files["meta.json"])
    return RewrittenModel(
        tflite=files["model.tflite"],
        rewrites=tuple(Rewrite(**fields) for fields in meta["rewrites"]),
        postprocessing=tuple(
            PostprocessStep(**{**fields, "shape": tuple(fields["shape"])}) for fields in meta["postprocessing"]
        ),
        moved_ops=meta["moved_ops"],
        difference=meta["difference"],
        notes=tuple(meta["notes"]),
    )


def rewritten_codec() -> "Codec[RewrittenModel]":
    """Return how a rewritten model is stored in the cache."""
    from edgepack.pipeline.step_cache import Codec

    return Codec(_encode, _decode)
