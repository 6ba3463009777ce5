"""Repairs of a float model for one target: what the plan and the check say decides which rewrites are done."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from edgepack.cache import key_of, sha256
from edgepack.errors import UnfitModelError, UsageError
from edgepack.findings import Placement
from edgepack.graph import Model
from edgepack.pipeline.options import TargetOptions
from edgepack.profiles.model import SchemeRule, TargetProfile
from edgepack.repair import MODES, TOLERANCE, Repaired, Rewrite, repair
from edgepack.runtime.postprocessing import PostprocessStep

if TYPE_CHECKING:
    # A check needs neither, and both take long to import.
    from edgepack.pipeline.session import Session
    from edgepack.samples import SampleSet

#: Samples that a rewrite is proved on; each runs the float model twice.
PROOF_SAMPLES = 8


@dataclass(frozen=True)
class Proven:
    """A repaired model with its proof.

    Attributes:
        repaired: The model and what was done.
        difference: Largest relative difference of the outputs on the samples, 0 when nothing was rewritten; above
            1e-5 only with approximate rewrites.
        notes: Sentences for people.
    """

    repaired: Repaired
    difference: float = 0.0
    notes: tuple[str, ...] = ()


def require_mode(mode: str) -> str:
    """Return a mode of --repair.

    Raises:
        UsageError: There is no such mode.
    """
    if mode not in MODES:
        raise UsageError(f"--repair: expected {', '.join(MODES[:-1])} or {MODES[-1]}, got '{mode}'")
    return mode


def has_accelerator(profile: TargetProfile) -> bool:
    """Return whether a target has an accelerator that ops can be moved to."""
    return profile.compiler is not None or profile.bundle.delegate != "none"


def repair_for(
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    wish: TargetOptions,
    *,
    mode: str = "exact",
    cut_tail: bool = False,
    skip: frozenset[str] = frozenset(),
) -> Repaired:
    """Rewrite what the target refuses, as far as that moves ops onto its accelerator. Runs nothing.

    A target without an accelerator of its own (the CPU) has nothing to move ops to, and gets the file as it is.

    Args:
        tflite: The float model; a quantized one only has its tail cut.
        profile: The target, as the registry has it.
        rule: Scheme the model will have.
        wish: Variant, chip and runtime version.
        mode: `exact`, `approximate` or `none`.
        cut_tail: Leave refused last steps to the loader.
        skip: Codes of rewrites that are not to be done.
    """
    if not has_accelerator(profile):
        # The host is all there is: its slower kernels would give way to more ops of its faster ones, for nothing.
        return Repaired(tflite)
    return repair(tflite, off_accelerator(profile, rule, wish), mode=require_mode(mode), cut_tail=cut_tail, skip=skip)


def repair_proven(
    session: "Session",
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    wish: TargetOptions,
    *,
    mode: str = "exact",
    cut_tail: bool = False,
    samples: "SampleSet | None" = None,
) -> Proven:
    """Do `repair_for` and prove it on samples (random ones without): rewrites that do not prove exact are left out.

    Args:
        session: Owner of the child that runs the models.
        tflite: The float model.
        profile: The target, as the registry has it.
        rule: Scheme the model will have.
        wish: Variant, chip and runtime version.
        mode: `exact`, `approximate` or `none`.
        cut_tail: Leave refused last steps to the loader.
        samples: Samples of the user; the first few are used.

    Raises:
        EdgepackError: The mode is unknown.
    """

    def attempt(wanted: str, skip: frozenset[str], cutting: bool = cut_tail) -> Repaired:
        return repair_for(tflite, profile, rule, wish, mode=wanted, cut_tail=cutting, skip=skip)

    def difference(done: Repaired) -> float:
        if done.tflite == tflite:
            return 0.0
        held: SampleSet | int = PROOF_SAMPLES if samples is None else samples.limited(PROOF_SAMPLES)
        return float(session.run_native("edgepack.repair.equivalence:prove_on", tflite, done.tflite, held, done.tail))

    first = "none" if require_mode(mode) == "none" else "exact"
    exact = attempt(first, frozenset())
    notes = []
    failed: frozenset[str] = frozenset()
    try:
        if exact.tail and difference(exact) > TOLERANCE:
            # Classes change where two scores are as good as equal, whatever rounds them: the tail is told apart first.
            uncut = attempt(first, frozenset(), False)
            if difference(uncut) <= TOLERANCE:
                notes.append("the last steps are left in the model: done by the loader, its outputs differ")
                exact, cut_tail = uncut, False
        if difference(exact) > TOLERANCE:
            failed = _unproven(exact, attempt, difference)
        done = attempt(mode, failed, cut_tail) if mode == "approximate" or failed else exact
        found = difference(done)
    except UnfitModelError as error:
        # A custom op of the user's own app: nothing can be proved, so nothing is rewritten.
        return Proven(Repaired(tflite), 0.0, (f"not repaired, because nothing can be proved here: {error.message}",))
    notes += [f"the rewrite {code} is left out: its outputs differ from the model's" for code in sorted(failed)]
    if any(not rewrite.exact for rewrite in done.rewrites):
        notes.append(f"approximate rewrites change the float outputs by {found:.2g} of the largest value at most")
    return Proven(done, found, tuple(notes))


def repair_kept(
    session: "Session",
    tflite: bytes,
    profile: TargetProfile,
    rule: SchemeRule,
    wish: TargetOptions,
    *,
    samples: "SampleSet | None" = None,
) -> Proven:
    """Return what `repair_proven` does as the wish says, from the cache when it was done before."""
    parts = {
        "model": sha256(tflite),
        "profile": profile.sha256,
        "rule": asdict(rule),
        "wish": asdict(wish),
        "samples": "" if samples is None else samples.digest,
        "versions": session.versions,
    }

    def compute() -> dict[str, bytes]:
        found = repair_proven(
            session, tflite, profile, rule, wish, mode=wish.repair, cut_tail=wish.cut_tail, samples=samples
        )
        meta = {
            "rewrites": [asdict(rewrite) for rewrite in found.repaired.rewrites],
            "tail": [asdict(step) for step in found.repaired.tail],
            "moved_ops": found.repaired.moved_ops,
            "difference": found.difference,
            "notes": found.notes,
        }
        return {"model.tflite": found.repaired.tflite, "meta.json": json.dumps(meta).encode()}

    files = session.cached(key_of("repair", parts), compute)
    meta = json.loads(files["meta.json"])
    rewrites = tuple(Rewrite(**fields) for fields in meta["rewrites"])
    tail = tuple(PostprocessStep(**{**fields, "shape": tuple(fields["shape"])}) for fields in meta["tail"])
    repaired = Repaired(files["model.tflite"], rewrites, tail, meta["moved_ops"])
    return Proven(repaired, meta["difference"], tuple(meta["notes"]))


def _unproven(
    exact: Repaired, attempt: Callable[[str, frozenset[str]], Repaired], difference: Callable[[Repaired], float]
) -> frozenset[str]:
    """Return the codes of rewrites without which the rest proves exact: one code, or else all."""
    codes = frozenset(rewrite.code for rewrite in exact.rewrites)
    for code in sorted(codes):
        if difference(attempt("exact", frozenset({code}))) <= TOLERANCE:
            return frozenset({code})
    return codes


def off_accelerator(profile: TargetProfile, rule: SchemeRule, wish: TargetOptions) -> Callable[[Model], frozenset[int]]:
    """Return a function that tells which ops a target would leave off its accelerator, by their first output."""
    from edgepack.compat import check
    from edgepack.profiles.variants import choose_variant
    from edgepack.quantize.preview import plan

    variant = choose_variant(profile, variant=wish.variant, soc=wish.soc)
    chosen = replace(profile, schemes=variant.schemes or profile.schemes)

    def score(model: Model) -> frozenset[int]:
        subject = plan(model, rule) if model.is_float else model
        report = check(subject, chosen, variant=variant.id, soc=wish.soc, runtime_version=wish.runtime_version)
        off = [found for found in report.ops if found.placement is not Placement.ACCELERATOR]
        return frozenset(
            subject.main.ops[found.index].outputs[0] for found in off if subject.main.ops[found.index].outputs
        )

    return score
